"""Curves over training, read from the records: evaluations by seed, and the gradient through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rnnlstm.record.files import read_lines
from rnnlstm.record.seed_record import FLOW, METRICS
from rnnlstm.reporting.runs import Run


@dataclass(frozen=True)
class Curve:
    """One number over training, of several seeds."""

    steps: np.ndarray  #: (S,)
    values: np.ndarray  #: (seeds, S); NaN where a seed has none

    def band(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Low, median, high at each step: the range under five seeds, the quartiles from five on."""
        lowest, highest = (0, 1) if len(self.values) < 5 else (0.25, 0.75)
        low, median, high = np.nanquantile(self.values, (lowest, 0.5, highest), axis=0)
        return low, median, high


def evaluation_curve(run: Run, tag: str) -> Curve | None:
    """`tag` at every evaluation. A seed that ended early (solved, say) keeps its last value: its weights stayed."""
    by_seed: list[dict[int, float]] = []
    for seed in run.seeds:
        lines = read_lines(run.folder / f"seed_{seed['seed']}" / METRICS)
        by_seed.append({line["step"]: line[tag] for line in lines if tag in line})
    return aligned(by_seed)


def aligned(by_seed: Sequence[Mapping[int, float]]) -> Curve | None:
    """The curve of values by step of several seeds, a seed's last value kept to the end. None without any."""
    steps = np.array(sorted({step for values in by_seed for step in values}))
    if not len(steps):
        return None
    table = np.full((len(by_seed), len(steps)), np.nan)
    for row, values in zip(table, by_seed, strict=True):
        for k, step in enumerate(steps):
            row[k] = values.get(int(step), row[k - 1] if k else np.nan)
    return Curve(steps, table)


def flow_map(run: Run, state: str = "hidden") -> tuple[list[int], np.ndarray] | None:
    """Training steps, and log10 of the gradient's ratio to lag 0: (steps, K) by lag, the median over seeds.

    The first layer of the network, where the way to the input is longest. None without a probe's record.
    """
    maps: dict[int, list[np.ndarray]] = {}
    for seed in run.seeds:
        for line in read_lines(run.folder / f"seed_{seed['seed']}" / FLOW):
            if state in line:
                maps.setdefault(line["step"], []).append(np.asarray(line[state][0], dtype=float))
    if not maps:
        return None
    steps = sorted(maps)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = [np.median([np.log10(n) - np.log10(n[0]) for n in maps[step]], axis=0) for step in steps]
    return steps, np.stack(rows)
