"""Runs that are stopped and started again, and what two runs of the same configuration must share."""

from __future__ import annotations

import json
import signal

import torch

from rnnlstm.record.files import read_json, read_lines
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support.training import compose

SMALL = (
    "task.length=12",
    "model.hidden_size=8",
    "model.embedding_size=4",
    "train.batch_size=5",
    "train.steps=30",
    "train.stop_when_solved=false",
    "eval.samples=20",
    "eval.every=7",
    "log.every=1",
    "probe.every=5",
)


#: What differs between two runs of the same: times.
TIMES = ("time/steps_per_second", "time/instruments_share")


class StopAt(Progress):
    """Raises the process's own signal when an update has been shown."""

    def __init__(self, step: int | None) -> None:
        super().__init__()
        self.step = step

    def show(self, step, update, replicas):
        if step == self.step:
            signal.raise_signal(signal.SIGTERM)


def start(root, *overrides, stop_at=None):
    job = compose(*SMALL, f"runs_root={root}", *overrides)
    return train_run(make_plan(job.config), job.folder, StopAt(stop_at))


def left_by(outcome, seed):
    """Everything in a seed's record but times, and its final weights."""
    folder = outcome.folder / f"seed_{seed}"
    lines = {
        name: [{k: v for k, v in line.items() if k not in TIMES} for line in read_lines(folder / name)]
        for name in ("metrics.jsonl", "clip_events.jsonl", "flow.jsonl", "samples.jsonl")
    }
    timed = ("steps_per_second", "ms_per_update")
    summary = {k: v for k, v in read_json(folder / "summary.json").items() if k not in timed}
    return json.dumps([lines, summary]), torch.load(folder / "weights.pt", weights_only=True)


def assert_same(one, other, seeds):
    for seed in seeds:
        (text, weights), (expected, theirs) = left_by(one, seed), left_by(other, seed)
        assert text == expected
        assert weights.keys() == theirs.keys()
        for name, weight in weights.items():
            assert torch.equal(weight, theirs[name]), name
