"""What making data costs: a batch of every task, in turn with the recurrence of a training step."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import torch

import rnnlstm as ours
from rnnlstm.measure.recurrences import INPUTS, outputs_of, step_of
from rnnlstm.measure.timing import Timing, in_turn
from rnnlstm.tasks import TASKS, Task, make_task

B, T, H = 64, 100, 128
STEP = "fused LSTM, forward and backward"


def protocols(**options: int) -> dict[str, Task]:
    """Every task in each of its variants, by a readable name.

    Raises: ConfigError if a task needs a package that is not installed.
    """
    found = {}
    for name in TASKS:
        variant = {field.name: field for field in dataclasses.fields(TASKS[name])}.get("variant")
        for choice in variant.metadata["choices"] if variant else (None,):
            chosen = {} if choice is None else {"variant": choice}
            found[" ".join([name, *chosen.values()])] = make_task(name, **options, **chosen)
    return found


def batch_costs(rounds: int) -> dict[str, Timing]:
    """Milliseconds for a batch of each task at B=64, T=100, and as `STEP` for the LSTM's step with H=128 alone: no
    embedding, readout, clipping or optimiser, which make a whole training step longer."""
    torch.manual_seed(0)
    module = ours.LSTM(INPUTS, H, backend="fused")
    x, cotangent = torch.randn(T, B, INPUTS), torch.randn(T, B, H)
    numbers = itertools.count()
    contenders = {STEP: step_of(module, functools.partial(outputs_of, module, x), cotangent)}
    for name, task in protocols(length=T).items():
        contenders[name] = functools.partial(lambda task: task.sample(0, next(numbers), batch_size=B), task)
    return in_turn(contenders, rounds)
