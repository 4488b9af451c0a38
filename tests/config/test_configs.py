"""Every YAML in configs/ composes, validates and trains three steps."""

from __future__ import annotations

import dataclasses
import os

import pytest
import yaml

from rnnlstm.cells import CELLS
from rnnlstm.cli.help import help_and_rule
from rnnlstm.config import untrusted
from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import ConfigError
from rnnlstm.config.options import default_of
from rnnlstm.config.schema import (
    SECTIONS,
    VARIANTS,
    Config,
    NetworkOptions,
    _cgroup_cores,
    choices_of_groups,
    cores,
    options_of,
)
from rnnlstm.config.untrusted import config_folder
from rnnlstm.jobs.job import compose_jobs, compose_tree
from rnnlstm.tasks import TASKS
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from option_defaults import texts
from support.training import SMALL, compose

pytestmark = pytest.mark.usefixtures("shared_composer")

CHOICES = [
    f"{group}/{name}"
    for group, names in choices_of_groups().items()
    for name in names
    if group != "search"  # which chooses between runs: test_search.py
]


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_trains(choice, tmp_path):
    group, _, name = choice.partition("/")
    overrides = [f"{group}={name}", *SMALL, "train.steps=3", f"runs_root={tmp_path}", "overwrite=true", "threads=1"]
    overrides += ["task.length=64"] if "digits" in choice else []
    job = compose(*overrides)
    outcome = train_run(make_plan(job.config), job.folder, Progress())
    assert {summary["status"] for summary in outcome.summaries} == {"done"}
    assert {summary["steps"] for summary in outcome.summaries} == {3}


def test_the_groups_are_the_registries():
    for group, registry in (("task", TASKS), ("model", CELLS)):
        assert sorted(path.stem for path in (config_folder() / group).glob("*.yaml")) == list(registry)


def test_the_yaml_of_tasks_and_models_is_what_scripts_readme_writes():
    for path, text in texts().items():
        assert path.read_text(encoding="utf-8") == text, "scripts/readme writes it"


@pytest.mark.parametrize(("group", "registry"), [("task", TASKS), ("model", CELLS)])
def test_yaml_defaults_are_the_classes_defaults(group, registry):
    for name in registry:
        tree = yaml.safe_load((config_folder() / group / f"{name}.yaml").read_text())
        fields = [
            *dataclasses.fields(registry[name]),
            *(dataclasses.fields(NetworkOptions) if group == "model" else []),
        ]
        assert {key: value for key, value in tree.items() if key != "name"} == {f.name: f.default for f in fields}
        assert tree["name"] == name
        assert options_of(group, name) == [
            (key, yaml.safe_dump(tree[key]).splitlines()[0], help_and_rule(next(f for f in fields if f.name == key)))
            for key in list(tree)[1:]
        ]


def test_composed_defaults_are_the_schemas_defaults():
    tree = compose_tree([])
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            assert tree[section][field.name] == default, (section, field.name)
    for field in dataclasses.fields(Config):
        if field.metadata and field.name in tree:
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            assert tree[field.name] == default
    for group, classes in VARIANTS.items():
        for name, cls in classes.items():
            section = compose_tree([f"{group}={name}"])[group]
            assert section == {field.name: default_of(field) for field in dataclasses.fields(cls)} | {"name": name}


