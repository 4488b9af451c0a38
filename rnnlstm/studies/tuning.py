"""How a learning rate is chosen, the same for every arm of every study: from the tuning seeds alone.

The rate that most tuning seeds solve the task at; among equals the one with the least mean of updates to solve, a
seed that does not solve counting with the whole budget; among equals the lowest median held-out loss, a diverged seed
counting as infinite; among equals the smallest rate.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """What one rate came to: a value for each tuning seed."""

    steps: int  #: the budget
    steps_to_solve: list[int | None]
    loss: list[float]  #: infinite where the seed diverged

    @classmethod
    def of(cls, summaries: Sequence[Mapping[str, Any]], steps: int) -> Trial:
        """From the seeds' summaries."""
        return cls(steps, [s["steps_to_solve"] for s in summaries], [_loss(s) for s in summaries])

    @property
    def rank(self) -> tuple[float, float, float]:
        """Lower is better."""
        solved = sum(step is not None for step in self.steps_to_solve)
        spent = [self.steps if step is None else step for step in self.steps_to_solve]
        return -solved / len(spent), statistics.fmean(spent), statistics.median(self.loss)

    def as_data(self) -> dict[str, Any]:
        return {
            "steps_to_solve": self.steps_to_solve,
            "loss": [None if math.isinf(loss) else loss for loss in self.loss],
        }


def choose(trials: Mapping[float, Trial]) -> float:
    """The learning rate by the rule above."""
    return min(trials, key=lambda rate: (*trials[rate].rank, rate))


def _loss(summary: Mapping[str, Any]) -> float:
    loss = summary.get("loss")
    if summary["status"] == "diverged" or loss is None or not math.isfinite(loss):
        return math.inf
    return float(loss)
