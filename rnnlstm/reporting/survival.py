"""Updates to solve the task, where some seeds have not solved it: the Kaplan–Meier estimate.

A seed that has solved the task counts from then on. One that has not is known not to have up to its last evaluation,
and *censored* there: it says nothing about later. A diverged seed is not: it will never solve the task, so it stays
among the unsolved to the end, at infinity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rnnlstm.reporting.runs import Run
from rnnlstm.reporting.statistics import ENOUGH_SEEDS, MOST_DRAWS, bootstrap_median, outer, wilson

MOST_BANDS = 4  #: in one picture: of more lines, bands hide one another
ROUNDING = 1e-9  # of a product of a few thousand factors


@dataclass(frozen=True)
class SolveTimes:
    """When n seeds solved the task."""

    steps: np.ndarray  #: (n,), ascending: the update of solving, or the last one at which it is known to be unsolved
    solved: np.ndarray  #: (n,) bool; at the same update, solved ones first

    @classmethod
    def of(cls, steps: Sequence[float], solved: Sequence[bool]) -> SolveTimes:
        times, events = np.asarray(steps, dtype=float), np.asarray(solved, dtype=bool)
        order = np.lexsort((~events, times))
        return cls(times[order], events[order])

    @property
    def followed(self) -> float:
        """The last update of which anything is known; 0 if all seeds diverged."""
        finite = self.steps[np.isfinite(self.steps)]
        return float(finite.max()) if len(finite) else 0.0

    @property
    def never(self) -> bool:
        """At least half of the seeds diverged: the median is not late, there is none."""
        return bool(2 * np.isinf(self.steps).sum() >= len(self.steps) > 0)

    def median(self) -> float:
        """By when half have solved it; infinite if not half of them have. Between two updates, their middle."""
        return float(_medians(self, np.ones((1, len(self.steps))))[0])

    def interval(self) -> tuple[float, float]:
        """Earliest and latest under five seeds, from five on the median's 95 % bootstrap interval. One that has not
        solved the task is later than anything."""
        n, times = len(self.steps), np.where(self.solved, self.steps, np.inf)
        if n < ENOUGH_SEEDS:
            return float(times.min()), float(times.max())
        if not self.solved.any():
            return math.inf, math.inf
        if self.solved[: self.solved.sum()].all():  # none was given up before the last solved: nothing to estimate
            return bootstrap_median(times.tolist())
        return outer(_medians(self, _weights(n, min(4000, max(1000, MOST_DRAWS // n)))))


@dataclass(frozen=True)
class Survival:
    """The share that has not solved the task from each update on at which one did; E such updates."""

    steps: np.ndarray  #: (E + 1,): 0, then the updates
    unsolved: np.ndarray  #: (E + 1,): 1, then the Kaplan–Meier estimate
    low: np.ndarray  #: (E + 1,): ends of its 95 % interval
    high: np.ndarray


def kaplan_meier(times: SolveTimes) -> Survival:
    """S(t) = Π (1 − d/n) over the updates up to t at which d of the n not yet solved and still followed did solve it.

    The interval is Wilson's, for as many seeds as would make Greenwood's variance binomial (Rothman 1978): without
    censoring these are all seeds, and it is the interval of the share of solved ones. Kaplan & Meier 1958.
    """
    steps = np.unique(times.steps[times.solved])
    at_risk = (times.steps[None] >= steps[:, None]).sum(axis=1)
    solved = (times.solved[None] & (times.steps[None] == steps[:, None])).sum(axis=1)
    share, greenwood, size = 1.0, 0.0, float(len(times.steps))
    rows = [(0.0, 1.0, *wilson(size, size))]
    for step, n, d in zip(steps.tolist(), at_risk.tolist(), solved.tolist(), strict=True):
        share *= (n - d) / n
        if n > d:  # at none left, as many as before
            greenwood += d / (n * (n - d))
            size = (1 - share) / (share * greenwood)
        rows.append((step, share, *wilson(share * size, size)))
    return Survival(*np.array(rows).T)


@dataclass(frozen=True)
class SolvedShare:
    """The share that has solved the task, as a line to draw: a value holds until the next step. N points."""

    steps: np.ndarray  #: (N,), from 0 to where the line ends
    share: np.ndarray  #: (N,)
    low: np.ndarray  #: ends of its 95 % interval
    high: np.ndarray
    ended: np.ndarray  #: updates at which unsolved seeds were last followed, to be ticked
    ended_share: np.ndarray  #: the line's value there


def solved_share(times: SolveTimes, end: float) -> SolvedShare:
    """The line as far as it is known: to `end`, the drawing's edge, where all have solved it or one never will."""
    curve = kaplan_meier(times)
    known = end if times.solved.all() or np.isinf(times.steps).any() else times.followed
    steps = np.append(curve.steps, max(known, curve.steps[-1]))
    share, low, high = (1 - np.append(part, part[-1]) for part in (curve.unsolved, curve.high, curve.low))
    ended = np.unique(times.steps[~times.solved & np.isfinite(times.steps)])
    at = np.searchsorted(curve.steps, ended, side="right") - 1
    return SolvedShare(steps, share, low, high, ended, 1 - curve.unsolved[at])


def solve_times(run: Run) -> SolveTimes:
    """Those of a run's seeds, whatever state they are in."""
    pairs = [solve_time(seed, evaluated_every(member)) for member in run.members for seed in member.seeds]
    return SolveTimes.of([step for step, _ in pairs], [solved for _, solved in pairs])


def solve_time(seed: dict[str, object], every: int) -> tuple[float, bool]:
    """A seed's update of solving and True; or the last at which it is known to be unsolved, and False. One that
    was stopped between two evaluations, which are `every` so many updates, is known up to the earlier."""
    steps, reached, status = seed.get("steps_to_solve"), seed.get("steps"), seed.get("status")
    if isinstance(steps, int | float) and seed.get("solved"):
        return float(steps), True
    if status == "diverged":
        return math.inf, False
    last = reached if isinstance(reached, int) else 0
    return float(last if status == "done" else last - last % every), False


def evaluated_every(run: Run) -> int:
    """So many updates lie between a run's evaluations."""
    every = run.config.get("eval.every")
    return every if isinstance(every, int) and every > 0 else 1


def _medians(times: SolveTimes, weights: np.ndarray) -> np.ndarray:
    """The median for each row of weights, (…, n): how often each seed counts."""
    at_risk = weights[:, ::-1].cumsum(axis=1)[:, ::-1]
    left = at_risk - weights * times.solved
    factors = np.divide(left, at_risk, out=np.ones(weights.shape), where=at_risk > 0)
    unsolved = np.concatenate([factors.cumprod(axis=1), np.zeros((len(weights), 1))], axis=1)
    steps = np.append(np.where(times.solved, times.steps, np.inf), np.inf)
    half, less = (unsolved <= 0.5 + ROUNDING).argmax(axis=1), (unsolved < 0.5 - ROUNDING).argmax(axis=1)
    return (steps[half] + steps[less]) / 2


@functools.lru_cache(maxsize=8)
def _weights(count: int, resamples: int) -> np.ndarray:
    """(resamples, count): how often each of `count` seeds is drawn, with a fixed seed."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), resamples).astype(float)
