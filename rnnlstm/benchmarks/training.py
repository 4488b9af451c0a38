"""The project's training step against scripts of the same network, task, batch size, optimiser and clipping.

- fair script, the yardstick: what a good engineer writes by hand in PyTorch for just this network: PyTorch's module,
  readout at the scored steps alone, `clip_grad_norm_`, fused Adam.
- plain script: the same with a readout at every step and PyTorch's default Adam.

On a GPU PyTorch's module is cuDNN's. All contenders draw their data on the CPU from the same task and begin with the
same weights. Several seeds are as many scripts in turn. Every call is timed until the device has done its work.
"""

from __future__ import annotations

import multiprocessing
import platform
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnlstm.benchmarks.timing import Timing, in_turn
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.training.plan import Plan, make_plan
from rnnlstm.training.step import Trainer

#: Replicas that training on a device is timed with.
REPLICAS = (1, 64, 256)
QUICK_REPLICAS = (1, 64)
LOCKSTEP, FAIR, PLAIN = "lockstep", "fair script", "plain script"


class ScriptNetwork(nn.Module):
    """Embedding, one layer of PyTorch's recurrence and readout; the names of its weights are the project's."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        options, task = plan.config.network, plan.task
        assert task.num_tokens is not None
        self.embedding = nn.Embedding(task.num_tokens, options.embedding_size)
        self.recurrence = getattr(nn, plan.cell.name.upper())(options.embedding_size, options.hidden_size)
        self.readout = nn.Linear(options.hidden_size, task.output_size)

    def every_answer(self, tokens: Tensor) -> Tensor:
        """(T, B, O)"""
        answers: Tensor = self.readout(self.recurrence(self.embedding(tokens))[0])
        return answers

    def loss(self, tokens: Tensor, scored: Tensor, targets: Tensor) -> Tensor:
        """From the scored rows alone: `scored` (scored,), as `Batch` has it, `targets` (scored,)."""
        hidden = self.recurrence(self.embedding(tokens))[0]
        return F.cross_entropy(self.readout(hidden.flatten(0, 1)[scored]), targets)


class Script:
    """A script in PyTorch: a call is an update, and returns its loss."""

    def __init__(self, plan: Plan, seed: int, fair: bool = True) -> None:
        self.plan, self.seed, self.fair, self.step = plan, seed, fair, 0
        self.network = ScriptNetwork(plan)
        self.network.load_state_dict(plan.network(seed).state_dict())
        self.network.to(plan.device)
        self.loss = self.network.loss
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=plan.config.optimizer.lr, fused=True if fair else None
        )

    def __call__(self) -> Tensor:
        self.step += 1
        config = self.plan.config
        batch = self.plan.task.sample(self.seed, self.step, batch_size=config.train.batch_size).to(self.plan.device)
        targets = batch.at_scored(batch.targets)
        if self.fair:
            loss = self.loss(batch.inputs, batch.scored, targets)
        else:
            loss = F.cross_entropy(batch.at_scored(self.network.every_answer(batch.inputs)), targets)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip.threshold or 1.0)
        self.optimizer.step()
        return loss.detach()


class InTurn:
    """An update of each of several scripts, one after another."""

    def __init__(self, plan: Plan, seeds: Sequence[int], fair: bool = True) -> None:
        self.scripts = [Script(plan, seed, fair) for seed in seeds]

    def __call__(self) -> list[Tensor]:
        return [script() for script in self.scripts]


def against_scripts(
    model: str, seeds: int, rounds: int, device: str = "cpu", overrides: Sequence[str] = ()
) -> dict[str, Timing]:
    """Milliseconds of an update of `seeds` replicas in lockstep, and of as many scripts of each kind, at the default
    configuration with these overrides."""
    plan = default_plan(model, f"device={device}", *overrides)
    trainer = Trainer(plan, range(seeds))
    steps = iter(range(1, 1_000_000_000))

    def wait() -> None:
        if plan.device.type == "cuda":
            torch.cuda.synchronize(plan.device)

    contenders: dict[str, Callable[[], object]] = {
        LOCKSTEP: lambda: trainer.step(next(steps)),
        FAIR: InTurn(plan, range(seeds)),
        PLAIN: InTurn(plan, range(seeds), fair=False),
    }
    return in_turn(contenders, rounds, wait=wait)


def default_plan(model: str, *overrides: str) -> Plan:
    """Raises: ConfigError."""
    (job,) = compose_jobs([f"model={model}", "runs_root=benchmark_writes_nothing", *overrides])
    return make_plan(job.config)


def two_at_a_time(model: str, seeds: int, rounds: int) -> float:
    """Milliseconds for an update of each of `seeds` fair scripts, run by two processes of one thread each: the
    median of the rounds, each as long as its slower process."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_half, args=(model, list(range(seeds))[k::2], rounds, barrier, queue), daemon=True)
        for k in range(2)
    ]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # in the workers: Ctrl-C ends this process,
    for worker in workers:  # which ends them
        worker.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    times = [queue.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return statistics.median(max(pair) for pair in zip(*times, strict=True))


def _half(model: str, seeds: list[int], rounds: int, barrier: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    plan = default_plan(model, "device=cpu")
    scripts = InTurn(plan, seeds)
    times = []
    for k in range(rounds + 2):
        barrier.wait(timeout=600)
        started = time.perf_counter()
        scripts()
        if k >= 2:
            times.append(1e3 * (time.perf_counter() - started))
    queue.put(times)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        return f"{torch.cuda.get_device_name(device)}, {cuda}"
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
