"""What the seeds of a run recorded over training: curves of a tag, and the gradient through time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rnnlstm.record.heatmap import log_ratio

LARGEST = 1e30  #: what is larger, or no number, leaves a gap in a curve: axes can't be divided to hold it
TINY = -20.0  # log10 of a share; what vanishes passes through it before it is rounded to nothing
LONGEST = 4096  # lags that are shown

#: Fewer seeds than this have their range as a band.
QUARTILES_FROM = 5
#: Of one seed at one state: the update, and norms (K,) by lag.
Looks = list[tuple[int, np.ndarray]]


@dataclass(frozen=True)
class Curve:
    """One number over training, of several seeds."""

    steps: np.ndarray  #: (S,)
    values: np.ndarray  #: (seeds, S); NaN where a seed has none

    def band(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Low, median, high at each step: the range under five seeds, the quartiles from five on. NaN where no seed
        has a value, or one that can't be drawn."""
        lowest, highest = (0, 1) if len(self.values) < QUARTILES_FROM else (0.25, 0.75)
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # a step at which no seed has a value
            lines = np.nanquantile(self.values, (lowest, 0.5, highest), axis=0)
            low, median, high = np.where(abs(lines) <= LARGEST, lines, np.nan)
        return low, median, high


def evaluation_curve(series: Sequence[Mapping[str, Mapping[int, float]]], tag: str) -> Curve | None:
    """`tag` at every evaluation, from each seed's values by tag and step. A seed that ended early (it solved the
    task, say) keeps its last value: its weights stayed."""
    by_seed = [seed.get(tag, {}) for seed in series]
    steps = np.array(sorted({step for values in by_seed for step in values}))
    if not len(steps):
        return None
    table = np.full((len(by_seed), len(steps)), np.nan)
    for row, values in zip(table, by_seed, strict=True):
        for k, step in enumerate(steps):
            row[k] = values.get(int(step), row[k - 1] if k else np.nan)
    return Curve(steps, table)


@dataclass(frozen=True)
class Flow:
    """The gradient through time in one state, log10 of its ratio to lag 0."""

    steps: list[int]  #: (S,) updates at which the probe looked
    by_step: np.ndarray  #: (S, K) by lag, the median over the seeds still training
    first: np.ndarray  #: (K,) at every seed's first look, their median
    last: np.ndarray  #: (K,) at every seed's last look, their median


def flows_by_state(seeds: Sequence[Sequence[tuple[int, Mapping[str, np.ndarray]]]]) -> dict[str, Flow]:
    """By state, the flow of the network's first layer, where the way to the input is longest. `seeds`: of each seed
    the updates, and norms (L, K) by state. Empty without a probe's record."""
    by_state: dict[str, list[Looks]] = {}
    for lines in seeds:
        looks: dict[str, Looks] = {}
        for step, norms in lines:
            for state, layers in norms.items():
                if layers.shape[1] > 1:
                    looks.setdefault(state, []).append((step, layers[0, :LONGEST]))
        for state, of_state in looks.items():
            by_state.setdefault(state, []).append(of_state)
    return {state: _median_flow(of_seeds) for state, of_seeds in by_state.items()}


def _median_flow(seeds: list[Looks]) -> Flow:
    K = min(len(norms) for looks in seeds for _, norms in looks)  # seeds that were damaged may differ
    by_step: dict[int, list[np.ndarray]] = {}
    for looks in seeds:
        for step, norms in looks:
            by_step.setdefault(step, []).append(log_ratio(norms[:K]))
    steps = sorted(by_step)
    with np.errstate(invalid="ignore"):
        rows = np.stack([np.median(by_step[step], axis=0) for step in steps])
        first, last = (np.median([log_ratio(looks[k][1][:K]) for looks in seeds], axis=0) for k in (0, -1))
    K = _lags_in_use(np.vstack([rows, first, last]))
    return Flow(steps, rows[:, :K], first[:K], last[:K])


def _lags_in_use(rows: np.ndarray) -> int:
    """How many lags the probe's sequences have. At longer ones the gradient is exactly zero at once; a gradient that
    vanishes becomes tiny before."""
    some = np.flatnonzero(~np.isneginf(rows).all(axis=0))
    beyond = some[-1] + 1 if len(some) else 0
    short = 1 < beyond < rows.shape[1] and np.nanmax(rows[:, beyond - 1]) > TINY
    return int(beyond) if short else rows.shape[1]
