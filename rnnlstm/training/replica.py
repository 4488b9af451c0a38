"""One replica in training: its counts, scores and status, and its record on disk."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from torch import Tensor

from rnnlstm.record.folders import flatten
from rnnlstm.record.seed_record import SeedRecord
from rnnlstm.record.summary import FINISHED, Summary
from rnnlstm.training.clip import ClipEvent
from rnnlstm.training.plan import Plan

#: Norms that the quantiles between two evaluations are taken from, at most.
WINDOW = 4096
MOST_KEPT = 65_536  #: numbers that a `Subsample` keeps at most


class SubsampleState(TypedDict):
    """All entries that a checkpoint holds of a `Subsample`."""

    most: int
    stride: int
    count: int
    kept: list[float]


class SinceLineState(TypedDict):
    """All entries that a checkpoint holds of a `SinceLine`."""

    updates: int
    fired: int
    max_norm: float
    min_coefficient: float | None


class _AlwaysSaved(TypedDict):
    status: str
    reason: str | None
    updates: int
    fired: int
    steps_to_solve: int | None
    speed: float | None
    scores: dict[str, float]
    norms: SubsampleState
    window: list[SubsampleState]  #: norms before and after clipping
    largest: dict[str, int]
    lengths: dict[str, int]  #: of the record's files, in bytes


class ReplicaState(_AlwaysSaved, total=False):
    """All entries that a checkpoint holds of a replica, beside its weights."""

    precision: dict[str, float]  #: checkpoints of earlier versions lack these
    since_line: SinceLineState
    best_loss: float  #: the lowest held-out loss; not there before the first evaluation
    best: dict[str, Tensor]  #: the weights that had it


class Replica:
    """Counts, scores and status of the replica with this seed, and their `record` on disk."""

    def __init__(
        self,
        plan: Plan,
        seed: int,
        folder: Path,
        files: ExitStack,
        parameters: int,
        state: ReplicaState | None = None,
    ) -> None:
        """`files` closes the record. With a `state`, of an earlier `state()`, the replica resumes from it, and its
        record is cut back to what it was then."""
        self.plan, self.seed, self.parameters = plan, seed, parameters
        self.record = SeedRecord(folder, files, state and state["lengths"])
        self.status = "running"  # running, done, diverged, failed or interrupted
        self.reason: str | None = None  # why it diverged or failed
        self.updates = self.fired = 0
        self.norms = Subsample()  # Euclidean, before clipping
        self._window = (Subsample(WINDOW), Subsample(WINDOW))  # what clipping limits, since the last evaluation
        self._since_line = SinceLine()
        self._largest: Counter[str] = Counter()  # how often each parameter was the largest of a fired update
        self.steps_to_solve: int | None = None
        self.scores: dict[str, float] = {}  # the latest evaluation
        self.precision: dict[str, float] = {}  # errors of mixed precision, at the latest evaluation
        self.best: tuple[float, dict[str, Tensor]] | None = None  # the lowest held-out loss, and its weights
        self.speed: float | None = None
        self.checkpoint = 0  # the update of the newest checkpoint
        self._final: ReplicaState | None = None  # the state in which it finished
        if state is not None:
            self._load_state(state)
        self.write_summary()
        configuration = dict(flatten(plan.config.tree))
        self.record.begin(configuration, "/".join(folder.parts[-3:-1]))
        if state is not None:
            self.record.replay()
        if not self.running:  # it had finished before the checkpoint
            self._final = state
            self.record.end(self.updates, self.status)

    def state(self) -> ReplicaState:
        """All that changes in training, but for the weights, as plain values. The record is on the disk by then."""
        if self._final is not None:
            return self._final
        state: ReplicaState = {
            "status": self.status,
            "reason": self.reason,
            "updates": self.updates,
            "fired": self.fired,
            "steps_to_solve": self.steps_to_solve,
            "speed": self.speed,
            "scores": dict(self.scores),
            "precision": dict(self.precision),
            "norms": self.norms.state(),
            "window": [window.state() for window in self._window],
            "since_line": self._since_line.state(),
            "largest": dict(self._largest),
            "lengths": self.record.sync(),
        }
        if self.best is not None:
            state["best_loss"], state["best"] = self.best
        return state

    def _load_state(self, state: ReplicaState) -> None:
        self.status, self.reason = state["status"], state["reason"]
        self.updates, self.fired = state["updates"], state["fired"]
        self.checkpoint = self.updates
        self.steps_to_solve, self.speed = state["steps_to_solve"], state["speed"]
        self.scores, self.precision = dict(state["scores"]), dict(state.get("precision", {}))
        self.best = (state["best_loss"], state["best"]) if "best" in state else None
        self.norms = Subsample.restored(state["norms"])
        before, after = (Subsample.restored(window) for window in state["window"])
        self._window, self._largest = (before, after), Counter(state["largest"])
        if "since_line" in state:
            self._since_line = SinceLine(**state["since_line"])

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def clip_rate(self) -> float:
        return self.fired / self.updates if self.updates else 0.0

    def updated(self, clip: ClipEvent) -> None:
        """Count one update and its clipping."""
        self.updates += 1
        self.norms.add(clip.euclidean_before)
        self._since_line.add(clip)
        for window, norm in zip(self._window, (clip.norm_before, clip.norm_after), strict=True):
            window.add(norm)
        if clip.fired:
            self.fired += 1
            self._largest[clip.largest_parameter] += 1
            self.record.clip_event(clip.line())

    def training_values(self, loss: float, metrics: Mapping[str, float], clip: ClipEvent) -> dict[str, float]:
        """The values logged for an update, by tag."""
        values = {"train/loss": loss, **{f"train/{name}": value for name, value in metrics.items()}}
        values |= {"grad/norm_before_clip": clip.euclidean_before, "grad/norm_after_clip": clip.euclidean_after}
        values |= {"clip/fired": float(clip.fired), "clip/rate": self.clip_rate}
        if clip.coefficient is not None:
            values["clip/coefficient"] = clip.coefficient
        if clip.clipped_share is not None:
            values["clip/clipped_share"] = clip.clipped_share
        if clip.kind == "norm" and clip.threshold is not None:
            # A threshold of another norm has no place among Euclidean norms in a chart: it has a tag of its own.
            limit = "clip/threshold" if clip.norm_type == 2 else f"clip/threshold_norm_{clip.norm_type}"
            values[limit] = clip.threshold
        values |= self.values_since_line()
        if self.plan.config.probe.name != "off":
            values |= {f"grad_param/{name}": norm for name, norm in clip.norms.items()}
        return values

    def values_since_line(self) -> dict[str, float]:
        """By tag: clipping over all updates since this was called before; nothing if there has been none."""
        values = self._since_line.values()
        self._since_line = SinceLine()
        return values

    def clipping_values(self) -> dict[str, float]:
        """What `probe=full` adds at an evaluation, by tag: norms since the one before, and how often each parameter
        was the largest of a fired update."""
        window, self._window = self._window, (Subsample(WINDOW), Subsample(WINDOW))
        values: dict[str, float] = {}
        if self.plan.config.probe.name != "full":
            return values
        for name, norms in zip(("before", "after"), window, strict=True):
            for q, norm in zip(("q10", "q50", "q90"), norms.quantiles((0.1, 0.5, 0.9)) or [], strict=False):
                values[f"clip/norm_{name}_{q}"] = norm
        return values | {f"clip/largest/{name}": n / self.fired for name, n in self._largest.items()}

    def evaluated(
        self, step: int, scores: dict[str, float], precision: dict[str, float], weights: Mapping[str, Tensor]
    ) -> None:
        """Keep the scores of an evaluation at the training length, the errors of mixed precision, and the weights if
        their loss is the lowest so far."""
        self.scores, self.precision = scores, precision
        lowest = self.best is None or scores["loss"] < self.best[0]
        if lowest and math.isfinite(scores["loss"]):
            self.best = scores["loss"], {name: w.detach().cpu().clone() for name, w in weights.items()}
        if self.steps_to_solve is None and self.plan.task.solved(scores):
            self.steps_to_solve = step

    def finish(self, status: str, reason: str | None = None) -> None:
        self.status, self.reason = status, reason
        self.write_summary()
        self._final = self.state()
        self.record.end(self.updates, status)

    def summary(self) -> Summary:
        """The contents of summary.json."""
        task = self.plan.task
        median = self.norms.quantiles([0.5])
        summary: Summary = {
            "status": self.status,
            "reason": self.reason,
            "seed": self.seed,
            "steps": self.updates,
            "solved": self.steps_to_solve is not None,
            "steps_to_solve": self.steps_to_solve,
            "metric_name": task.metric_name,
            "metric": self.scores.get(task.metric_name),
            "loss": self.scores.get("loss"),
            "baseline": task.baseline,
            "parameters": self.parameters,
            "multiply_adds": self.plan.cost.multiply_adds,
            "state_size": self.plan.cost.state,
            "bytes_kept": self.plan.cost.bytes_kept,
            "ms_per_update": 1e3 / self.speed if self.speed else None,
            "clip_rate": self.clip_rate,
            "median_norm_before_clip": median[0] if median else None,
            "steps_per_second": self.speed,
            "backend": self.plan.backend,
        }
        for name, error in self.precision.items():
            summary[f"precision_{name}"] = error  # type: ignore[literal-required]
        if self.checkpoint and self.status not in FINISHED:
            summary["checkpoint"] = self.checkpoint
        return summary

    def saved(self, step: int) -> None:
        """Note that there is a checkpoint: if it is deleted, the run does not start again without a word."""
        if self.running:
            self.checkpoint = step
            self.write_summary()

    def write_summary(self) -> None:
        self.record.summary(self.summary())


@dataclass
class SinceLine:
    """Clipping over all updates since the last line of metrics, so that a line says what happened before it, too."""

    updates: int = 0
    fired: int = 0
    max_norm: float = 0.0  #: Euclidean, before clipping
    min_coefficient: float | None = None  #: by value there is none

    def add(self, clip: ClipEvent) -> None:
        self.updates += 1
        self.fired += clip.fired
        self.max_norm = max(self.max_norm, clip.euclidean_before)
        if clip.coefficient is not None:
            least = 1.0 if self.min_coefficient is None else self.min_coefficient
            self.min_coefficient = min(clip.coefficient, least)

    def values(self) -> dict[str, float]:
        """By tag; nothing without an update."""
        if not self.updates:
            return {}
        values = {"clip/window_rate": self.fired / self.updates, "grad/window_max_norm": self.max_norm}
        if self.min_coefficient is not None:
            values["clip/window_min_coefficient"] = self.min_coefficient
        return values

    def state(self) -> SinceLineState:
        """Plain values for the constructor."""
        return {
            "updates": self.updates,
            "fired": self.fired,
            "max_norm": self.max_norm,
            "min_coefficient": self.min_coefficient,
        }


class Subsample:
    """Quantiles of a stream in bounded memory: keeps every number up to `most`, then every second, and so on.

    Quantiles are exact up to `most` numbers, and those of an evenly spaced half or more of `most` beyond.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most, self.stride, self.count = most, 1, 0
        self.kept = array("d")

    def add(self, value: float) -> None:
        if self.count % self.stride == 0:
            if len(self.kept) == self.most:
                self.kept = self.kept[::2]
                self.stride *= 2
            if self.count % self.stride == 0:
                self.kept.append(value)
        self.count += 1

    def state(self) -> SubsampleState:
        """Plain values for `restored`."""
        return {"most": self.most, "stride": self.stride, "count": self.count, "kept": self.kept.tolist()}

    @staticmethod
    def restored(state: SubsampleState) -> Subsample:
        sample = Subsample(state["most"])
        sample.stride, sample.count, sample.kept = state["stride"], state["count"], array("d", state["kept"])
        return sample

    def quantiles(self, which: Sequence[float]) -> list[float] | None:
        """The quantiles asked for, each between 0 and 1; None without a number."""
        if not self.kept:
            return None
        return [float(q) for q in np.quantile(np.frombuffer(self.kept, dtype=np.float64), which)]
