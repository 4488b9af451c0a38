"""A run's TensorBoard events, written again from its record."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import printable
from rnnlstm.record.aggregate import Aggregate
from rnnlstm.record.files import locked
from rnnlstm.record.folders import AGGREGATE, METRICS, seed_folders
from rnnlstm.record.reader import read_metrics
from rnnlstm.record.seed_view import SeedView
from rnnlstm.record.summary import read_summaries

LOG = logging.getLogger("rnnlstm")


@dataclass(frozen=True)
class Rebuilt:
    """How much the events of a run were written from."""

    seeds: int
    lines: int  #: of metrics, over all seeds


def rebuild_events(folder: Path, configuration: Mapping[str, Any], headlines: Mapping[str, str]) -> Rebuilt:
    """Replace the events of each seed and of the aggregate by new ones, one after another, each as a whole.

    `configuration` is the run's, flat; `headlines` the tasks' headline metrics, by the task's name: the table of
    hyperparameters has a column for each. Times of day are those of now: the record holds none.
    Raises: BusyError if another process has the folder; OSError if it can't be written.
    """
    with locked(folder):
        readable, problems = read_summaries(folder)
        for problem in problems:
            LOG.warning("%s; the seed is shown without its end", printable(problem))
        summaries = {summary["seed"]: summary for summary in readable}
        task = configuration["task.name"]
        metric = next((s["metric_name"] for s in readable if s["metric_name"]), headlines.get(task, "metric"))
        group = "/".join(folder.resolve().parts[-2:])
        seeds = seed_folders(folder)
        lines = 0
        for seed, place in seeds:
            view = SeedView(place, strict=True)
            try:
                view.begin(configuration, group)
                lines += view.replay()
                summary = summaries.get(seed)
                if summary is not None and summary["status"] != "running":
                    view.end(summary["steps"], summary["status"])
                view.publish()
            finally:
                view.close()
        if seeds:
            plateaus = _plateaus(seeds[0][1])
            aggregate = Aggregate(folder / AGGREGATE, task, metric, plateaus, list(headlines.values()), strict=True)
            aggregate.rebuild(folder)
            aggregate.close()
        return Rebuilt(len(seeds), lines)


def _plateaus(folder: Path) -> list[str]:
    """Tags of the task's plateaus, from a seed's first evaluation."""
    for _, values in read_metrics(folder / METRICS, quiet=True):
        if "baseline/loss" in values:
            return [tag for tag in values if tag.startswith("baseline/") and tag != "baseline/loss"]
    return []
