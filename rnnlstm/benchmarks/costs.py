"""What parts of training cost: batches of every task, and instruments."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile

import torch

import rnnlstm.recurrence as ours
from rnnlstm.benchmarks.recurrences import INPUTS, outputs_of, step_of
from rnnlstm.benchmarks.timing import Timing, in_turn
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.files import read_lines
from rnnlstm.record.folders import METRICS, seed_folder
from rnnlstm.tasks import TASKS, Task, make_task
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

B, T, H = 64, 100, 128
STEP = "fused LSTM, forward and backward"


def protocols(**options: int) -> dict[str, Task]:
    """Every task in each of its variants, by a name such as "copy variable".

    Raises: ConfigError if a task needs a package that is not installed.
    """
    tasks = {}
    for name in TASKS:
        variant = {field.name: field for field in dataclasses.fields(TASKS[name])}.get("variant")
        for choice in variant.metadata["choices"] if variant else (None,):
            chosen = {} if choice is None else {"variant": choice}
            tasks[" ".join([name, *chosen.values()])] = make_task(name, **options, **chosen)
    return tasks


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


def instruments_share(model: str, updates: int = 300) -> float:
    """Share of a training run's time that instruments took at their default interval, as the run itself logs it."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"model={model}", f"runs_root={folder}", "train.stop_when_solved=false", "eval.samples=128"]
        (job,) = compose_jobs([*options, f"train.steps={updates}"])
        train_run(make_plan(job.config), job.folder, Progress())
        tag = "time/instruments_share"
        shares = [float(line[tag]) for line in read_lines(seed_folder(job.folder, 0) / METRICS) if tag in line]
    return shares[-1]
