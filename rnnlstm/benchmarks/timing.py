"""Fair timing on a noisy machine: contenders take turns, so that a disturbance slows all of them."""

from __future__ import annotations

import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one contender over its rounds."""

    median: float
    low: float  #: lower quartile
    high: float  #: upper quartile


def in_turn(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 2,
    wait: Callable[[], None] = lambda: None,
    twice: bool = False,
) -> dict[str, Timing]:
    """Call each contender once a round, `rounds` times after `warm_up` rounds that don't count. `wait` returns
    when the work of the call is done: on a GPU a call returns before its work is done. `twice`: each is called
    twice in a row, and the second call counts, as for those that are `Apart`."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(warm_up + rounds):
        for name, call in contenders.items():
            if twice and not isinstance(call, Apart):
                call()
                wait()
            started = time.perf_counter()
            result = call()
            wait()
            taken = time.perf_counter() - started
            if isinstance(call, Apart) and isinstance(result, float):
                taken = result
            if k >= warm_up:
                seconds[name].append(taken / call.count if isinstance(call, Several) else taken)
    return {name: summary_of([1e3 * s for s in times]) for name, times in seconds.items()}


class Several:
    """A contender whose call is `count` calls, timed as one of them: where some do the work of later ones."""

    def __init__(self, call: Callable[[], object], count: int) -> None:
        self.call, self.count = call, count

    def __call__(self) -> None:
        for _ in range(self.count):
            self.call()


class NotReadyError(Exception):
    """A contender did not get ready; the text says why, in a line."""


class Apart:
    """A contender in a process of its own. A call here makes two calls there and returns the seconds that the second
    took there: the first one after a wait takes longer, by up to a sixth."""

    def __init__(self, limit: float, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        """`make(*arguments)` returns the contender there, and is a function of a module. The first call, which may
        compile, is made at once. Raises: NotReadyError if that fails, or takes more than `limit` seconds from the
        start."""
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, arguments), daemon=True)
        with interrupts_blocked():
            self._process.start()
        there.close()
        first: float | str = f"not ready within {limit:g} s"
        if self._pipe.poll(limit):
            try:
                first = self._pipe.recv()
            except EOFError:
                first = "its process ended"
        if isinstance(first, str):
            self.close()
            raise NotReadyError(first)
        self.first_seconds = first  #: that the first call took

    def __call__(self) -> float:
        self._pipe.send(None)
        seconds: float = self._pipe.recv()
        return seconds

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    try:
        contender = make(*arguments)
        started = time.perf_counter()
        contender()
    except Exception as error:  # of compilers and libraries, of any kind; the comparison goes on without them
        pipe.send((str(error).strip() or type(error).__name__).splitlines()[0])
        return
    pipe.send(time.perf_counter() - started)
    while True:
        pipe.recv()
        contender()
        started = time.perf_counter()
        contender()
        pipe.send(time.perf_counter() - started)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes that start inside ignore Ctrl-C, which ends this process, which ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def matrix_product_rate(size: int = 1024, rounds: int = 9) -> float:
    """GFLOP/s of PyTorch's large float32 matrix product with the current number of threads: the median."""
    a, b = torch.randn(2, size, size)
    timing = in_turn({"product": lambda: a @ b}, rounds)["product"]
    return 2 * size**3 / timing.median / 1e6


def as_line(times: Mapping[str, Timing], digits: int = 1) -> str:
    """Medians with quartiles, in a line."""
    return "   ".join(
        f"{name} {t.median:.{digits}f} ({t.low:.{digits}f}…{t.high:.{digits}f})" for name, t in times.items()
    )


def as_data(times: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """As a JSON file holds them."""
    return {name: asdict(timing) for name, timing in times.items()}


def summary_of(times: list[float]) -> Timing:
    """Median and quartiles."""
    if len(times) < 2:
        return Timing(times[0], times[0], times[0])
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high)
