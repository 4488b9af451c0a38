"""What the seeds of a run wrote, read once for all sections: series by tag, the gradient through time, samples.

The files may come from anywhere, or be half written: what isn't a number where one belongs is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnnlstm.record.files import read_lines
from rnnlstm.record.heatmap import log_ratio
from rnnlstm.record.naming import seed_folder
from rnnlstm.record.seed_record import FLOW, METRICS, SAMPLES
from rnnlstm.reporting.curves import Curve, aligned
from rnnlstm.reporting.runs import Run

#: Beginnings of the tags that the page shows.
WANTED = ("eval/", "baseline/", "clip/rate", "clip/norm_", "clip/largest/", "gate/", "gate_by_kind/")
TINY = -20.0  # log10 of a share; what vanishes passes through it before it is rounded to nothing
LONGEST = 4096  # lags of a gradient through time that are read

Series = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Flow:
    """The gradient through time in one state, log10 of its ratio to lag 0."""

    steps: list[int]  #: (S,) updates at which the probe looked
    by_step: np.ndarray  #: (S, K) by lag, the median over the seeds still training
    first: np.ndarray  #: (K,) at every seed's first look, their median
    last: np.ndarray  #: (K,) at every seed's last look, their median


class Records:
    """Records of runs, kept while a page is made."""

    def __init__(self) -> None:
        self._series: dict[Path, list[Series]] = {}
        self._flow: dict[Path, dict[str, Flow]] = {}

    def series(self, run: Run) -> list[Series]:
        """For each seed, the values of each tag by step."""
        if run.folder not in self._series:
            self._series[run.folder] = [_series(folder / METRICS) for folder in _seed_folders(run)]
        return self._series[run.folder]

    def tags(self, run: Run, beginning: str) -> list[str]:
        """Tags that begin so, in the order in which they were written."""
        return list({tag: None for seed in self.series(run) for tag in seed if tag.startswith(beginning)})

    def curve(self, run: Run, tag: str) -> Curve | None:
        """`tag` over training, a seed that ended early keeping its last value."""
        return aligned([seed.get(tag, {}) for seed in self.series(run)])

    def ends(self, run: Run, tag: str) -> tuple[float, float] | None:
        """The medians over seeds of the first and of the last finite value."""
        values = [[v for v in seed.get(tag, {}).values() if math.isfinite(v)] for seed in self.series(run)]
        found = [(v[0], v[-1]) for v in values if v]
        return (float(np.median([v[0] for v in found])), float(np.median([v[1] for v in found]))) if found else None

    def flow(self, run: Run) -> dict[str, Flow]:
        """By state, the gradient through time in the first layer, where the way to the input is longest."""
        if run.folder not in self._flow:
            self._flow[run.folder] = _flow(run)
        return self._flow[run.folder]

    @staticmethod
    def samples(run: Run) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Step and decoded sequences of the first seed that has any."""
        for folder in _seed_folders(run):
            lines = list(read_lines(folder / SAMPLES))
            for line in lines:
                step, samples = _whole(line.get("step")), line.get("samples")
                if step is not None and isinstance(samples, list):
                    yield step, [sample for sample in samples if isinstance(sample, dict)]
            if lines:
                return


def _seed_folders(run: Run) -> list[Path]:
    return [seed_folder(run.folder, seed["seed"]) for seed in run.seeds if _whole(seed.get("seed")) is not None]


def _whole(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return int(value) if fits else None  # type: ignore[call-overload]


def _series(path: Path) -> Series:
    found: Series = {}
    for line in read_lines(path):
        step = _whole(line.pop("step", None))
        if step is None:
            continue
        for tag, value in line.items():
            number = isinstance(value, float) or _whole(value) is not None
            if number and tag.startswith(WANTED):
                found.setdefault(tag, {})[step] = float(value)
    return found


def _flow(run: Run) -> dict[str, Flow]:
    looks: dict[str, list[list[tuple[int, np.ndarray]]]] = {}  # by state and seed
    for folder in _seed_folders(run):
        seed: dict[str, list[tuple[int, np.ndarray]]] = {}
        for line in read_lines(folder / FLOW):
            step = _whole(line.pop("step", None))
            for state, layers in line.items() if step is not None else ():
                if (norms := _norms(layers)) is not None:
                    seed.setdefault(state, []).append((step or 0, norms))
        for state, seen in seed.items():
            looks.setdefault(state, []).append(seen)
    return {state: _medians(seeds) for state, seeds in looks.items()}


def _norms(layers: object) -> np.ndarray | None:
    if not isinstance(layers, list) or not layers:
        return None
    try:
        norms = np.asarray(layers[0], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return norms[:LONGEST] if norms.ndim == 1 and len(norms) > 1 else None


def _medians(seeds: list[list[tuple[int, np.ndarray]]]) -> Flow:
    K = min(len(norms) for seen in seeds for _, norms in seen)
    by_step: dict[int, list[np.ndarray]] = {}
    for seen in seeds:
        for step, norms in seen:
            by_step.setdefault(step, []).append(log_ratio(norms[:K]))
    steps = sorted(by_step)
    with np.errstate(invalid="ignore"):
        rows = np.stack([np.median(by_step[step], axis=0) for step in steps])
        first, last = (np.median([log_ratio(seen[k][1][:K]) for seen in seeds], axis=0) for k in (0, -1))
    K = _reached(np.vstack([rows, first, last]))
    return Flow(steps, rows[:, :K], first[:K], last[:K])


def _reached(rows: np.ndarray) -> int:
    """Lags that the probe's sequences have. Beyond the longest nothing arrives, at once; a gradient that vanishes has
    become tiny before."""
    some = np.flatnonzero(~np.isneginf(rows).all(axis=0))
    beyond = some[-1] + 1 if len(some) else 0
    short = 1 < beyond < rows.shape[1] and np.nanmax(rows[:, beyond - 1]) > TINY
    return int(beyond) if short else rows.shape[1]
