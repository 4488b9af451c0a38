"""Limits of the machine and of files: exhausted memory, numbers and names that are too long, folders' odd names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rnnlstm import compare, events, gradflow
from rnnlstm.cli.exits import guarded
from rnnlstm.config.errors import JobError, enough_memory
from rnnlstm.record.files import read_json
from rnnlstm.train import main as train_main

from support.commands import ENVIRONMENT
from support.training import SMALL

pytestmark = pytest.mark.usefixtures("shared_composer")

ALLOCATION = "DefaultCPUAllocator: can't allocate memory: you tried to allocate"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError(f"{ALLOCATION} 14400000000 bytes. Error code 12"), ": 14400000000 bytes were asked for"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."), ": 20.00 GiB were asked for"),
        (MemoryError("Unable to allocate 745. GiB for an array"), ": 745. GiB were asked for"),
        (MemoryError(), ""),
    ],
)
def test_exhausted_memory_is_one_line_with_size_and_bytes(error, message, capsys):
    def command():
        with enough_memory("x=1"):
            raise error

    with pytest.raises(JobError) as caught:
        command()
    assert str(caught.value) == f"out of memory (x=1){message}"
    assert guarded(command) == 1
    assert capsys.readouterr().err == f"error: out of memory (x=1){message}\n"


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes differ"), enough_memory():
        raise RuntimeError("shapes differ")


@pytest.mark.slow
def test_a_network_beyond_the_memory_fails_alone(tmp_path):
    """In shells that may have 6 GB: a single job, one of a sweep, and gradflow."""
    small = ["task=adding", "train.steps=2", "task.length=5", "eval.samples=4"]
    asked = "14400000000 bytes were asked for"

    def limited(*arguments):
        line = ["sh", "-c", 'ulimit -v 6000000 && exec "$@"', "sh", sys.executable, "-m", *arguments]
        return subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)

    for command in ("train", "gradflow"):
        alone = limited(f"rnnlstm.{command}", "model.hidden_size=30000", *small)
        assert alone.returncode == 1
        (line,) = alone.stderr.splitlines()
        assert "model.hidden_size=30000" in line
        assert line.endswith(asked)
    sweep = limited("rnnlstm.train", "-m", "model.hidden_size=30000,4", "runs_root=sweep", *small)
    assert sweep.returncode == 1
    (line,) = sweep.stderr.splitlines()
    assert line.endswith(asked)
    ends = {read_json(path)["status"]: read_json(path) for path in tmp_path.glob("sweep/**/summary.json")}
    assert sorted(ends) == ["done", "failed"]
    assert ends["failed"]["reason"].startswith("out of memory (model.hidden_size=30000")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a small trained run."""
    root = tmp_path_factory.mktemp("trained")
    assert train_main([*SMALL, "train.steps=2", "probe=off", f"runs_root={root}"]) == 0
    (run,) = root.glob("*/*/config.yaml")
    return run.parent


@pytest.fixture
def run(trained, tmp_path):
    """A copy to change."""
    return shutil.copytree(trained, tmp_path / "run")


def change(run, before, after):
    text = (run / "config.yaml").read_text()
    assert before in text
    (run / "config.yaml").write_text(text.replace(before, after))


@pytest.mark.parametrize("number", ["9" * 8000, "0x" + "f" * 7000, "0b" + "1" * 30_000], ids=["10", "16", "2"])
@pytest.mark.parametrize("key", ["  lengths: []", "  lr: 0.003"])
def test_a_number_of_thousands_of_digits_in_a_runs_configuration(run, key, number, tmp_path, capsys):
    """It can't be printed, so that each message about it would fail."""
    change(run, key, f"{key.partition(':')[0]}: [{number}]" if "[" in key else f"{key.partition(':')[0]}: {number}")
    weights = [f"weights={run}", f"out={tmp_path / 'gradflow'}"]
    for command, arguments in ((compare, [str(run)]), (gradflow, weights), (events, [str(run)])):
        assert command.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("can't be read: holds a number of thousands of digits")


def test_a_number_that_no_float_holds_in_a_list(run, tmp_path, capsys):
    change(run, "  lengths: []", f"  lengths: [{10**400}]")
    assert compare.main([str(run)]) == 2
    assert "too large" in capsys.readouterr().err
    assert gradflow.main([f"weights={run}", f"out={tmp_path / 'gradflow'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: eval.lengths=")


@pytest.mark.parametrize("section", ["task:\n", "model:\n"])
def test_a_name_of_thousands_of_characters_is_no_path(run, section, tmp_path):
    before = {"task:\n": "name: keyword", "model:\n": "name: lstm"}[section]
    change(run, f"{section}  {before}", f"{section}  name: {'x' * 5000}")
    assert compare.main([str(run), "--html", str(tmp_path / "page.html"), "--csv", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run, value, tmp_path, capsys):
    path = run / "seed_0" / "weights.pt"
    weights = torch.load(path)
    next(iter(weights.values())).view(-1)[0] = value
    torch.save(weights, path)
    assert gradflow.main([f"weights={run}", f"out={tmp_path / 'gradflow'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("holds values that are not finite")


@pytest.mark.parametrize("name", [b"a\xffb/run", b"c/run\xff"], ids=["above", "itself"])
def test_a_run_in_a_folder_whose_name_is_no_utf8(trained, name, tmp_path, capsys):
    run = Path(shutil.copytree(trained, tmp_path / os.fsdecode(name)))
    for path in run.glob("*/*tfevents*"):
        path.unlink()
    assert events.main([str(run)]) == 0
    assert capsys.readouterr().err == ""
    assert len(list(run.glob("seed_0/*tfevents*"))) == 1


@pytest.mark.parametrize("value", ["1e300", "2000001"])
def test_a_job_timeout_longer_than_the_system_can_wait(value, capsys, tmp_path):
    assert train_main([f"job_timeout={value}", f"runs_root={tmp_path}"]) == 2
    assert capsys.readouterr().err.endswith("must be at most 2,000,000\n")


@pytest.mark.parametrize("key", ["model.max_lag", "model.hidden_size", "optimizer.lr", "task.length"])
def test_a_list_where_one_value_belongs(key, capsys, tmp_path):
    assert train_main([f"{key}=[1]", f"runs_root={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {key}=")
    assert ": must be a" in line
