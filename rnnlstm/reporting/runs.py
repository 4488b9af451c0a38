"""Finished and unfinished runs, read from their folders."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rnnlstm.options import ConfigError, printable, show
from rnnlstm.record.naming import FLOW, METRICS, seed_folder
from rnnlstm.record.reader import read_flow, read_metrics
from rnnlstm.record.run_folder import find_run_folders
from rnnlstm.record.summary import read_summaries

LOG = logging.getLogger("rnnlstm")


@dataclass(frozen=True)
class Run:
    """One configuration and what its seeds came to."""

    folder: Path
    config: dict[str, Any]  #: flat: `model.init` → `chrono`
    seeds: list[dict[str, Any]]  #: the summaries, by seed

    def values(self, key: str) -> list[float]:
        """A summary's number over the seeds that have it."""
        return [float(seed[key]) for seed in self.seeds if isinstance(seed.get(key), int | float)]

    @cached_property
    def evaluations(self) -> list[list[tuple[int, dict[str, float]]]]:
        """Steps and values of the evaluations of each seed, baselines among them."""
        kept = ("eval", "baseline/")
        return [
            [
                (step, {tag: value for tag, value in values.items() if tag.startswith(kept)})
                for step, values in read_metrics(
                    seed_folder(self.folder, seed["seed"]) / METRICS, quiet=not seed["steps"]
                )
                if any(tag.startswith(kept) for tag in values)
            ]
            for seed in self.seeds
        ]

    @cached_property
    def flow(self) -> list[list[tuple[int, dict[str, np.ndarray]]]]:
        """Steps and gradient norms by state, (L, K), of each seed's looks."""
        return [list(read_flow(seed_folder(self.folder, seed["seed"]) / FLOW)) for seed in self.seeds]

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
            found.append(Run(folder, config, summaries))
    if not found:
        raise ConfigError(f"no runs in {', '.join(show(place) for place in places)}: none has a summary of a seed")
    return sorted(found, key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    losses = [loss for loss in run.values("loss") if not math.isnan(loss)]
    loss = statistics.median(losses) if losses else math.inf
    return run.config["task.name"], run.config.get("task.length") or 0, loss, str(run.folder)


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
    differing = differing_keys(runs)
    words = [str(run.config["model.name"])]
    for key in differing:
        if key != "model.name" and key not in UNLABELLED and key in run.config:
            name = key.rpartition(".")[2] if not key.endswith(".name") else key.removesuffix(".name")
            words.append(f"{name}={show(run.config[key])}")
    return ", ".join(words)
