"""`from=RUN`: a configuration again, changed; a longer run, continued; training that starts from weights."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import yaml

import rnnlstm
from rnnlstm.config.errors import ConfigError
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.files import read_json, read_lines
from rnnlstm.tasks.keyword_recall import KeywordRecall

from support.resuming import SMALL, left_by

SHORT, LONG = 9, 16  # a multiple of no interval, at which less is logged


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two seeds of 9 updates in `short`, of 16 in `long`."""
    root = tmp_path_factory.mktemp("from")
    for name, steps in (("short", SHORT), ("long", LONG)):
        words = [*SMALL, "log.every=3", "seeds=2", f"train.steps={steps}", f"runs_root={root / name}"]
        assert len(train(words)) == 2
    return root


def train(words):
    return rnnlstm.run(words, progress=False)


def folder_of(summaries):
    return summaries[0]["folder"].rpartition("/")[0]


def run_in(root, name):
    (place,) = {path.parent for path in (root / name).rglob("config.yaml")}
    return place


def same(one, other, seeds=(0, 1)):
    """Whether records, summaries and weights are the same, but for times."""
    for seed in seeds:
        (a, weights), (b, others) = (left_by(SimpleNamespace(folder=place), seed) for place in (one, other))
        a, b = ([{**json.loads(text)[0], "samples.jsonl": []}, json.loads(text)[1]] for text in (a, b))
        assert a == b  # decoded samples are shown at shares of a run's length
        assert all(torch.equal(weights[name], others[name]) for name in weights)
        best = [torch.load(place / f"seed_{seed}" / "weights_best.pt", weights_only=True) for place in (one, other)]
        assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_more_steps_continue_bit_for_bit(root, caplog):
    short, long = run_in(root, "short"), run_in(root, "long")
    with caplog.at_level("INFO", "rnnlstm"):
        (again, _) = train([f"from={short}", f"train.steps={LONG}", f"runs_root={root / 'more'}"])
    assert "resumed at update 8" in caplog.text
    more = run_in(root, "more")
    assert more.name == long.name
    same(more, long)
    assert again["steps"] == LONG
    assert yaml.safe_load((more / "config.yaml").read_text())["from_run"] == str(short)
    same(short, short)  # the source is as it was: its files are whole
    assert read_json(short / "seed_0" / "summary.json")["steps"] == SHORT


def test_a_run_with_more_seeds_does_not_come_from_itself(root):
    short = run_in(root, "short")
    (job,) = compose_jobs([f"from={short}", "seeds=3"])
    assert job.folder == short
    assert (job.config.from_run, job.config.tree["from_run"]) == (None, None)


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["true", "false"])
def test_a_solved_seed_goes_on_or_stays_as_one_longer_run_has_it(root, tmp_path, monkeypatch, stop):
    lines = read_lines(run_in(root, "long") / "seed_0" / "metrics.jsonl")
    losses = [line["eval/loss"] for line in lines if "eval/loss" in line]
    monkeypatch.setattr(KeywordRecall, "solved", lambda self, scores: scores["loss"] == losses[1])  # seed 0, update 7
    common = [*SMALL, "log.every=3", "seeds=2"]
    short = train([*common, "train.stop_when_solved=true", f"train.steps={SHORT}", f"runs_root={tmp_path / 'a'}"])
    assert [(s["steps"], s["solved"]) for s in short] == [(7, True), (SHORT, False)]
    changes = [f"train.steps={LONG}", f"train.stop_when_solved={stop}"]
    one = train([*common, *changes, f"runs_root={tmp_path / 'b'}"])
    more = train([f"from={folder_of(short)}", *changes, f"runs_root={tmp_path / 'c'}"])
    assert [s["steps"] for s in more] == [s["steps"] for s in one] == [7 if stop == "true" else LONG, LONG]
    same(run_in(tmp_path, "b"), run_in(tmp_path, "c"))


def test_another_key_takes_the_configuration_alone(root):
    short = run_in(root, "short")
    (job,) = compose_jobs([f"from={short}", "clip.threshold=0.5", "train.steps=40"])
    (alone,) = compose_jobs(
        [*SMALL, "log.every=3", "clip.threshold=0.5", "train.steps=40", f"runs_root={root}/short"]
    )
    assert job.folder == alone.folder  # beside the old run, and named as if the keys had been written out
    assert (job.config.seed, job.config.seeds) == (0, 2)
    (one,) = compose_jobs([f"from={short}/seed_1", "model=rnn"])
    assert (one.config.cell["name"], one.config.network.hidden_size, one.config.seed, one.config.seeds) == (
        "rnn",
        8,
        1,
        1,
    )
    sweep = compose_jobs([f"from={short}", "optimizer.lr=1e-3,1e-2", "seeds=1"], sweep=True)
    assert [job.config.optimizer.lr for job in sweep] == [1e-3, 1e-2]
    assert {job.config.log.every for job in sweep} == {3}


def test_weights_start_a_run_of_its_own(root, tmp_path):
    short = run_in(root, "short")
    words = [f"from={short}", "from_weights=best", "task.length=16", "train.steps=2", f"runs_root={tmp_path}"]
    summaries = train(words)
    config = summaries[0]["config"]
    assert config["from_run"] == str(short)
    assert config["from_weights"].startswith("best-")
    first = read_lines(run_in(tmp_path, ".") / "seed_1" / "metrics.jsonl")
    theirs = rnnlstm.load_model(short, seed=1, weights="best").evaluate(length=16)
    assert next(iter(first))["eval/loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    (last,), (fresh,) = (compose_jobs([*words, *more]) for more in (["from_weights=last"], ["name=x"]))
    assert len({last.folder, fresh.folder, run_in(tmp_path, ".")}) == 3
    with pytest.raises(ConfigError, match="started from the weights of a run itself; add from_weights=last or best"):
        compose_jobs([f"from={run_in(tmp_path, '.')}"])
    train(
        [f"from={short}/seed_1", "from_weights=last", "train.steps=1", "seed=5", "seeds=1", f"runs_root={tmp_path}/x"]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["from=nowhere"], "from=nowhere: is no run folder: No such file or directory"),
        (["-m", "from=RUN", "search=optuna"], "from=RUN is for jobs and sweeps: a search composes each trial"),
        (["from_weights=best"], "from_weights=best: goes with from=RUN, a run folder"),
        (["from=RUN", "from_weights=worst"], "from_weights=worst: must be one of last, best"),
        (["from=RUN", "from_weights=last", "model.hidden_size=9"], "the weights don't fit the network of this"),
        (["from=RUN", "from_weights=last", "seed=7", "seeds=1"], "no such folder; from=RUN/seed_N starts every seed"),
    ],
)
def test_mistakes_cost_one_line_and_leave_nothing(root, tmp_path, words, message):
    short = str(run_in(root, "short"))
    with pytest.raises(ConfigError) as error:
        train([*(word.replace("RUN", short) for word in words), f"runs_root={tmp_path / 'new'}"])
    assert message in str(error.value).replace(short, "RUN")
    assert not (tmp_path / "new").exists()


def test_the_best_weights_are_those_of_the_lowest_held_out_loss(root):
    long = run_in(root, "long")
    for seed in (0, 1):
        lines = read_lines(long / f"seed_{seed}" / "metrics.jsonl")
        lowest = min(line["eval/loss"] for line in lines if "eval/loss" in line)
        best = rnnlstm.load_model(long, seed=seed, weights="best").evaluate()
        assert best["loss"] == pytest.approx(lowest, rel=1e-6)
