"""The multiplication problem (Hochreiter & Schmidhuber 1997, experiment 5).

Multiply two marked numbers that lie far apart::

    value     0.41  0.87  0.13  0.55  0.92  0.30  0.68  0.24     uniform on [0, 1)
    marker    0     1     0     0     0     0     1     0        one mark in each half
    target                                              0.59     at the last step

The squared error of the answer at the last step is the loss. Adding alone does not
solve it. The protocols are the adding problem's (`marked_numbers.py`), with numbers from [0, 1) in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rnnlstm.tasks.marked_numbers import FIRST, MarkedNumbers
from rnnlstm.tasks.task import register_task


@register_task("multiplication")
@dataclass(frozen=True, kw_only=True)
class Multiplication(MarkedNumbers):
    lowest, neutral = 0.0, 1.0

    def target(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second

    @property
    def baseline(self) -> float:
        """Always answering the mean: the variance of a product of two uniforms, 1/9 − 1/16 = 7/144; `hochreiter`: a
        share of the targets, that with a mark on the first step, is one uniform alone."""
        if self.variant != "hochreiter":
            return 7 / 144
        first, second = 1 / FIRST, self.second_on_first_step
        alone = first + (1 - first) * second
        mean, square = alone / 2 + (1 - alone) / 4, alone / 3 + (1 - alone) / 9
        return square - mean**2

    @property
    def plateaus(self) -> Mapping[str, float]:
        """One operand x stored: x² times the variance of the other, 1/3 · 1/12."""
        if self.variant != "hochreiter":
            return {"one operand stored": 1 / 36}
        first, second = 1 / FIRST, self.second_on_first_step
        # A stored number that is 1 tells that the other is uniform. If it is not 1, the other may be.
        uniform = first + (1 - first) * (1 - second)  # the chance that the second is not 1
        return {
            "first operand stored": first / 12 + (1 - first) * _variance(second) / 3,
            "second operand stored": (1 - uniform) / 12 + uniform * _variance(first / uniform) / 3,
        }

    @property
    def solved_when(self) -> str:
        return f"{'99.35' if self.variant == 'hochreiter' else '99'} % of answers within {self.near:g}"

    def solved(self, metrics: Mapping[str, float]) -> bool:
        """`hochreiter`: the paper's stricter criterion, at most 13 wrong of 2,000. `pascanu`: at most 1 %."""
        return metrics["within"] >= (1 - 13 / 2000 if self.variant == "hochreiter" else 0.99)


def _variance(one: float) -> float:
    """Of a number that is 1 with this chance and else uniform on [0, 1)."""
    return one + (1 - one) / 3 - (one + (1 - one) / 2) ** 2
