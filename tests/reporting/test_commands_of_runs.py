"""How to reproduce: commands that compose to the very same configuration, versions and machine."""

from __future__ import annotations

import getpass
import json
import shlex
import socket
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rnnlstm.config.compose import Composer
from rnnlstm.config.untrusted import DEEPEST
from rnnlstm.record.environment import ENVIRONMENT, note_environment
from rnnlstm.record.files import read_json
from rnnlstm.record.folders import identity
from rnnlstm.reporting.html.reproduce import override_value, train_commands
from rnnlstm.reporting.runs import Run

from support.training import compose


def kept(folder: Path, overrides: list[str], seeds=(0,)) -> tuple[Run, object]:
    """A run folder with the configuration that these overrides compose to, and that configuration."""
    job = compose(*overrides)
    tree = {key: value for key, value in job.config.tree.items() if key not in ("seed", "seeds")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return Run(folder, {}, [{"seed": seed} for seed in seeds]), job.config


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["task=adding", "model=rnn", "optimizer.lr=1e-05", "task.variant=hochreiter"],
        ["task=copy", "model=gru", "optimizer=sgd", "clip=value", "clip.threshold=0.25", "curriculum=growing"],
        ["model.max_lag=30", "eval.lengths=[200,400]", "eval.decoys=[0.0,0.2]", "surgery.open=[forget]"],
        ["clip=none", "probe=full", "dtype=float64", "train.stop_when_solved=false", "model.init=default"],
        ["name=a-label", "device=cpu", "curriculum=uniform", "log.every=7"],
    ],
)
def test_the_command_composes_to_the_same_run(tmp_path, overrides):
    run, config = kept(tmp_path / "run", overrides, seeds=(2, 3, 4, 7))
    ((first, second),) = train_commands([run])
    assert first.endswith("seed=2 seeds=3")
    assert second.endswith("seed=7")
    words = shlex.split(first)
    assert words[:3] == ["python", "-m", "rnnlstm.train"]
    again = compose(*words[3:])
    assert identity(again.config.tree) == identity(config.tree)
    assert again.config.seed_numbers == range(2, 5)
    assert len(words) <= len(overrides) + 3 + 4, "only what differs is said"


def test_a_matched_size_is_said_itself(tmp_path):
    run, config = kept(tmp_path / "run", ["model=rnn", "match=parameters", "model.hidden_size=8", "task.length=12"])
    ((command,),) = train_commands([run])
    assert f"model.hidden_size={config.network.hidden_size}" in command
    assert "match" not in command


def test_a_users_own_task_is_said_key_by_key(tmp_path):
    run, _ = kept(tmp_path / "run", [])
    tree = yaml.safe_load((run.folder / "config.yaml").read_text())
    tree |= {"task": {"name": "parity", "length": 20, "text": "it's"}, "plugins": ["my_task"]}
    (run.folder / "config.yaml").write_text(yaml.safe_dump(tree))
    ((command,),) = train_commands([run])
    assert shlex.split(command)[3:] == [
        "plugins=[my_task]", "task=parity", "model=lstm", "task.length=20", r"task.text='it\'s'",
    ]  # fmt: skip
    (run.folder / "config.yaml").write_text("task: [")
    assert train_commands([run]) == [[]]


@pytest.mark.slow
@given(st.text(st.characters(categories=("L", "N", "P", "S")) | st.just(" "), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_text_survives_hydras_grammar(words):
    assume("${" not in words)  # a reference
    assume(sum(words.count(c) for c in "[{(") <= DEEPEST)  # the guard refuses more
    with Composer().active() as composer:
        (override,) = composer.parse([f"name={override_value(words)}"])
    assert override.value() == words


def test_versions_and_machine_are_recorded_and_nobodys_name(train):
    outcome = train("task=adding", "train.steps=1", "eval.every=1", "probe=off", "seeds=2")
    (entry,) = read_json(outcome.folder / ENVIRONMENT)["trained"]
    assert entry["seeds"] == [0, 1]
    assert {"torch", "python", "numpy", "rnnlstm", "processor", "threads", "device", "began", "commit"} <= set(entry)
    told = json.dumps(entry)
    names = [str(Path.home()), socket.gethostname(), str(Path.cwd())]
    names += [getpass.getuser()] if len(getpass.getuser()) > 3 and getpass.getuser() != "root" else []
    assert not any(name in told for name in names if len(name) > 2)
    train("task=adding", "train.steps=1", "eval.every=1", "probe=off", "seed=2", "seeds=1")
    assert [e["seeds"] for e in read_json(outcome.folder / ENVIRONMENT)["trained"]] == [[0, 1], [2]]
    train("task=adding", "train.steps=1", "eval.every=1", "probe=off", "seeds=2", "overwrite=true")
    assert [e["seeds"] for e in read_json(outcome.folder / ENVIRONMENT)["trained"]] == [[2], [0, 1]]


def test_a_damaged_note_is_written_again(tmp_path):
    (tmp_path / ENVIRONMENT).write_text('{"trained": [3, {"seeds": 1}, {"se')
    note_environment(tmp_path, [0], {"torch": "2"})
    assert len(read_json(tmp_path / ENVIRONMENT)["trained"]) == 1
