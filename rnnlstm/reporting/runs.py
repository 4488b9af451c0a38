"""Finished and unfinished runs, read from their folders."""

from __future__ import annotations

import logging
import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rnnlstm.config.errors import ConfigError, printable, show
from rnnlstm.record.folders import FLOW, METRICS, find_run_folders, seed_folder
from rnnlstm.record.reader import read_flow, read_metrics
from rnnlstm.record.summary import read_summaries
from rnnlstm.reporting.liveness import settled

LOG = logging.getLogger("rnnlstm")

#: Seeds whose records are read for a curve: the records of thousands would take minutes.
MOST_RECORDS = 64
#: Beginnings of the tags that pictures and pages show; what is logged at every update is not among them.
SHOWN = ("eval", "baseline/", "clip/", "gate/", "gate_by_kind/")


@dataclass(frozen=True)
class Run:
    """One configuration and what its seeds came to."""

    folder: Path
    config: dict[str, Any]  #: flat: `model.init` → `chrono`
    seeds: list[dict[str, Any]]  #: the summaries, by seed; `status` is `stopped` where nobody runs any more

    @property
    def members(self) -> tuple[Run, ...]:
        """The runs whose seeds these are: this one, or those of a group, in the order of `seeds`."""
        return (self,)

    def values(self, key: str) -> list[float]:
        """A summary's number over the seeds that have it."""
        return [float(seed[key]) for seed in self.seeds if isinstance(seed.get(key), int | float)]

    @property
    def records(self) -> list[tuple[Path, dict[str, Any]]]:
        """The folder and the summary of each seed; of very many, some drawn at random, always the same."""
        found = [(seed_folder(run.folder, seed["seed"]), seed) for run in self.members for seed in run.seeds]
        return found if len(found) <= MOST_RECORDS else random.Random(0).sample(found, MOST_RECORDS)

    @cached_property
    def series(self) -> list[dict[str, dict[int, float]]]:
        """For each seed, the values by step of each tag that begins with one of `SHOWN`."""
        return [_series(folder, quiet=not seed["steps"]) for folder, seed in self.records]

    @cached_property
    def flow(self) -> list[list[tuple[int, dict[str, np.ndarray]]]]:
        """Steps and gradient norms by state, (L, K), of each seed's looks."""
        return [list(read_flow(folder / FLOW)) for folder, _ in self.records]

    @property
    def solved(self) -> int:
        return sum(bool(seed.get("solved")) for seed in self.seeds)


def find_runs(places: Iterable[str]) -> list[Run]:
    """Every run below `places`: by task and length, the lowest held-out loss first.

    A file that is damaged is named in a warning, and what it is of is left out.

    Raises: ConfigError if a place isn't there, or no run is found in any.
    """
    places = list(places)
    found = []
    for folder, config in find_run_folders(places).items():
        try:
            summaries, problems = read_summaries(folder)
        except OSError as error:
            summaries, problems = [], [f"{folder}: can't be read: {error.strerror}"]
        for problem in problems:
            LOG.warning("%s; the seed is left out", printable(problem))
        if summaries:
            found.append(Run(folder, config, settled(folder, summaries)))
    if not found:
        raise ConfigError(f"no runs in {', '.join(show(place) for place in places)}: none has a summary of a seed")
    return sorted(found, key=_order)


def _series(folder: Path, quiet: bool) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for step, values in read_metrics(folder / METRICS, quiet):
        for tag, value in values.items():
            if tag.startswith(SHOWN):
                found.setdefault(tag, {})[step] = value
    return found


def _order(run: Run) -> tuple[Any, ...]:
    losses = [loss for loss in run.values("loss") if not math.isnan(loss)]
    loss, length = statistics.median(losses) if losses else math.inf, run.config.get("task.length")
    return str(run.config.get("task.name")), length if isinstance(length, int) else 0, loss, str(run.folder)


def by_task(runs: Iterable[Run]) -> dict[tuple[object, object], list[Run]]:
    """The runs of each task and length."""
    groups: dict[tuple[object, object], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config.get("task.name"), run.config.get("task.length")), []).append(run)
    return groups


def task_title(task: object, length: object) -> str:
    """`keyword, T = 100`; a group of runs need have neither in common."""
    return ", ".join([str(task or "several tasks"), *([] if length is None else [f"T = {length}"])])


def differing_keys(runs: Iterable[Run]) -> list[str]:
    """Keys that two runs have with different values, in the configuration's order."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.config.items():
            values.setdefault(key, set()).add(repr(value))
    return [key for key, seen in values.items() if len(seen) > 1]


#: Differing keys that say how long a run may go on, not what it is: left out of labels.
UNLABELLED = ("train.steps", "task.name", "task.length", "train.stop_when_solved")


def label(run: Run, runs: Iterable[Run]) -> str:
    """A configuration in few words: its model, then what tells it from the others."""
    return _label(run, differing_keys(runs))


def labels(runs: Sequence[Run], longest: int = 1000) -> list[str]:
    """The label of each, in which also task, length and the like stand if some would be the same without; cut to so
    many characters."""
    differing = differing_keys(runs)
    names = [_label(run, differing) for run in runs]
    if len(set(names)) < len(names):
        names = [_label(run, differing, ()) for run in runs]
    return [shortened(name, longest) for name in names]


def shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _label(run: Run, differing: Iterable[str], left_out: Sequence[str] = UNLABELLED) -> str:
    words = [str(run.config["model.name"])] if "model.name" in run.config else []
    differing = list(differing)
    ends = [key.rpartition(".")[2] for key in differing]
    for key, end in zip(differing, ends, strict=True):
        if key != "model.name" and key not in left_out and key in run.config:
            name = key.removesuffix(".name") if end == "name" else end if ends.count(end) == 1 else key
            words.append(f"{name}={show(run.config[key])}")
    return ", ".join(words) or "all"
