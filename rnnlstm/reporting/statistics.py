"""Statistics for small numbers of seeds: intervals, tests, updates to solve with censoring, paired differences.

*Intervals*: Wilson's of a share, the bootstrap's of a median; the range up to five seeds.

*Tests* between two sets of seeds: Fisher's of solved shares, Mann & Whitney's of updates and metrics; Holm's
correction for several. All are two-sided. They take seeds as independent: those of one network at several rates, or
one seed under several kernels, are not, and are never added up.

*Updates to solve* are estimated as Kaplan & Meier (1958) do. A seed counts from the update at which it solved the
task. A seed that has not solved it is *censored* at its last evaluation: it says nothing about later. A diverged
seed never solves the task, so it stays among the unsolved to the end, at infinity.

*Paired differences* are those between two sides that were measured on the same data.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from rnnlstm.reporting.runs import Run

#: Fewer seeds than this are shown with their range, which is the bootstrap interval of the median of five.
ENOUGH_SEEDS = 6
MOST_DRAWS = 2_000_000  #: values drawn for an interval; beyond 200 seeds there are fewer resamples for it
Z95 = statistics.NormalDist().inv_cdf(0.975)


def wilson(successes: float, trials: float, z: float = Z95) -> tuple[float, float]:
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
    """95 % percentile interval of the median (Efron 1979), from resamples drawn with a fixed seed.

    The values' order does not matter, values of the other sign give the mirrored interval, and infinite values are
    taken: an end of the interval may then be infinite. Of an odd number of values, from 5 to 59, it covers the true
    median in 87.5 to 96.5 of 100 cases, counted exactly. Up to five values it is their range.
    """
    data = np.sort(np.asarray(values, dtype=float))
    low, high = _middle_ranks(len(data), min(resamples, max(1000, MOST_DRAWS // len(data))))
    with np.errstate(invalid="ignore"):
        return outer((data[low] + data[high]) / 2)


def outer(medians: np.ndarray) -> tuple[float, float]:
    """The 2.5 % and the 97.5 % quantile, both values that occur; nan (−∞ with +∞) may be anything."""
    k = int(0.025 * (len(medians) - 1))
    lowest, highest = (np.where(np.isnan(medians), anything, medians) for anything in (-np.inf, np.inf))
    last = len(medians) - 1 - k
    return float(np.partition(lowest, k)[k]), float(np.partition(highest, last)[last])


@functools.lru_cache(maxsize=256)
def _middle_ranks(count: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """The ranks of the one or two middle values in each resample; half of the resamples mirror the others."""
    draws = np.sort(np.random.default_rng(0).integers(0, count, (-(-resamples // 2), count)), axis=1)
    draws = np.concatenate([draws, count - 1 - draws[:, ::-1]])
    return draws[:, (count - 1) // 2].copy(), draws[:, count // 2].copy()


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided p of so uneven a split, or a more uneven one, if either side were as likely; ties left out."""
    trials = wins + losses
    tail = sum(math.comb(trials, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**trials)))


def fisher_exact(successes: int, failures: int, other_successes: int, other_failures: int) -> float:
    """Two-sided p of a 2×2 table (Fisher 1935): are two shares of successes equal?

    Of k successes in m + n trials, x fall among the first m with p(x) = C(m, x)·C(n, k−x) / C(m+n, k) if the shares
    are equal. The p-value is the sum of p(x) over all tables that are no likelier than the one observed, in integers.

    Raises: ValueError for a negative count.
    """
    if min(successes, failures, other_successes, other_failures) < 0:
        raise ValueError("counts can't be negative")
    m, n = successes + failures, other_successes + other_failures
    k = successes + other_successes
    ways = {x: math.comb(m, x) * math.comb(n, k - x) for x in range(max(0, k - n), min(m, k) + 1)}
    as_rare = sum(count for count in ways.values() if count <= ways[successes])
    return float(Fraction(as_rare, math.comb(m + n, k)))


#: Where the smaller sample has at most this many values, none tied, Mann & Whitney's p is exact.
EXACT_UP_TO = 8


def share_above(a: Sequence[float], b: Sequence[float]) -> float:
    """How often a value of `a` is above one of `b`: U/mn, ties being half. NaN if a side is empty."""
    return _u(np.asarray(a, dtype=float), np.asarray(b, dtype=float)) / (len(a) * len(b)) if a and b else math.nan


