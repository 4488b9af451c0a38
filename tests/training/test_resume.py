"""Exact resume: a run that was stopped and given again ends as the unbroken one, bit for bit, nothing twice."""

from __future__ import annotations

import math
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnnlstm.record.files import read_lines
from rnnlstm.training.plan import make_plan

from support.resuming import SMALL, assert_same, start
from support.training import compose, quick_if

STOPPED = [
    ("model=rnn",),
    ("model=lstm", "seeds=3", "log.every=8", "clip.threshold=0.4"),
    ("model=lstm", "optimizer=rmsprop", "clip=value", "model.num_layers=2"),
    ("model=gru", "model.backend=reference", "model.zoneout=0.2", "seeds=2"),
    ("task=adding", "curriculum=growing", "curriculum.start=4", "seeds=2", "optimizer=sgd", "optimizer.momentum=0.9"),
    ("model=lstm", "model.backend=torch", "seeds=2", "probe=off"),
    ("model=lstm", "data=device", "seeds=2"),
]


@pytest.mark.parametrize("overrides", quick_if(lambda case: case in STOPPED[:2], [(case,) for case in STOPPED]))
def test_a_run_that_was_stopped_twice_ends_as_the_unbroken_one(overrides, tmp_path):
    whole = start(tmp_path / "whole", *overrides)
    for step in (4, 19):
        broken = start(tmp_path / "broken", *overrides, stop_at=step)
        assert broken.stopped_by == signal.SIGTERM
        assert {s["status"] for s in broken.summaries} == {"interrupted"}
        assert {s["steps"] for s in broken.summaries} == {step}
    ended = start(tmp_path / "broken", *overrides)
    assert {s["status"] for s in ended.summaries} == {"done"}
    assert_same(ended, whole, range(len(ended.summaries)))
    assert not (ended.folder / "checkpoints").exists()


def test_replicas_that_ended_before_the_stop_are_as_they_would_have_been(tmp_path):
    overrides = ("task=copy", "task.length=3", "seeds=3", "optimizer.lr=0.05", "train.stop_when_solved=true")
    # One is made to diverge, one to be solved, by what a user could do: a task's criterion and a wild gradient.
    job = compose(*SMALL, f"runs_root={tmp_path / 'whole'}", *overrides)
    task = type(make_plan(job.config).task)

    def trained(root, stop_at=None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(task, "solved", lambda self, scores: scores["loss"] < 1.35)
            original = task.loss

            def loss(self, outputs, batch):
                found = original(self, outputs, batch)
                wild = torch.is_grad_enabled() and float(batch.inputs[0, 0].argmax()) == 1 and outputs.requires_grad
                return found * math.nan if wild else found

            patch.setattr(task, "loss", loss)
            return start(root, *overrides, stop_at=stop_at)

    whole = trained(tmp_path / "whole")
    assert {"diverged"} < {s["status"] for s in whole.summaries}
    for step in (9, 16, 22):
        trained(tmp_path / "broken", stop_at=step)
    assert_same(trained(tmp_path / "broken"), whole, range(3))


def test_no_step_is_twice_in_tensorboard_and_none_is_missing(tmp_path):
    start(tmp_path, "seeds=2", stop_at=13)
    outcome = start(tmp_path, "seeds=2")
    for place, steps in (("seed_0", range(1, 31)), ("seed_1", range(1, 31))):
        events = EventAccumulator(str(outcome.folder / place), size_guidance={"scalars": 0}).Reload()
        assert [event.step for event in events.Scalars("train/loss")] == list(steps)
        record = [x for x in read_lines(outcome.folder / place / "metrics.jsonl") if "train/loss" in x]
        shown = [event.value for event in events.Scalars("train/loss")]
        assert shown == pytest.approx([line["train/loss"] for line in record], rel=1e-6)
        assert len(list((outcome.folder / place).glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(outcome.folder / "aggregate"), size_guidance={"scalars": 0}).Reload()
    assert [e.step for e in events.Scalars("keyword_T12/eval/accuracy/median")] == [0, 7, 14, 21, 28, 30]


def test_a_finished_run_returns_at_once_and_more_seeds_train_what_is_missing(tmp_path):
    first = start(tmp_path, "seeds=2")
    before = {p: p.read_bytes() for p in first.folder.glob("seed_*/*") if p.is_file()}
    again = start(tmp_path, "seeds=2")
    assert (first.trained, again.trained) == (True, False)
    assert again.summaries == first.summaries
    more = start(tmp_path, "seeds=4")
    assert more.trained
    assert [s["seed"] for s in more.summaries] == [0, 1, 2, 3]
    assert all(p.read_bytes() == data for p, data in before.items())
    anew = start(tmp_path, "seeds=2", "overwrite=true")
    assert anew.trained
    assert_same(anew, more, [0, 1])


@pytest.mark.slow
def test_a_group_goes_on_as_a_whole_and_then_the_missing_seeds(tmp_path):
    whole = start(tmp_path / "whole", "seeds=2")
    start(tmp_path / "broken", "seeds=2", stop_at=11)
    more = start(tmp_path / "broken", "seeds=3")
    assert [s["status"] for s in more.summaries] == ["done"] * 3
    assert_same(more, whole, [0, 1])
