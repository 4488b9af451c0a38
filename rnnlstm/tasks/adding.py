"""The adding problem (Hochreiter & Schmidhuber 1997, experiment 4).

Add two marked numbers that lie far apart::

    value     0.41  0.87  0.13  0.55  0.92  0.30  0.68  0.24     uniform on [0, 1)
    marker    0     1     0     0     0     0     1     0        one mark in each half
    target                                              1.55     at the last step

The squared error of the answer at the last step is the loss. The places of the marks, the lengths and the
target depend on the protocol (`marked_numbers.py`): `standard` and `anywhere` ask for the sum, `hochreiter` takes
numbers from [−1, 1) and asks for ½ + (x₁ + x₂)/4, `pascanu` for the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rnnlstm.tasks.marked_numbers import FIRST, ONE_LENGTH, MarkedNumbers
from rnnlstm.tasks.task import register_task


@register_task("adding")
@dataclass(frozen=True, kw_only=True)
class Adding(MarkedNumbers):
    lowest, neutral = -1.0, 0.0

    def target(self, first: Tensor, second: Tensor) -> Tensor:
        if self.variant == "hochreiter":
            return 0.5 + (first + second) / 4
        return (first + second) / 2 if self.variant == "pascanu" else first + second

    @property
    def baseline(self) -> float:
        """Always answering the mean: the variance of the target. Of a sum of two uniforms 2 · 1/12, of their mean a
        quarter of that; `hochreiter`: of the two numbers' variances, 1/3 where not set to zero, a sixteenth."""
        if self.variant == "hochreiter":
            return sum(self._variances) / 16
        return 1 / 24 if self.variant == "pascanu" else 1 / 6

    @property
    def plateaus(self) -> Mapping[str, float]:
        """One operand stored, the other guessed as its mean: the variance of the other's share."""
        if self.variant == "hochreiter":
            first, second = self._variances
            return {"first operand stored": second / 16, "second operand stored": first / 16}
        return {"one operand stored": self.baseline / 2}

    @property
    def _variances(self) -> tuple[float, float]:
        """`hochreiter`: of the first and the second number."""
        seen = 1 - 1 / FIRST  # the chance that the first mark is not on the first step
        return seen / 3, (1 - seen * self.second_on_first_step) / 3

    @property
    def solved_when(self) -> str:
        criteria = {"hochreiter": "every answer within 0.04", "pascanu": f"99 % of answers within {self.near:g}"}
        return criteria.get(self.variant, "mean squared error < 0.01")

    def solved(self, metrics: Mapping[str, float]) -> bool:
        """`hochreiter`: the paper asks for 2,000 sequences in a row; here all of the evaluation's must be right."""
        if self.variant in ONE_LENGTH:
            return metrics["mse"] < 0.01
        return metrics["within"] >= (1.0 if self.variant == "hochreiter" else 0.99)
