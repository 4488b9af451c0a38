"""A user's own cell and task, from the very text of README and docs; and the trainer from Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import rnnlstm
from rnnlstm.cells import CELLS
from rnnlstm.config.errors import OptionError
from rnnlstm.config.plugins import import_plugins
from rnnlstm.record.files import read_lines

from support.commands import ENVIRONMENT, train

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/own-cells-and-tasks.md").read_text()
TEXTS = (ROOT / "README.md").read_text() + PAGE
BLOCKS = dict(re.findall(r"```python\n# (my_\w+)\.py\n(.*?)```", TEXTS, flags=re.DOTALL))
SHORT = ["train.steps=4", "log.every=1", "eval.every=2", "probe.every=2", "eval.samples=10", "seeds=2"]


@pytest.fixture
def modules(tmp_path):
    for name, text in BLOCKS.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_both_are_shown_in_under_thirty_lines():
    assert set(BLOCKS) == {"my_cell", "my_task"}
    assert all(len(text.splitlines()) < 30 for text in BLOCKS.values())


@pytest.mark.slow
def test_the_pages_command_runs_with_every_instrument(modules):
    (command,) = re.findall(r"python -m rnnlstm\.train ('plugins=.*)", PAGE)
    done = train(modules, *shlex.split(command), *SHORT)
    assert done.returncode == 0, done.stderr
    (folder,) = modules.glob("runs/parity_T20/two_gates*")
    tags = {tag for line in read_lines(folder / "seed_1" / "metrics.jsonl") for tag in line}
    assert {"flow/hidden_lag_1", "flow/half_life", "clip/rate", "eval/accuracy", "grad_param/readout.bias"} <= tags
    assert list(read_lines(folder / "seed_0" / "flow.jsonl"))
    (first, *_) = read_lines(folder / "seed_0" / "samples.jsonl")
    assert re.fullmatch(r"([01] ){20}→ [01]", first["samples"][0]["text"])
    assert list((folder / "aggregate").iterdir())


@pytest.mark.slow
def test_a_task_of_ones_own_is_drawn_on_the_device_if_its_draws_allow(modules):
    assert train(modules, "plugins=[my_task]", "task=parity", "data=device", *SHORT).returncode == 0
    own = BLOCKS["my_task"]
    for wrong, said in (
        ("random.integers(0, 2, (batch_size, 2))[:, :1].T.expand(self.length, -1)", "must be the 67 sequences"),
        (
            "random.integers(0, 2, (batch_size, self.length)).T",
            "the last dimension of what is drawn must be the 67 sequences",
        ),
        (
            "torch.from_numpy(random.generator.integers(0, 2, (self.length, batch_size)))",
            "has no attribute 'generator'",
        ),
    ):
        (modules / "other.py").write_text(own.replace("random.integers(0, 2, (self.length, batch_size))", wrong))
        refused = train(modules, "plugins=[other]", "task=parity", "data=device", "runs_root=none", *SHORT)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: data=device: the parity task is drawn on the CPU only (")
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (modules / "none").exists()
    assert train(modules, "plugins=[other]", "task=parity", *SHORT).returncode == 0  # on the CPU it is trained


@pytest.mark.slow
def test_each_works_beside_the_projects_own(modules):
    assert train(modules, "plugins=[my_cell]", "model=two_gates", "model.num_layers=2", *SHORT).returncode == 0
    assert train(modules, "plugins=[my_task]", "task=parity", "model=lstm", *SHORT).returncode == 0
    refused = train(modules, "plugins=[my_cell]", "model=two_gates", "model.bias=-1")
    assert refused.returncode == 2
    assert "model.bias=-1: must be at least 0" in refused.stderr
    refused = train(modules, "plugins=[my_cell]", "model=two_gates", "model.backend=torch")
    assert refused.returncode == 2
    assert "PyTorch has no two_gates cell" in refused.stderr
    assert train(modules, "model=two_gates").returncode == 2


@pytest.mark.slow
def test_the_gradient_flow_of_a_users_own_trained_network(modules):
    plugins = "plugins=[my_cell,my_task]"
    assert train(modules, plugins, "model=two_gates", "task=parity", "model.hidden_size=8", *SHORT).returncode == 0
    (run,) = modules.glob("runs/*/*")
    place = f"weights={run.relative_to(modules)}"
    done = train(modules, plugins, place, "sequences=2", command="gradflow")
    assert done.returncode == 0, done.stderr
    assert "two_gates (trained, seed 0)" in done.stdout
    for weights in (place, "weights=runs"):  # alone in a folder, too
        refused = train(modules, weights, "out=nothing", command="gradflow")
        assert refused.returncode == 2
        assert refused.stderr == f"error: {place}: its task comes from a plugin; add {plugins}\n"
    refused = train(modules, "plugins=[my_task]", place, "out=nothing", command="gradflow")
    assert refused.stderr == f"error: {place}: its cell comes from a plugin; add {plugins}\n"
    assert not (modules / "nothing").exists()
    assert train(modules, "model=rnn", "task.length=8", "model.hidden_size=8", *SHORT).returncode == 0
    done = train(modules, "weights=runs", "sequences=2", command="gradflow")
    assert done.returncode == 0, done.stderr
    assert "rnn (trained, seed 0)" in done.stdout
    assert "two_gates" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert str(run.relative_to(modules)) in line
    assert line.endswith(f"add {plugins}")


@pytest.mark.slow
def test_plugins_come_from_the_command_line_only(modules):
    (modules / "own" / "experiment").mkdir(parents=True)
    (modules / "own" / "experiment" / "sly.yaml").write_text("# @package _global_\nplugins: [my_cell]\n")
    refused = train(modules, "--config-dir", "own", "experiment=sly")
    assert refused.returncode == 2
    assert "command line only" in refused.stderr
    assert not (modules / "runs").exists()


@pytest.mark.slow
def test_run_from_python(tmp_path):
    overrides = ["task=adding", "task.length=8", "seeds=2", "train.steps=3", f"runs_root={tmp_path}", "threads=1"]
    summaries = rnnlstm.run(overrides)
    assert [summary["seed"] for summary in summaries] == [0, 1]
    assert all(summary["status"] == "done" for summary in summaries)
    assert (Path(summaries[0]["folder"]) / "weights.pt").exists()
    with pytest.raises(rnnlstm.ConfigError, match="holds results already"):
        rnnlstm.run([*overrides, "resume=never"])
    assert rnnlstm.run(overrides) == summaries
    sweep = rnnlstm.run(["-m", "model=rnn,lstm", *overrides, "overwrite=true"])
    assert len(sweep) == 4
    assert len({Path(summary["folder"]).parent for summary in sweep}) == 2


@pytest.mark.slow
def test_a_run_does_not_go_on_with_another_formula_unnoticed(modules):
    """Neither trained on nor taken for finished; its weights are loaded with a warning."""
    command = ("plugins=[my_cell]", "model=two_gates", "task.length=8", *SHORT)
    assert train(modules, *command).returncode == 0
    load = (
        "import rnnlstm, glob; run = glob.glob('runs/*/two_gates*')[0]; "
        "rnnlstm.load_model(run, plugins=['my_cell']).evaluate()"
    )
    loaded = [sys.executable, "-c", load]
    before = subprocess.run(loaded, cwd=modules, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert (before.returncode, "changed" in before.stderr) == (0, False), before.stderr

    cell = modules / "my_cell.py"
    cell.write_text(cell.read_text().replace("i * torch.tanh(candidate)", "i * candidate"))
    again = train(modules, *command)
    assert again.returncode == 2
    assert re.fullmatch(
        r"error: plugins=my_cell: has changed since runs/keyword_T8/two_gates\S* was begun; "
        r"overwrite=true trains it again, name=… beside it\n",
        again.stderr,
    )
    (run,) = modules.glob("runs/*/two_gates*")
    longer = train(modules, f"from={run}", "plugins=[my_cell]", "train.steps=6", "train.stop_when_solved=false")
    assert (longer.returncode, "has changed since" in longer.stderr) == (2, True), longer.stderr
    after = subprocess.run(loaded, cwd=modules, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert after.returncode == 0
    assert "my_cell has changed since this run was trained" in after.stderr
    assert train(modules, *command, "overwrite=true").returncode == 0
    assert train(modules, *command).returncode == 0


def test_a_file_in_plugins_is_told_from_a_module(modules, monkeypatch):
    monkeypatch.chdir(modules)
    monkeypatch.setattr(CELLS, "_classes", dict(CELLS._classes))  # the module is imported on the way
    with pytest.raises(OptionError, match=r"plugins=my_cell\.py: is a file; its module is called my_cell"):
        import_plugins(["my_cell.py"])
