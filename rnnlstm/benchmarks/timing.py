"""Fair timing on a noisy machine: contenders take turns, so that a disturbance slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
) -> dict[str, Timing]:
    """Call each contender once a round, `rounds` times after `warm_up` rounds that don't count. `wait` returns
    when the work of the call is done: on a GPU a call returns before its work is done."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(warm_up + rounds):
        for name, call in contenders.items():
            started = time.perf_counter()
            call()
            wait()
            if k >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: _summary([1e3 * s for s in times]) for name, times in seconds.items()}


def matrix_product_rate(size: int = 1024, rounds: int = 9) -> float:
    """GFLOP/s of PyTorch's large float32 matrix product with the current number of threads: the median."""
    a, b = torch.randn(2, size, size)
    timing = in_turn({"product": lambda: a @ b}, rounds)["product"]
    return 2 * size**3 / timing.median / 1e6


def _summary(times: list[float]) -> Timing:
    if len(times) < 2:
        return Timing(times[0], times[0], times[0])
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(median, low, high)
