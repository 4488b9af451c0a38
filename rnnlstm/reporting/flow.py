"""The gradient through time over training, as the probe recorded it: medians over the seeds of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnlstm.record.heatmap import log_ratio
from rnnlstm.reporting.runs import Run

TINY = -20.0  # log10 of a share; what vanishes passes through it before it is rounded to nothing
LONGEST = 4096  # lags that are shown

Looks = list[tuple[int, np.ndarray]]  # of one seed at one state: the update, and norms by lag


@dataclass(frozen=True)
class Flow:
    """The gradient through time in one state, log10 of its ratio to lag 0."""

    steps: list[int]  #: (S,) updates at which the probe looked
    by_step: np.ndarray  #: (S, K) by lag, the median over the seeds still training
    first: np.ndarray  #: (K,) at every seed's first look, their median
    last: np.ndarray  #: (K,) at every seed's last look, their median


def flows(run: Run) -> dict[str, Flow]:
    """By state, that of the network's first layer, where the way to the input is longest. Empty without a probe's
    record."""
    found: dict[str, list[Looks]] = {}
    for lines in run.flow:
        seed: dict[str, Looks] = {}
        for step, norms in lines:
            for state, layers in norms.items():
                if layers.shape[1] > 1:
                    seed.setdefault(state, []).append((step, layers[0, :LONGEST]))
        for state, looks in seed.items():
            found.setdefault(state, []).append(looks)
    return {state: _medians(seeds) for state, seeds in found.items()}


def _medians(seeds: list[Looks]) -> Flow:
    K = min(len(norms) for looks in seeds for _, norms in looks)  # seeds that were damaged may differ
    by_step: dict[int, list[np.ndarray]] = {}
    for looks in seeds:
        for step, norms in looks:
            by_step.setdefault(step, []).append(log_ratio(norms[:K]))
    steps = sorted(by_step)
    with np.errstate(invalid="ignore"):
        rows = np.stack([np.median(by_step[step], axis=0) for step in steps])
        first, last = (np.median([log_ratio(looks[k][1][:K]) for looks in seeds], axis=0) for k in (0, -1))
    K = _reached(np.vstack([rows, first, last]))
    return Flow(steps, rows[:, :K], first[:K], last[:K])


def _reached(rows: np.ndarray) -> int:
    """Lags that the probe's sequences have. Beyond the longest nothing arrives, at once; a gradient that vanishes has
    become tiny before."""
    some = np.flatnonzero(~np.isneginf(rows).all(axis=0))
    beyond = some[-1] + 1 if len(some) else 0
    short = 1 < beyond < rows.shape[1] and np.nanmax(rows[:, beyond - 1]) > TINY
    return int(beyond) if short else rows.shape[1]
