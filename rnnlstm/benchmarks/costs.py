"""What parts of training cost: batches of every task, instruments, the parts of an update, start-up and sweeps."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import rnnlstm.recurrence as ours
from rnnlstm.benchmarks.recurrences import INPUTS, outputs_of, step_of
from rnnlstm.benchmarks.timing import Timing, in_turn, summary_of
from rnnlstm.benchmarks.training import default_plan
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.files import read_json, read_lines
from rnnlstm.record.folders import METRICS, SUMMARY, seed_folder
from rnnlstm.tasks import TASKS, Task, make_task
from rnnlstm.training import step as step_module
from rnnlstm.training.batches import MOST_STEPS
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress
from rnnlstm.training.step import Trainer

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


#: Of an update, in order; "rest" is what belongs to none.
PARTS = ("data", "forward", "loss", "backward", "clipping", "optimiser", "rest")
UPDATE = "update"


def update_parts(model: str, seeds: int, rounds: int, overrides: Sequence[str] = ()) -> dict[str, Timing]:
    """Milliseconds of each part of an update on the CPU, and of the whole as `UPDATE`.

    The trainer's own step is timed: while it runs, the functions that it calls for its parts are replaced by ones
    that call them and look at the clock. A part inside another one belongs to the outer one.
    """
    plan = default_plan(model, "device=cpu", *overrides)
    trainer = Trainer(plan, range(seeds))
    spent: dict[str, float] = defaultdict(float)
    open_parts: list[str] = []

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*arguments: Any, **options: Any) -> Any:
            open_parts.append(part)
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                open_parts.pop()
                if not open_parts:
                    spent[part] += time.perf_counter() - started

        return timed_call

    places = {
        "data": (trainer.batches, "take"),
        "forward": (type(trainer.model), "__call__"),
        "loss": (type(plan.task), "loss"),
        "backward": (torch.Tensor, "backward"),
        "clipping": (step_module, "clip_replicas"),
        "optimiser": (trainer.optimizer, "step"),
    }
    times: dict[str, list[float]] = {name: [] for name in (*PARTS, UPDATE)}
    with ExitStack() as stack:
        for part, (owner, name) in places.items():
            stack.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        numbers = itertools.count(1)
        for k in range(rounds + 2):  # the first two warm up
            spent.clear()
            started = time.perf_counter()
            for _ in range(MOST_STEPS):  # some draw the batches of the next ones
                trainer.step(next(numbers))
            spent[UPDATE] = time.perf_counter() - started
            spent["rest"] = 2 * spent[UPDATE] - sum(spent.values())
            if k >= 2:
                for name, each in times.items():
                    each.append(1e3 * spent[name] / MOST_STEPS)
    return {name: summary_of(each) for name, each in times.items()}


#: Walks from an empty interpreter to the first update, and prints when each part was done.
_WALK = """
import json, sys, time
marks = {"interpreter": time.monotonic()}
def done(part):
    marks[part] = time.monotonic()
import torch; done("import of torch")
import hydra; done("import of Hydra")
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.recurrence.fused import native
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.step import Trainer
done("import of the rest")
(job,) = compose_jobs(sys.argv[1:]); done("configuration")
native.available(torch.float32); done("kernel")
plan = make_plan(job.config); done("task and plan")
trainer = Trainer(plan, job.config.seed_numbers); done("network")
trainer.step(1); done("first update")
print(json.dumps(marks))
"""
COMMAND, COMPILED_KERNEL = "whole command, one update", "kernel, compiled anew"


def start_up(rounds: int, overrides: Sequence[str] = ()) -> dict[str, Timing]:
    """Milliseconds from the start of Python to the end of the first update, part by part, each in a new process; then
    those of compiling the kernel, which only the first run on a machine does, and those of the whole command that
    trains for one update, with its record, its evaluation and its end."""
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for part, seconds in _walk(overrides).items():
            times[part].append(1e3 * seconds)
    with tempfile.TemporaryDirectory() as folder:
        times[COMPILED_KERNEL].append(1e3 * _walk(overrides, XDG_CACHE_HOME=folder)["kernel"])
        for number in range(rounds):
            started = time.monotonic()
            _python("-m", "rnnlstm.train", *overrides, "train.steps=1", f"runs_root={folder}/{number}")
            times[COMMAND].append(1e3 * (time.monotonic() - started))
    return {part: summary_of(each) for part, each in times.items()}


def _walk(overrides: Sequence[str], **environment: str) -> dict[str, float]:
    """Seconds of each part."""
    begun = time.monotonic()  # one clock for all processes
    marks = json.loads(_python("-c", _WALK, *overrides, **environment))
    ends = list(marks.values())
    return {part: end - start for part, start, end in zip(marks, [begun, *ends], ends, strict=False)}


#: A job that takes next to no time to train.
TINY = (
    *("model=rnn", "task.length=10", "model.hidden_size=8", "model.embedding_size=4"),
    *("train.batch_size=4", "train.steps=5", "eval.samples=20"),
)


def tiny_sweep(jobs: int) -> dict[str, float]:
    """Seconds of a job in a sweep of so many tiny jobs by the serial launcher, the command's own start and end
    included, and which of them are training."""
    rates = ",".join(f"{1e-3 + 1e-7 * number:.7f}" for number in range(jobs))
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        _python("-m", "rnnlstm.train", "-m", *TINY, f"optimizer.lr={rates}", f"runs_root={folder}")
        seconds = (time.monotonic() - started) / jobs
        summaries = [read_json(path) or {} for path in Path(folder).glob(f"*/*/seed_0/{SUMMARY}")]
    if len(summaries) != jobs:
        raise RuntimeError(f"{len(summaries)} of {jobs} jobs have a summary")
    training = sum(summary["steps"] / summary["steps_per_second"] for summary in summaries) / jobs
    return {"jobs": jobs, "seconds": seconds, "training": training, "share_not_training": 1 - training / seconds}


def _python(*arguments: str, **environment: str) -> str:
    """What Python prints to its standard output, run with these arguments. It ends when this process does."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.terminate)
    try:
        output, errors = process.communicate()
    finally:
        atexit.unregister(process.terminate)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments[:2])[:40]} ended with {process.returncode}: {errors.strip()}")
    return output
