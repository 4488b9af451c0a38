"""Curves over training, read from the records: a tag's values, seed by seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    by_seed = [seed.get(tag, {}) for seed in run.series]
    steps = np.array(sorted({step for values in by_seed for step in values}))
    if not len(steps):
        return None
    table = np.full((len(by_seed), len(steps)), np.nan)
    for row, values in zip(table, by_seed, strict=True):
        for k, step in enumerate(steps):
            row[k] = values.get(int(step), row[k - 1] if k else np.nan)
    return Curve(steps, table)
