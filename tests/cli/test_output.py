"""Output that can't be written or encoded ends no command, and help doesn't depend on docstrings."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from rnnlstm.config.output import guard_output
from rnnlstm.record.files import read_json

from support.commands import ENVIRONMENT
from support.run_folders import make_run
from support.training import SMALL_NUMBERS

PACKAGE = Path(__file__).resolve().parents[2] / "rnnlstm"
COMMANDS = ["train", "compare", "gradflow", "reproduce", "events", "export", "benchmark"]
ENCODING = {"encoding": "utf-8", "errors": "replace"}
HELP = [[command, "--help"] for command in COMMANDS]


def start(arguments, cwd, *flags, **options):
    """`options` are Popen's, and environment variables in upper case."""
    variables = {name: options.pop(name) for name in list(options) if name.isupper()}
    line = [sys.executable, *flags, "-m", f"rnnlstm.{arguments[0]}", *arguments[1:]]
    return subprocess.Popen(line, cwd=cwd, env=ENVIRONMENT | variables, stderr=subprocess.PIPE, **ENCODING, **options)


def ended(process):
    """Exit code, standard output and standard error."""
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


def stream_on(descriptor, monkeypatch, encoding="utf-8", **options):
    """Standard output to this descriptor, guarded."""
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding, **options)
    )
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    return guard_output()


def test_a_full_disk_is_noted_and_stops_nothing(monkeypatch):
    with Path("/dev/full").open("w") as full:
        output = stream_on(full.fileno(), monkeypatch)
        for _ in range(3):
            print("x" * 100_000, flush=True)
    assert output.lost == "No space left on device"


def test_a_reader_that_has_gone_is_no_loss(monkeypatch):
    reader, writer = os.pipe()
    output = stream_on(writer, monkeypatch)
    os.close(reader)
    print("nobody reads this", flush=True)
    os.close(writer)
    assert isinstance(output.failure, BrokenPipeError)
    assert output.lost is None


@pytest.mark.parametrize(
    ("encoding", "written"), [("ascii", b"\\xb1 \\u2026 \\udcff"), ("latin-1", b"\xb1 \\u2026 \\udcff")]
)
def test_characters_that_the_encoding_lacks_are_escaped(encoding, written, monkeypatch):
    reader, writer = os.pipe()
    stream_on(writer, monkeypatch, encoding)
    print("± … \udcff", end="", flush=True)
    assert os.read(reader, 100) == written
    os.close(reader)
    os.close(writer)


def test_a_full_pipe_that_does_not_block_is_waited_for(monkeypatch):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    output = stream_on(writer, monkeypatch, write_through=True)
    received = bytearray()

    def read():
        while data := os.read(reader, 65_536):
            received.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    print("x" * 1_000_000, end="", flush=True)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert output.failure is None
    assert received == b"x" * 1_000_000


def test_a_stream_in_memory_stays(monkeypatch):
    memory = io.StringIO()
    monkeypatch.setattr(sys, "stdout", memory)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert guard_output() is None
    assert sys.stdout is memory


def test_a_closed_stream_becomes_the_null_device(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert guard_output() is None
    print("nowhere", flush=True)
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        assert stream.name == os.devnull
        stream.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_no_docstring(command, monkeypatch):
    path = PACKAGE / f"{command}.py"
    module = types.ModuleType("without_docstrings")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there
    exec(compile(path.read_text(), path, "exec", optimize=2), module.__dict__)
    assert f"python -m rnnlstm.{command}" in (module.__doc__ or "")
    assert "\nExamples\n" in module.__doc__


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["train", "--help"], ["gradflow", "--help"], ["compare", "--help"]])
def test_help_without_docstrings_is_the_same(arguments, tmp_path):
    with_them, without = (
        ended(start(arguments, tmp_path, *flags, stdout=subprocess.PIPE)) for flags in ([], ["-OO"])
    )
    assert with_them == without
    assert with_them[0] == 0
    assert len(with_them[1]) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_command_prints_in_a_small_encoding(encoding, tmp_path):
    make_run(tmp_path / "runs" / "run", seeds=2)
    files = ["--csv", "table.csv", "--html", "page.html"]
    gradflow = [["gradflow", "task=adding", "task.length=5", "model.hidden_size=2", "sequences=1"]]
    for arguments in (["compare", "runs", *files], *([*HELP, *gradflow] if encoding == "ascii" else ())):
        process = start(arguments, tmp_path, stdout=subprocess.PIPE, PYTHONIOENCODING=encoding)
        code, out, error = ended(process)
        assert (code, error) == (0, ""), arguments
        assert out
    assert "accuracy" in (tmp_path / "table.csv").read_text()
    assert "\N{EN DASH}" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_a_sweep_whose_reader_stops_after_a_line_trains_every_job(tmp_path):
    """A job's own process prints, too: its first progress line."""
    sweep = ["train", "-m", "task=adding", "model=rnn,lstm", "train.steps=3", *SMALL_NUMBERS]
    process = start(sweep, tmp_path, stdout=subprocess.PIPE)
    assert process.stdout.readline().startswith("[1/2] ")
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=120), error) == (0, "")
    summaries = [read_json(path) for path in tmp_path.rglob("summary.json")]
    assert [summary["status"] for summary in summaries] == ["done"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["train", "--help"], ["compare", "--help"], ["compare", "runs", "--csv", "t.csv"]]
)
def test_a_full_disk_under_the_output_is_one_line_and_74(arguments, tmp_path):
    make_run(tmp_path / "runs" / "run", seeds=1)
    with Path("/dev/full").open("w") as full:
        code, _, error = ended(start(arguments, tmp_path, stdout=full))
    assert (code, error) == (74, "error: can't write to standard output: No space left on device\n")
    assert (tmp_path / "t.csv").exists() == ("t.csv" in arguments)  # all else is done


@pytest.mark.slow
def test_without_any_open_stream_the_exit_code_is_the_same(tmp_path):
    command = f"{sys.executable} -m rnnlstm.train what=1 >&- 2>&- <&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, env=ENVIRONMENT, timeout=60).returncode == 2
