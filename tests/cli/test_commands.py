"""The commands as a user types them, in processes of their own."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from rnnlstm.__main__ import main as commands
from rnnlstm.cli.help import FIRST, keys
from rnnlstm.config.schema import TOP, choices_of_groups, every_key
from rnnlstm.reporting.tables import COLUMNS

from support.commands import ENVIRONMENT
from support.training import SMALL, SMALL_NUMBERS
from support.warm import run

ROOT = Path(__file__).resolve().parents[2]


def command(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(f"rnnlstm.{module}", *arguments, cwd=cwd, env=ENVIRONMENT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["train", "--help"], ["train", "--cfg", "job"], ["compare", "--help"], ["events", "--help"]]
)
def test_help_and_configuration_need_no_torch(arguments):
    module, *rest = arguments
    code = (
        f"import sys, rnnlstm.{module} as m\n"
        f"try: code = m.main({rest!r})\nexcept SystemExit as e: code = e.code\n"
        "heavy = {'torch', 'tensorboard', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "rnnlstm" in done.stdout or "task:" in done.stdout


@pytest.mark.slow
def test_the_package_itself_names_its_commands(tmp_path):
    code = "import sys, runpy\nsys.argv[1:] = []\ntry: runpy.run_module('rnnlstm', run_name='__main__')\n"
    code += "except SystemExit as e: assert e.code == 0\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = re.findall(r"python -m rnnlstm\.(\w+) ", done.stdout)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert sorted(f"rnnlstm.{name}:main" for name in modules) == sorted(scripts.values())


@pytest.mark.parametrize("arguments", [["train"], ["tarin", "task=adding"], ["--what"]])
def test_the_package_itself_takes_no_arguments(arguments, capsys):
    assert commands(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "python -m rnnlstm." in line
    assert ("did you mean train?" in line) == (arguments[0] == "tarin")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["setup", "demo", "test"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_scripts_say_what_they_do_before_they_do_it(script, flag, tmp_path):
    """Of a copy without the project around it, in which nothing else would work."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "scripts").mkdir()
    copy = shutil.copy(ROOT / "scripts" / script, tmp_path / "scripts")
    done = subprocess.run([copy, flag], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    first, *others = done.stdout.splitlines()
    assert first.startswith(f"scripts/{script} [")
    if script == "setup":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert f"EXTRA is one of pyproject.toml's: {' '.join(extras)}" in others


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["digit", "--what"])
def test_setup_refuses_an_extra_that_is_none(extra, tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "scripts").mkdir()
    copy = shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    done = subprocess.run([copy, extra], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"no extra called {extra}; scripts/setup --help\n"
    assert {path.name for path in tmp_path.iterdir()} == {"scripts", "pyproject.toml"}


def test_help_lists_every_key_and_what_is_needed_first(monkeypatch):
    monkeypatch.setenv("COLUMNS", "118")  # narrower, a meaning begins on a line of its own
    text = keys()
    heads = ["Keys you will need first", "Further keys of every run", "Groups", "Keys of the chosen task"]
    assert [text.index(head) for head in heads] == sorted(text.index(head) for head in heads)
    listed = re.findall(r"^ +(\S+?)=\S* ", text, re.MULTILINE)
    assert tuple(listed[: len(FIRST)]) == FIRST
    assert {key for key in every_key() if "." in key or key in TOP} <= set(listed)
    assert listed.count("model.num_layers") == 1
    groups = choices_of_groups()
    assert all(f"  {name} " in text for name in groups["experiment"])
    assert all(f"  {group}={name} " in text for group in ("task", "model") for name in groups[group])
    assert max(map(len, text.splitlines())) <= 118


#: Runs a command, or Python code, as on a system without `fcntl`.
WITHOUT_FCNTL = "import runpy, sys; sys.modules['fcntl'] = None; sys.argv[1:] = sys.argv[2:]; "


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["", ".train", ".compare", ".gradflow", ".reproduce", ".events", ".benchmark"],
    ids=lambda name: name[1:],
)
def test_on_windows_a_command_says_so_in_one_line(module, tmp_path):
    code = WITHOUT_FCNTL + f"runpy.run_module('rnnlstm{module}', run_name='__main__', alter_sys=True)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: rnnlstm needs Linux or macOS; on Windows, install it in WSL\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_on_windows_the_modules_import_and_the_trainer_says_why_not():
    code = WITHOUT_FCNTL + "import rnnlstm; rnnlstm.LSTM, rnnlstm.make_task('copy')\ntry: rnnlstm.run([])\n"
    code += "except rnnlstm.ConfigError as error: assert str(error).startswith('rnnlstm needs Linux or macOS')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_importing_the_package_is_light():
    code = "import sys, rnnlstm; assert 'torch' not in sys.modules; rnnlstm.LSTM; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_a_sweep_then_a_comparison(tmp_path):
    sweep = ["-m", "task=adding,keyword", "model=rnn,lstm", "clip.threshold=0.5", "seeds=2", "train.steps=3"]
    done = command("train", *sweep, *SMALL_NUMBERS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    jobs = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert sum(": starts, 3 updates at most" in line for line in jobs) == 4
    assert sum("] runs/" in line for line in jobs) == 4
    again = command("train", *sweep, *SMALL_NUMBERS, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("finished already") == 4
    refused = command("train", *sweep, *SMALL_NUMBERS, "resume=never", cwd=tmp_path)
    assert refused.returncode == 2
    assert "holds results already" in refused.stderr

    done = command("compare", "runs", "--csv", "table.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[: len(COLUMNS)] == list(COLUMNS)
    assert {(row["task"], row["model"], row["seeds"]) for row in rows} == {
        (task, model, "2") for task in ("adding", "keyword") for model in ("rnn", "lstm")
    }
    for row in rows:
        assert float(row["metric_low"]) <= float(row["metric"]) <= float(row["metric_high"])
        assert row["hidden_size"] == "8"
        assert row["backend"] == "fused"  # what auto came to


@pytest.mark.slow
def test_backends_side_by_side_have_equal_losses(tmp_path):
    sweep = ["-m", "model.backend=reference,torch", "dtype=float64", "train.steps=5", "log.every=1"]
    assert command("train", *sweep, *SMALL, cwd=tmp_path).returncode == 0
    losses = []
    for path in sorted(tmp_path.glob("runs/*/*/seed_0/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        losses.append([line["train/loss"] for line in lines if "train/loss" in line])
    assert len(losses) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_saving(tmp_path, sent, code):
    line = [sys.executable, "-m", "rnnlstm.train", *SMALL, "train.steps=1000000", "train.stop_when_solved=false"]
    process = subprocess.Popen(line, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 2000 for path in tmp_path.glob("runs/*/*/seed_0/metrics.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert b"Traceback" not in errors
    (summary,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/seed_0/summary.json"))
    assert summary["status"] == "interrupted"
    assert summary["steps"] > 0
    assert list(tmp_path.glob("runs/*/*/seed_0/weights.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["."], ["--what"]])
def test_compare_without_runs(tmp_path, arguments):
    done = command("compare", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
