"""From numbers to places in a drawing: a linear scale with round ticks, and how numbers are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scale:
    """Linear from `low … high` to `start … end`. On a logarithmic axis, numbers are log10 of what is written."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: np.ndarray) -> np.ndarray:
        return self.start + (np.asarray(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def at(self, value: float) -> float:
        return float(self(np.asarray(value)))

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Round values within the range, with their texts."""
        if self.log:
            decades = range(math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9) + 1)
            if len(decades) < 3:  # between them, 2 and 5
                every = [
                    (k + math.log10(m), number(m * 10.0**k))
                    for k in range(decades.start - 1, decades.stop)
                    for m in (1, 2, 5)
                ]
                return [(value, text) for value, text in every if self.low <= value <= self.high]
            stride = max(1, math.ceil(len(decades) / count))
            return [(float(k), power(k)) for k in decades if k % stride == 0]
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        values = [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        return [(value, number(value)) for value in values]


def spread(low: float, high: float) -> tuple[float, float]:
    """A range that isn't empty."""
    return (low, high) if high > low else (low - 0.5 * abs(low) - 0.5, high + 0.5 * abs(high) + 0.5)


def _round_step(step: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(step))
    return magnitude * next(m for m in (1, 2, 2.5, 5, 10) if m * magnitude >= step * (1 - 1e-9))


def number(value: float | None, form: str = ".3g") -> str:
    """A number as a reader expects it: thousands apart, a true minus, an infinity."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if form == ".3g" and 1000 <= abs(value) < 1e9:
        form = ",.0f"
    return format(value, form).replace("-", "−")


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(exponent: float) -> str:
    """A power of ten: plain near one, else `10⁻⁶`."""
    if -2 <= exponent <= 3 and exponent == int(exponent):
        return number(10.0**exponent)
    return "10" + f"{exponent:g}".translate(SUPERSCRIPT)


def share(log10: float) -> str:
    """A share in words: 34 %, 1/2,400, 10⁻¹¹; above one, how many times."""
    if np.isnan(log10):
        return "unknown"
    if log10 > 0.3:
        return f"{number(10.0 ** min(log10, 300))} times as much"
    if log10 >= -2:
        return f"{10**log10:.0%}".replace("%", " %")
    if log10 >= -6:
        return f"1/{float(f'{10**-log10:.2g}'):,.0f}"
    return "nothing" if np.isinf(log10) else power(round(log10))