def test_a_folder_of_the_users_own_configs(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("defaults: [lstm]\nhidden_size: 3\n")
    (job,) = compose_jobs(["model=tiny"], config_dir=str(tmp_path))
    assert job.config.network.hidden_size == 3
    assert "lstm_hidden_size-3" in job.folder.name


def test_a_sweep_is_every_combination():
    jobs = compose_jobs(["task=copy,adding", "model=rnn,lstm", "seed=range(0,2)"], sweep=True)
    assert len({(job.folder, job.config.seed) for job in jobs}) == 8
    assert len({job.folder for job in jobs}) == 4
    chosen = [job.config.task["name"] for job in compose_jobs(["task=glob(*)"], sweep=True)]
    assert chosen == list(TASKS)


def test_whole_numbers_may_be_written_as_they_are_said(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ntrain: {steps: 2e3}\ntask: {length: 6e1}\n"
    )
    asked = ["train.steps=2e3", "task.length=60", "eval.lengths=[8e1,1_00]", "seeds=2e0", "model.max_lag=3e1"]
    plain = ["train.steps=2000", "task.length=60", "eval.lengths=[80,100]", "seeds=2", "model.max_lag=30"]
    (job,), (same,) = compose_jobs(asked), compose_jobs(plain)
    assert job == same
    assert repr(job.config.tree) == repr(same.config.tree)
    assert {type(length) for length in job.config.eval.lengths} == {int}
    (job,) = compose_jobs(["experiment=mine"], config_dir=str(tmp_path))
    assert repr((job.config.train.steps, job.config.task["length"])) == "(2000, 60)"
    swept = compose_jobs(["train.steps=1e2,1_000", "model.hidden_size=1.6e1,32"], sweep=True)
    assert [(j.config.train.steps, j.config.network.hidden_size) for j in swept[:3]] == [
        (100, 16),
        (100, 32),
        (1000, 16),
    ]
    for key in ("optimizer.lr=1.0", "clip.threshold=1e6", "model.gain=2.0"):  # which take fractions: as they were
        (job,) = compose_jobs([key, "model.init=orthogonal"])
        section, _, name = key.partition("=")[0].partition(".")
        assert type(job.config.tree[section][name]) is float
    for wrong in ("train.steps=1.5e0", "train.steps=1e99", "seeds=inf", "eval.lengths=[1.5e0]", "seeds=true"):
        with pytest.raises(ConfigError, match="must be a whole number"):
            compose_jobs([wrong])


@pytest.mark.parametrize(("written", "norm"), [("1", 1), ("2.0", 2), ("inf", "inf")])
def test_the_norm_to_clip_by(written, norm):
    (job,) = compose_jobs([f"clip.norm_type={written}"])
    assert repr(job.config.clip.norm_type) == repr(job.config.tree["clip"]["norm_type"]) == repr(norm)


def test_no_experiment_is_a_choice_too():
    plain, experiment = (compose_jobs(o)[0].folder for o in ([], ["experiment=demo_rnn"]))
    assert plain != experiment
    assert compose_jobs(["experiment=null"])[0].folder == plain
    assert compose_jobs(["experiment=demo_rnn", "experiment=NULL"])[0].folder == plain
    assert compose_jobs(["experiment=null", "experiment=demo_rnn"])[0].folder == experiment
    sweep = compose_jobs(["experiment=null,demo_rnn"], sweep=True)
    assert [job.folder for job in sweep] == [plain, experiment]
    for wrong in ("none", "[null]", "~"):
        with pytest.raises(ConfigError):
            compose_jobs([f"experiment={wrong}"])


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [
    ["seed=3", "optimizer.lr=1e-3"],
    ["optimizer.lr=.5", "task=copy", "task.length=7", "optimizer.lr=0.25"],
    ["optimizer=sgd", "optimizer.momentum=0.5", "clip=none", "clip.threshold=null"],
    ["eval.lengths=[5,6]", "eval.decoys=[]", "train.stop_when_solved=false", "name=abc", "threads=1"],
    ["model.max_lag=${task.length}", "task.length=33", "eval.every=${log.every}", "log.every=4"],
    ["experiment=demo_rnn", "train.steps=5", "model.hidden_size=9", "seeds=2"],
    ["experiment=zoo/adding", "model=gru", "model.hidden_size=12", "task.length=20"],
    ["surgery.open=[forget]", "surgery.truncate=4", "match=parameters", "model.num_layers=2", "device=cpu"],
    ["experiment=demo_rnn", "experiment=null", "seeds=2"],
])  # fmt: skip
def test_values_that_are_put_in_without_hydra_are_those_that_it_puts_in(overrides):
    with Composer().active() as composer:
        assert composer.compose(overrides) == untrusted.resolve(composer._hydra(overrides))


@pytest.mark.parametrize(
    "overrides", [["task.nothing=1"], ["train=3"], ["task=copy", "task.decoys=0.1"], ["seed.x=1"]]
)
def test_what_does_not_fit_is_refused_with_and_without_hydra(overrides):
    for each in (overrides, [*overrides, "seeds=2"]):
        with pytest.raises(ConfigError):
            compose_tree(each)


def test_cores_are_no_more_than_the_cgroup_has_time_for(tmp_path):
    mine, root = tmp_path / "cgroup", tmp_path / "fs"
    for group in (root / "slurm/job_1", root / "cpu/slurm/job_1"):
        group.mkdir(parents=True)
    assert _cgroup_cores(mine, root) is None  # no such system
    mine.write_text("0::/slurm/job_1\n")
    assert _cgroup_cores(mine, root) is None
    (root / "slurm/job_1/cpu.max").write_text("max 100000\n")
    assert _cgroup_cores(mine, root) is None
    (root / "slurm/cpu.max").write_text("150000 100000\n")  # of the group above
    assert _cgroup_cores(mine, root) == 1.5
    (root / "slurm/job_1/cpu.max").write_text("50000 100000\n")
    assert _cgroup_cores(mine, root) == 0.5
    mine.write_text("5:cpu,cpuacct:/slurm/job_1\n4:memory:/slurm\n")
    assert _cgroup_cores(mine, root) is None
    (root / "cpu/slurm/job_1/cpu.cfs_quota_us").write_text("-1\n")
    (root / "cpu/slurm/job_1/cpu.cfs_period_us").write_text("100000\n")
    assert _cgroup_cores(mine, root) is None
    (root / "cpu/slurm/job_1/cpu.cfs_quota_us").write_text("400000\n")
    assert _cgroup_cores(mine, root) == 4
    assert 1 <= cores() <= os.cpu_count()
