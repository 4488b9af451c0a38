"""Small configurations, composed plans, and every model with each backend that computes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rnnlstm.cells import CELLS, Cell, make_cell
from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import OptionError
from rnnlstm.jobs.job import Job, compose_job
from rnnlstm.recurrence import choose_backend
from rnnlstm.training.plan import Plan, make_plan

SMALL = ("task.length=12", "model.hidden_size=8", "model.embedding_size=4", "train.batch_size=5", "eval.samples=20")
#: The same for tasks whose inputs are numbers, where an embedding is refused.
SMALL_NUMBERS = tuple(option for option in SMALL if "embedding" not in option)


#: Kept for all tests: a new composer reads and parses the YAML files again, which takes a third of a second.
COMPOSER = Composer()


def compose(*overrides: str) -> Job:
    """One job, composed and checked as each job of a sweep is; tests of composition itself call `compose_jobs`."""
    with COMPOSER.active():
        return compose_job(COMPOSER, overrides, [])


@functools.cache  # a plan is frozen, so tests can share it
def plan_for(*overrides: str) -> Plan:
    return make_plan(compose(*overrides).config)


def has_backend(cell: Cell, backend: str) -> bool:
    try:
        choose_backend(cell, backend)
    except OptionError:
        return False
    return True


def quick_if(quick: Callable[..., bool], cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of a test, with the mark `slow` where `quick(*case)` is false."""
    return [pytest.param(*case, marks=() if quick(*case) else pytest.mark.slow) for case in cases]


#: Every model with each backend that computes it.
MODELS_AND_BACKENDS = [
    (model, backend)
    for model in CELLS
    for backend in ("reference", "fused", "torch")
    if has_backend(make_cell(model), backend)
]

#: A cell of each kind, for what depends on the kind alone: plain, gated with and without a second state, normalised,
#: complex and linear (computed by a scan), element-wise. Values and gradients are tested for every cell.
KINDS = ("rnn", "lstm", "gru", "lstm_layer_norm", "lru", "indrnn")
#: Every model with each backend; the quick tests take those of `KINDS`.
EACH_MODEL_AND_BACKEND = quick_if(lambda model, backend: model in KINDS, MODELS_AND_BACKENDS)
