"""Keys without effect: refused where no job of a command uses them, else at their defaults where they don't act."""

from __future__ import annotations

import pytest

from rnnlstm.config.errors import ConfigError
from rnnlstm.config.options import condition_words, option
from rnnlstm.config.schema import schema_fields
from rnnlstm.jobs.job import compose_jobs, compose_tree
from rnnlstm.jobs.search import Search
from rnnlstm.record.folders import identity
from rnnlstm.train import main
from rnnlstm.training.weights import with_changes

from support.training import quick_if

pytestmark = pytest.mark.usefixtures("shared_composer")

#: Command lines with a key that no job uses, and what the refusal says.
REFUSED = {
    "model.forget_bias=2": "bias=2: has no effect with init=chrono; it belongs to model.init=forget_bias\n",
    "-m model.forget_bias=0,1,2,5": "model.forget_bias=0: has no effect with init=chrono",
    "model.init=default model.gain=2": "it belongs to model.init=orthogonal",
    "model=rnn model.gain=2": "has no effect with init=default; it belongs to model.init=orthogonal or identity",
    "model.init=default model.max_lag=50": "it belongs to model.init=chrono",
    "model=lru model.init=default model.phase=1": "it belongs to model.init=ring",
    "model=linear model.init=default model.gain=2": "it belongs to model.init=orthogonal",
    "curriculum.start=5": "has no effect with curriculum=fixed; it belongs to curriculum=growing or uniform",
    "curriculum=uniform curriculum.factor=2": "it belongs to curriculum=growing",
    "probe=off probe.every=20": "has no effect with probe=off; it belongs to probe=standard or full",
    "task=adding model.embedding_size=8": "has no effect with task=adding; it belongs to a task whose",
    "-m task=adding,copy model=rnn,lstm model.init=default model.gain=2": "model.gain=2: has no effect",
    "-m search=optuna model.forget_bias=interval(0,5)": "it belongs to model.init=forget_bias",
    "-m search=optuna optimizer.lr=interval(0.1,1) probe=off probe.every=3": "probe.every=3: has no effect",
    "experiment=mine": "model.gain=3: has no effect with init=chrono",
    "model=mine": "model.forget_bias=4: has no effect with init=chrono",
}


#: The others take a third of a second each: Hydra composes them.
QUICK = ("model.forget_bias=2", "-m model.forget_bias=0,1,2,5", "curriculum.start=5", "experiment=mine")


