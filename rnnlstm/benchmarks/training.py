"""The project's training step against a plain script of the same network, task, batch size, optimiser and clipping.

The script uses PyTorch's own module, on a GPU cuDNN's. Both draw their data on the CPU from the same task, so that
only training differs. Every call is timed until the device has done its work.
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
from torch import nn

from rnnlstm.benchmarks.timing import Timing, in_turn
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.training.plan import Plan, make_plan
from rnnlstm.training.step import Trainer

#: Replicas that training on a device is timed with.
REPLICAS = (1, 64, 256)
QUICK_REPLICAS = (1, 64)


class PlainNetwork(nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        options, task = plan.config.network, plan.task
        assert task.num_tokens is not None
        self.embedding = nn.Embedding(task.num_tokens, options.embedding_size)
        self.recurrence = getattr(nn, plan.cell.name.upper())(options.embedding_size, options.hidden_size)
        self.readout = nn.Linear(options.hidden_size, task.output_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.readout(self.recurrence(self.embedding(tokens))[0])


def plain_step(plan: Plan, seed: int) -> Callable[[], None]:
    """One update of a plain script: forward, backward, `clip_grad_norm_`, Adam."""
    torch.manual_seed(seed)
    network, config = PlainNetwork(plan).to(plan.device), plan.config
    optimizer = torch.optim.Adam(network.parameters(), lr=config.optimizer.lr)
    steps = iter(range(1, 1_000_000_000))

    def step() -> None:
        batch = plan.task.sample(seed, next(steps), batch_size=config.train.batch_size).to(plan.device)
        loss = plan.task.loss(network(batch.inputs), batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.clip.threshold or 1.0)
        optimizer.step()

    return step


def against_plain_scripts(
    model: str, seeds: int, rounds: int, device: str = "cpu", overrides: Sequence[str] = ()
) -> dict[str, Timing]:
    """Milliseconds of an update of `seeds` replicas in lockstep, and of as many plain scripts, at the default
    configuration with these overrides."""
    plan = default_plan(model, f"device={device}", *overrides)
    trainer, plain = Trainer(plan, range(seeds)), [plain_step(plan, seed) for seed in range(seeds)]
    steps = iter(range(1, 1_000_000_000))

    def scripts() -> None:
        for step in plain:
            step()

    def wait() -> None:
        if plan.device.type == "cuda":
            torch.cuda.synchronize(plan.device)

    return in_turn({"lockstep": lambda: trainer.step(next(steps)), "plain scripts": scripts}, rounds, wait=wait)


def default_plan(model: str, *overrides: str) -> Plan:
    """Raises: ConfigError."""
    (job,) = compose_jobs([f"model={model}", "runs_root=benchmark_writes_nothing", *overrides])
    return make_plan(job.config)


def two_at_a_time(model: str, seeds: int, rounds: int) -> float:
    """Milliseconds for an update of each of `seeds` plain scripts, run by two processes of one thread each: the
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
    scripts = [plain_step(plan, seed) for seed in seeds]
    times = []
    for k in range(rounds + 2):
        barrier.wait(timeout=600)
        started = time.perf_counter()
        for step in scripts:
            step()
        if k >= 2:
            times.append(1e3 * (time.perf_counter() - started))
    queue.put(times)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        return f"{torch.cuda.get_device_name(device)}, {cuda}"
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
