"""Small configurations, composed plans, and every model with each backend that computes it."""

from __future__ import annotations

import functools

from rnnlstm.cells import CELLS, Cell, make_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.recurrence import choose_backend
from rnnlstm.training.plan import Plan, make_plan

SMALL = ("task.length=12", "model.hidden_size=8", "model.embedding_size=4", "train.batch_size=5", "eval.samples=20")


@functools.cache  # composing takes a third of a second, and a plan can't be changed
def plan_for(*overrides: str) -> Plan:
    (job,) = compose_jobs(overrides)
    return make_plan(job.config)


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