@pytest.mark.parametrize("line", quick_if(lambda line: line in QUICK, ((line,) for line in REFUSED)))
def test_a_key_that_no_job_uses_is_refused(line, tmp_path, capsys):
    for group, text in (
        ("experiment", "# @package _global_\nmodel: {gain: 3}\n"),
        ("model", "defaults: [lstm]\nforget_bias: 4\n"),
    ):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "mine.yaml").write_text(text)
    own = ["--config-dir", str(tmp_path / "own")] if "mine" in line else []
    assert main([*own, *line.split(), f"runs_root={tmp_path / 'runs'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert REFUSED[line] in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "line", ["model.forget_bias=1", "model.gain=1.0", "model.max_lag=null", "curriculum.start=10", "probe.every=50"]
)
def test_a_default_is_no_change(line, caplog):
    assert compose_jobs([line])[0].folder == compose_jobs([])[0].folder
    assert not caplog.messages


def test_jobs_that_do_not_use_a_key_keep_its_default_and_equal_jobs_are_one(caplog):
    jobs = compose_jobs(["clip=none,norm", "clip.threshold=0.5,1"], sweep=True)
    assert [(job.config.clip.name, job.config.clip.threshold) for job in jobs] == [
        ("none", 1.0), ("norm", 0.5), ("norm", 1.0),
    ]  # fmt: skip
    assert jobs[0].folder == compose_jobs(["clip=none"])[0].folder
    (line,) = caplog.messages
    assert line.startswith("clip.threshold has no effect with clip=none: default kept in 1 of 4 jobs")
    assert "1 of 4 jobs became equal to others" in line
    caplog.clear()
    starts = compose_jobs(["model.init=chrono,forget_bias", "model.forget_bias=2,3,5", "seeds=2"], sweep=True)
    assert [job.config.cell["forget_bias"] for job in starts] == [1.0, 2, 3, 5]
    assert len(caplog.messages) == 1
    embedded = compose_jobs(["task=adding,keyword", "model.embedding_size=8"], sweep=True)
    assert [job.config.network.embedding_size for job in embedded] == [32, 8]


def test_without_clipping_a_threshold_is_accepted_and_the_run_is_the_same(caplog):
    plain = compose_jobs(["clip=none"])[0].folder
    for threshold in ("7", "null"):
        (job,) = compose_jobs(["clip=none", f"clip.threshold={threshold}"])
        assert job.folder == plain
        assert job.config.clip.threshold == 1.0
    assert caplog.messages == ["clip.threshold has no effect with clip=none: default kept"] * 2


def test_a_job_that_is_asked_for_twice_is_still_refused():
    for line in (["model.forget_bias=2,2", "model.init=forget_bias"], ["clip=none", "clip.threshold=5", "seed=0,0"]):
        with pytest.raises(ConfigError, match="two jobs of the sweep are the same run"):
            compose_jobs(line, sweep=True)


#: Ten commands and their run folders before keys without effect were refused.
FOLDERS = {
    "": "keyword_T100/lstm-be1f69be",
    "task=adding model=rnn clip.threshold=0.5 optimizer.lr=3e-3 seeds=4": "adding_T100/rnn_threshold-0.5-5955ba4e",
    "task=copy model=gru model.init=chrono model.max_lag=70": "copy_T50/gru_init-chrono_max_lag-70-8b1ad529",
    "model.init=forget_bias model.forget_bias=3":
        "keyword_T100/lstm_init-forget_bias_forget_bias-3-5f22fadc",
    "clip=none": "keyword_T100/lstm_clip-none-a08ae2dd",
    "clip=value clip.threshold=0.1": "keyword_T100/lstm_clip-value_threshold-0.1-e1419abe",
    "curriculum=growing curriculum.start=20 curriculum.factor=2":
        "keyword_T100/lstm_curriculum-growing_start-20_factor-2-ab8f4d9e",
    "model=rnn model.nonlinearity=relu model.init=identity model.gain=0.9 optimizer=sgd optimizer.momentum=0.9":
        "keyword_T100/rnn_sgd_nonlinearity-relu_init-identity_gain-0.9_momentum-0.9-98e7fa52",
    "probe=full probe.every=100 model.embedding_size=16":
        "keyword_T100/lstm_probe-full_embedding_size-16_probe_every-100-55277ced",
    "model=lru model.phase=1.5 task=adding name=mine": "adding_T100/mine_lru_phase-1.5-d4392d88",
}  # fmt: skip


@pytest.mark.slow
def test_run_folders_keep_their_names():
    assert {line: str(compose_jobs(line.split())[0].folder) for line in FOLDERS} == {
        line: f"runs/{folder}" for line, folder in FOLDERS.items()
    }


def test_the_printed_configuration_is_the_one_that_is_trained():
    assert identity(compose_tree(["clip=none", "clip.threshold=5"])) == "a08ae2dd"
    with pytest.raises(ConfigError, match="has no effect"):
        compose_tree(["model.gain=2"])


def test_groups_of_settings_are_one_command():
    groups = [["model=rnn", "model.init=orthogonal"], ["model=lstm"]]
    rnn, lstm = compose_jobs(["model.gain=2"], True, to_train=False, groups=groups)
    assert (rnn.config.cell["gain"], lstm.config.cell["gain"]) == (2, 1.0)
    with pytest.raises(ConfigError, match=r"model\.gain=2: has no effect"):
        compose_jobs(["model.gain=2"], True, to_train=False, groups=groups[1:])


def test_a_change_of_a_trained_network_has_an_effect():
    tree = compose_tree([])
    with pytest.raises(ConfigError, match=r"model\.forget_bias=2: has no effect with init=chrono"):
        with_changes(tree, ["model.forget_bias=2"])
    assert with_changes(tree, ["model.init=forget_bias", "model.forget_bias=2"]).cell["forget_bias"] == 2
    old = with_changes(tree | {"model": {**tree["model"], "forget_bias": 2}}, ["task.length=20"])
    assert old.task["length"] == 20  # a run from before may have such a key


@pytest.mark.slow
def test_a_search_uses_a_key_where_it_acts(tmp_path):
    pytest.importorskip("optuna")
    words = ["search=optuna", "model.init=choice(chrono,forget_bias)", "model.forget_bias=interval(1,5)"]
    assert list(Search([*words, f"runs_root={tmp_path}"]).space.dimensions) == ["model.init", "model.forget_bias"]


def test_help_refusal_and_option_read_one_condition(capsys):
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    conditions = {key: f.metadata["acts_if"] for key, f in schema_fields() if f.metadata["acts_if"]}
    known = {"clip.threshold", "clip.norm_type", "probe.every", "curriculum.start", "curriculum.factor"}
    assert set(conditions) == known
    for condition in (*conditions.values(), {"init": ["forget_bias"]}, "a task whose inputs are tokens"):
        assert f"with {condition_words(condition)}" in shown
    both = option(1, "", acts_if={"init": ["chrono"], "model": ["lstm", "gru"]}).metadata["acts_if"]
    assert condition_words(both, "model") == "model.init=chrono and model=lstm or gru"
