"""What the tests share: few threads, and short ways to a composed plan and a finished run."""

from __future__ import annotations

import functools

import pytest
import torch

from rnnlstm.cells import CELLS, Cell, make_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.recurrence import choose_backend
from rnnlstm.training.loop import Outcome, train_run
from rnnlstm.training.plan import Plan, make_plan
from rnnlstm.training.progress import Progress

torch.set_num_threads(1)

SMALL = ("task.length=12", "model.hidden_size=8", "model.embedding_size=4", "train.batch_size=5", "eval.samples=20")


@functools.cache  # composing takes a third of a second, and a plan can't be changed
def plan_for(*overrides: str) -> Plan:
    (job,) = compose_jobs(overrides)
    return make_plan(job.config)


@pytest.fixture
def train(tmp_path):
    """`train("task=copy", …)` trains a small network under `tmp_path` and returns the run's outcome."""

    def start(*overrides: str, progress: Progress | None = None) -> Outcome:
        arguments = [*SMALL, f"runs_root={tmp_path}", *overrides]
        (job,) = compose_jobs(arguments)
        return train_run(make_plan(job.config), job.folder, progress or Progress())

    return start


def has_backend(cell: Cell, backend: str) -> bool:
    try:
        choose_backend(cell, backend)
    except OptionError:
        return False
    return True


#: Every model with each backend that computes it.
MODELS_AND_BACKENDS = [
    (model, backend)
    for model in CELLS
    for backend in ("reference", "fused", "torch")
    if has_backend(make_cell(model), backend)
]
