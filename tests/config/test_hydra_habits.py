"""What Hydra's users type out of habit: a refused key or flag says what to write, and groups, dry runs and help do
what they expect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rnnlstm.config.hydra_habits import CHOICES, FLAGS, KEYS, NONE, instead_of_flag
from rnnlstm.config.schema import ELSEWHERE_CALLED, choices_of_groups, every_key
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.train import main

from support.training import SMALL_NUMBERS

pytestmark = pytest.mark.usefixtures("shared_composer")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "hydra.md").read_text()
#: What is typed, and how the one line ends.
HABITS = [
    ("hydra.job.name=x", "write name=x"),
    ("hydra.run.dir=out", "write runs_root=out"),
    ("hydra.sweep.dir=out/${now:%Y-%m-%d}", "write runs_root=FOLDER"),
    ("hydra/launcher=joblib", "write launcher=local"),
    ("hydra/launcher=submitit_slurm", "write launcher=slurm"),
    ("+hydra/launcher=ray", "write launcher=ray"),
    ("hydra.launcher.n_jobs=4", "write launcher.workers=4"),
    ("hydra.launcher.mem_gb=8", "write launcher.memory=8G"),
    ("hydra.launcher.partition=gpu", "write launcher.partition=gpu"),
    ("hydra/sweeper=optuna", "write search=optuna"),
    ("hydra.sweeper.n_trials=30", "write search=optuna search.trials=30"),
    ("hydra.sweeper.params.model=rnn", "write -m model=rnn"),
    ("hydra.mode=MULTIRUN", "write -m"),
    ("hydra.verbose=true", "because no message is hidden"),
    ("hydra.job.chdir=true", "because every job stays in the folder of the command"),
    ("hydra.output_subdir=null", "because config.yaml always lies in the run folder"),
    ("hydra.callbacks.x._target_=os.system", "because it names code to run, and a configuration is data"),
    ("hydra.job_logging.x=1", "because it names code to run, and a configuration is data"),
    ("hydra.nothing=1", "--help lists the keys"),
    ("launcher=joblib", "write launcher=local"),
    ("launcher.n_jobs=4", "write launcher.workers=4"),
    ("sweeper=optuna", "write search=optuna"),
    ("-cn=x", "write experiment=NAME"),
    ("-cp=x", "write --config-dir DIR"),
    ("--info", "write --cfg job"),
    ("--package=x", "because --cfg job prints every key"),
    ("--shell-completion", 'write eval "$(rnnlstm-train --completion=bash)" in ~/.bashrc'),
    ("--experimental-rerun=x", "write the run's command again: it resumes; overwrite=true starts anew"),
    ("--hydra-help", "write --help"),
    ("model.nonlinearity=relu", "unknown key here; it belongs to model=indrnn, model=orthogonal, model=rnn"),
    ("optimizer.momentum=0.9", "it belongs to optimizer=sgd"),
    ("launcher.partition=x", "it belongs to launcher=slurm"),
]


@pytest.mark.parametrize(("typed", "end"), HABITS, ids=[typed for typed, _ in HABITS])
def test_the_line_ends_with_what_to_write(typed, end, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([typed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(end)
    assert list(tmp_path.iterdir()) == []


def test_what_is_suggested_exists():
    known = set(every_key())
    for _, entry in KEYS:
        if not entry.startswith((NONE, "the variable", "-m")):
            assert set(re.findall(r"([a-z_.]+)=", entry)) <= known, entry
    for key in re.findall(r"[a-z]\w+", next(pattern for pattern, entry in KEYS if "{key}" in entry)):
        assert key == "launcher" or f"launcher.{key}" in known, key
    for choices in CHOICES.values():
        for written in choices.values():
            group, _, name = written.split()[0].partition("=")
            assert name in choices_of_groups()[group]
    assert set(ELSEWHERE_CALLED.values()) <= known


def test_the_page_has_each_flag_and_choice():
    for flags in FLAGS:
        assert f"`{flags[0]}`" in PAGE
    for choices in CHOICES.values():
        for name in set(choices) - {"ax", "nevergrad", "basic"}:
            assert name in PAGE
    assert instead_of_flag("--steps") is None


def test_a_dry_run_lists_the_jobs_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "--cfg", "job", "task=adding", "model=rnn,lstm", "seeds=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = compose_jobs(["task=adding", "model=rnn,lstm", "seeds=3"], sweep=True)
    assert lines == [f"[{n}/2] {job.folder}  seeds 0 … 2" for n, job in enumerate(jobs, 1)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [["task.length=1"], ["device=cuda:99"], ["model=rnn,lstm"], ["runs_root=/dev/null"], ["search=optuna"]]
)
def test_the_configuration_is_shown_if_it_can_be_trained(wrong, capsys):
    assert main(["--cfg", "job", *wrong]) == main(wrong) == 2
    shown, trained = capsys.readouterr().err.splitlines()
    assert shown == trained
    assert main(["--cfg=job", "--resolve", "task=adding", "name='${task.name}'"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "adding"


def test_groups_of_settings_are_one_command(tmp_path, capsys):
    words = ["task=adding", "train.steps=1", *SMALL_NUMBERS, f"runs_root={tmp_path}"]
    groups = ["--", "model=rnn", "model.nonlinearity=tanh,relu", "--", "model=lstm"]
    assert main(["--cfg", "job", *words, *groups]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r"/(rnn|lstm)_", line)[1] for line in lines] == ["rnn", "rnn", "lstm"]
    assert main([*words, "--", "model=rnn", "--", "model=rnn"]) == 2
    assert "two jobs of the sweep are the same run" in capsys.readouterr().err
    assert main(["search=optuna", *words, *groups]) == 2
    assert "no groups of settings" in capsys.readouterr().err


def test_help_lists_what_is_the_users_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "118")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n# My first try\nseeds: 2\n")
    assert main(["--help", "--config-dir", str(tmp_path)]) == 0
    assert "\nYour own\n  experiment=mine                 My first try\n" in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "Your own" not in capsys.readouterr().out
