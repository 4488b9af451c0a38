"""Differences between two sides that were measured on the same data, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rnnlstm.reporting.statistics import ENOUGH_SEEDS, bootstrap_median

#: A number that is known to lie between two others, both among them: (150, 150) is exact, (301, ∞) later than 300.
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Differences:
    """A − B over n pairs, each known to lie within bounds."""

    bounds: tuple[Bounds, ...]

    @classmethod
    def of(cls, a: Sequence[Bounds], b: Sequence[Bounds]) -> Differences:
        return cls(tuple(difference(x, y) for x, y in zip(a, b, strict=True)))

    @property
    def below(self) -> int:
        """Pairs in which A is surely less than B."""
        return sum(high < 0 for _, high in self.bounds)

    @property
    def above(self) -> int:
        return sum(low > 0 for low, _ in self.bounds)

    @property
    def equal(self) -> int:
        return sum(low == high == 0 for low, high in self.bounds)

    @property
    def open(self) -> int:
        """Pairs that don't say which is less."""
        return len(self.bounds) - self.below - self.above - self.equal

    def median(self) -> Bounds:
        return median_of(self.bounds)

    def interval(self) -> Bounds:
        """Under five pairs their range; from five on the median's 95 % bootstrap interval over pairs, at the lower
        end with every difference as low as it may be, at the upper with every one as high."""
        lows, highs = zip(*self.bounds, strict=True)
        if len(self.bounds) < ENOUGH_SEEDS:
            return min(lows), max(highs)
        return bootstrap_median(lows)[0], bootstrap_median(highs)[1]


def difference(a: Bounds, b: Bounds) -> Bounds:
    """What A − B lies between. Two that never come, (∞, ∞), are equal."""
    if a == b and math.isinf(a[0]):
        return 0.0, 0.0
    low, high = a[0] - b[1], a[1] - b[0]
    return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)


def median_of(numbers: Sequence[Bounds]) -> Bounds:
    """What the median of numbers lies between, whatever they are within their bounds."""
    lows, highs = zip(*numbers, strict=True)
    return _middle(sorted(lows), -math.inf), _middle(sorted(highs), math.inf)


def _middle(ordered: Sequence[float], unknown: float) -> float:
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return unknown if math.isinf(low) and math.isinf(high) and low != high else (low + high) / 2
