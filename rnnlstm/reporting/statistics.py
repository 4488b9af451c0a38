"""Intervals for small numbers of seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

#: Fewer seeds than this are shown as values and their range; an interval would promise too much.
ENOUGH_SEEDS = 5
Z95 = statistics.NormalDist().inv_cdf(0.975)


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a success rate (Wilson 1927): it stays within 0 … 1 and makes sense at 0 and at all successes.

    (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n); 95 % by default.
    """
    if trials == 0:
        return 0.0, 1.0
    p, n = successes / trials, trials
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def bootstrap_median(values: Sequence[float], resamples: int = 10_000) -> tuple[float, float]:
    """95 % percentile interval of the median (Efron 1979), from resamples drawn with a fixed seed."""
    data = np.asarray(values, dtype=float)
    draws = np.random.default_rng(0).integers(0, len(data), (resamples, len(data)))
    low, high = np.quantile(np.median(data[draws], axis=1), (0.025, 0.975))
    return float(low), float(high)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The range of fewer than five values, the bootstrap interval of the median from five on; None without any."""
    if not values:
        return None
    if len(values) < ENOUGH_SEEDS:
        return min(values), max(values)
    return bootstrap_median(values)
