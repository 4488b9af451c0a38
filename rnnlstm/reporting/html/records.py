"""What the seeds of a run wrote, as sections ask for it: curves, the gradient through time, samples."""

from __future__ import annotations

import math

import numpy as np

from rnnlstm.record.folders import SAMPLES
from rnnlstm.record.reader import Sample, read_samples
from rnnlstm.reporting.curves import Curve, evaluation_curve
from rnnlstm.reporting.flow import Flow, flows
from rnnlstm.reporting.runs import Run


class Records:
    """Records of runs. What is worked out from them is kept while a page is made."""

    def __init__(self) -> None:
        self._flow: dict[int, tuple[Run, dict[str, Flow]]] = {}

    @staticmethod
    def tags(run: Run, beginning: str) -> list[str]:
        """Tags that begin so, in the order in which they were written."""
        return list({tag: None for seed in run.series for tag in seed if tag.startswith(beginning)})

    @staticmethod
    def curve(run: Run, tag: str) -> Curve | None:
        """`tag` over training, a seed that ended early keeping its last value."""
        return evaluation_curve(run, tag)

    @staticmethod
    def ends(run: Run, tag: str) -> tuple[float, float] | None:
        """The medians over seeds of the first and of the last finite value."""
        values = [[v for v in seed.get(tag, {}).values() if math.isfinite(v)] for seed in run.series]
        found = [(v[0], v[-1]) for v in values if v]
        return (float(np.median([v[0] for v in found])), float(np.median([v[1] for v in found]))) if found else None

    def flow(self, run: Run) -> dict[str, Flow]:
        """By state, the gradient through time."""
        if id(run) not in self._flow:
            self._flow[id(run)] = run, flows(run)  # kept with it, so that its id stays its own
        return self._flow[id(run)][1]

    @staticmethod
    def samples(run: Run) -> list[tuple[int, list[Sample]]]:
        """Step and decoded sequences of the first seed that has any."""
        return next((looks for folder, _ in run.records if (looks := list(read_samples(folder / SAMPLES)))), [])
