"""What parts of training cost: batches of every task, each dimension of the fused LSTM, a busy core, instruments."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

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


#: The shape whose dimensions `growth` doubles, one at a time.
BASE = {"T": 100, "B": 64, "H": 64, "R": 1}


def growth(rounds: int) -> dict[str, Timing]:
    """A training step of the LSTM at B = 64, T = 100, H = 64, and with one dimension doubled and doubled again.
    R: that many recurrences at once through vmap."""
    shapes = [BASE] + [BASE | {name: BASE[name] * factor} for name in BASE for factor in (2, 4)]
    steps = {" ".join(f"{k}={v}" for k, v in shape.items()): _replicated(**shape) for shape in shapes}
    return in_turn(steps, rounds)


def _replicated(T: int, B: int, H: int, R: int) -> Callable[[], None]:
    module = ours.LSTM(INPUTS, H, backend="fused")
    if R == 1:
        x, cotangent = torch.randn(T, B, INPUTS), torch.randn(T, B, H)
        return step_of(module, functools.partial(outputs_of, module, x), cotangent)
    weights = {name: torch.stack([w.detach()] * R).requires_grad_() for name, w in module.named_parameters()}
    x, cotangent = torch.randn(R, T, B, INPUTS), torch.randn(R, T, B, H)

    def step() -> None:
        outputs = torch.func.vmap(lambda w, x: torch.func.functional_call(module, w, (x,))[0])(weights, x)
        torch.autograd.grad(outputs, list(weights.values()), cotangent)

    return step


def under_load(rounds: int, T: int = 200, B: int = 20, H: int = 128) -> dict[str, dict[str, Timing]]:
    """PyTorch's and the fused LSTM with one thread and with all, alone and while a process keeps a core busy."""
    theirs, x, cotangent = torch.nn.LSTM(INPUTS, H), torch.randn(T, B, INPUTS), torch.randn(T, B, H)
    modules = {"torch.nn": theirs, "fused": ours.LSTM(INPUTS, H, backend="fused")}
    before, timings = torch.get_num_threads(), {}
    try:
        for busy in (False, True):
            with _busy_core() if busy else contextlib.nullcontext():
                for threads in dict.fromkeys((1, before)):
                    torch.set_num_threads(threads)
                    steps = {
                        n: step_of(m, functools.partial(outputs_of, m, x), cotangent) for n, m in modules.items()
                    }
                    name = f"{threads} thread{'s' * (threads > 1)}, {'a core busy' if busy else 'alone'}"
                    timings[name] = in_turn(steps, rounds)
    finally:
        torch.set_num_threads(before)
    return timings


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def instruments_share(model: str, updates: int = 300) -> float:
    """Share of a training run's time that instruments took at their default interval, as the run itself logs it."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"model={model}", f"runs_root={folder}", "train.stop_when_solved=false", "eval.samples=128"]
        (job,) = compose_jobs([*options, f"train.steps={updates}"])
        train_run(make_plan(job.config), job.folder, Progress())
        tag = "time/instruments_share"
        shares = [float(line[tag]) for line in read_lines(seed_folder(job.folder, 0) / METRICS) if tag in line]
    return shares[-1]