def _u(x: np.ndarray, y: np.ndarray) -> float:
    """Σ_ij [x_i > y_j] + ½[x_i = y_j], from (m,) and (n,)."""
    return float((x[:, None] > y).sum() + (x[:, None] == y).sum() / 2)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of Mann & Whitney's U (1947): is a value of `a` as often above one of `b` as below?

    U = Σ_ij [a_i > b_j] + ½[a_i = b_j], of m and n values. Without ties, and up to eight values on one side, p is
    exact: twice the share of the C(m+n, m) orders with so extreme a U. Else it is twice the tail of a normal
    distribution with mean mn/2 and variance mn/12·(m+n+1 − Σ(t³−t)/((m+n)(m+n−1))), t being the sizes of the groups
    of ties, and with ½ for continuity (Lehmann 1975). Infinite values may stand for "later than all"; two of them are
    tied. 1 if a side is empty or all values are equal.

    Raises: ValueError for NaN, which has no rank.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("nan has no rank")
    m, n = len(x), len(y)
    if not m or not n:
        return 1.0
    u = max(_u(x, y), _u(y, x))
    ties = np.unique(np.concatenate([x, y]), return_counts=True)[1].astype(float)
    if min(m, n) <= EXACT_UP_TO and (ties == 1).all():
        ways = _orders_by_u(min(m, n), max(m, n))
        return min(1.0, float(Fraction(2 * sum(ways[int(u) :]), math.comb(m + n, m))))
    variance = m * n / 12 * (m + n + 1 - float((ties**3 - ties).sum()) / ((m + n) * (m + n - 1)))
    if variance <= 0:
        return 1.0
    z = (u - m * n / 2 - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(z / math.sqrt(2)))


@functools.lru_cache(maxsize=64)
def _orders_by_u(m: int, n: int) -> tuple[int, ...]:
    """How many of the C(m+n, m) orders of m and n values have U = 0 … mn: the coefficients of the Gaussian binomial
    Π_{k=1…m} (1 − q^{n+k}) / (1 − q^k)."""
    ways = [1] + [0] * (m * n)
    for k in range(1, m + 1):
        for u in range(m * n, n + k - 1, -1):
            ways[u] -= ways[u - n - k]
        for u in range(k, m * n + 1):
            ways[u] += ways[u - k]
    return tuple(ways)


def unsolved_last(steps: Sequence[int | None]) -> list[float]:
    """Updates to solve for `mann_whitney`: a run that did not solve the task (None) is later than all that did, and
    tied with the others that did not. Both sides must have had the same budget."""
    return [math.inf if step is None else float(step) for step in steps]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979), in the given order: of m values the i-th smallest becomes
    max over j ≤ i of min(1, (m − j + 1)·p_j). To call those below α significant is wrong, anywhere among them, with
    a chance of at most α."""
    m, largest = len(p_values), 0.0
    adjusted = [0.0] * m
    for rank, k in enumerate(sorted(range(m), key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, (m - rank) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation ρ, with middle ranks for ties; NaN where all of x or all of y are equal."""
    ranks = [_mid_ranks(np.asarray(values, dtype=float)) for values in (x, y)]
    a, b = (rank - rank.mean() for rank in ranks)
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else math.nan


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    """From 1 on; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    middle: np.ndarray = (last - (counts - 1) / 2)[which]
    return middle


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The range of up to five values, the bootstrap interval of the median from six on; None without any."""
    if not values:
        return None
    if len(values) < ENOUGH_SEEDS:
        return min(values), max(values)
    return bootstrap_median(values)


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
        """Earliest and latest up to five seeds, from six on the median's 95 % bootstrap interval. One that has not
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
        """Pairs whose order is unknown."""
        return len(self.bounds) - self.below - self.above - self.equal

    def median(self) -> Bounds:
        return median_of(self.bounds)

    def interval(self) -> Bounds:
        """Up to five pairs their range; from six on the median's 95 % bootstrap interval over pairs, at the lower
        end with every difference as low as it may be, at the upper with every one as high."""
        lows, highs = zip(*self.bounds, strict=True)
        if len(self.bounds) < ENOUGH_SEEDS:
            return min(lows), max(highs)
        return bootstrap_median(lows)[0], bootstrap_median(highs)[1]


def difference(a: Bounds, b: Bounds) -> Bounds:
    """The bounds of A − B. Two that never come, (∞, ∞), are equal."""
    if a == b and math.isinf(a[0]):
        return 0.0, 0.0
    low, high = a[0] - b[1], a[1] - b[0]
    return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)


def median_of(numbers: Sequence[Bounds]) -> Bounds:
    """The bounds of the median of numbers that lie within their bounds."""
    lows, highs = zip(*numbers, strict=True)
    return _middle(sorted(lows), -math.inf), _middle(sorted(highs), math.inf)


def _middle(ordered: Sequence[float], unknown: float) -> float:
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return unknown if math.isinf(low) and math.isinf(high) and low != high else (low + high) / 2
