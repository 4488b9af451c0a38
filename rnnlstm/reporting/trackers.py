"""Runs copied from their record to an experiment tracker, a run of the tracker for each seed."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import ConfigError
from rnnlstm.record.folders import METRICS, seed_folder
from rnnlstm.record.reader import read_metrics
from rnnlstm.reporting.runs import Run

MLFLOW_BATCH = 1000  #: metrics that MLflow takes at once
MLFLOW_TAG = "rnnlstm.identity"


@dataclass(frozen=True)
class ExportedSeed:
    """One seed of a run, as a tracker takes it."""

    folder: Path
    group: str  #: the run folder's name
    name: str  #: `seed_0`
    config: dict[str, Any]  #: flat: `model.init` → `chrono`
    summary: dict[str, Any]

    @property
    def identity(self) -> str:
        """The same at every export, of letters that every tracker takes: hash of the configuration, and seed."""
        return f"{self.group.rpartition('-')[2]}-{self.name}".replace("_", "-")

    @property
    def lines(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Step and numbers of each line of the record; not every tracker takes what is not finite: left out."""
        for step, values in read_metrics(self.folder / METRICS):
            yield step, {tag: value for tag, value in values.items() if math.isfinite(value)}


def exported_seeds(runs: Iterable[Run]) -> Iterator[ExportedSeed]:
    for run in runs:
        for summary in run.seeds:
            folder = seed_folder(run.folder, summary["seed"])
            yield ExportedSeed(folder, run.folder.name, folder.name, run.config, summary)


def export(tracker: str, project: str, seeds: Sequence[ExportedSeed]) -> Iterator[tuple[ExportedSeed, int | None]]:
    """Copies each seed; yields it with the number of lines copied, None if it was there already.

    Raises: ConfigError if the tracker's package is missing or refuses.
    """
    try:
        module = importlib.import_module(tracker)
    except ImportError:
        raise ConfigError(f'{tracker} is not installed; pip install "rnnlstm[{tracker}]"') from None
    begin: Callable[[Any, str], Callable[[ExportedSeed], int | None]] = {
        "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio,
    }[tracker]  # fmt: skip
    try:
        copy = begin(module, project)
        for seed in seeds:
            yield seed, copy(seed)
    except ConfigError:
        raise
    except Exception as error:  # each tracker has exceptions of its own, for a server that is not there, say
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{tracker} failed: {first or type(error).__name__}") from error


def _wandb(wandb: Any, project: str) -> Callable[[ExportedSeed], int]:
    def copy(seed: ExportedSeed) -> int:
        run = wandb.init(
            project=project,
            group=seed.group,
            name=f"{seed.group}/{seed.name}",
            id=seed.identity,
            config=seed.config,
            settings=wandb.Settings(console="off", silent=True),
        )
        lines = 0
        for step, values in seed.lines:
            run.log(values, step=step)
            lines += 1
        run.summary.update(seed.summary)
        run.finish()
        return lines

    return copy


def _mlflow(mlflow: Any, project: str) -> Callable[[ExportedSeed], int | None]:
    entities = importlib.import_module("mlflow.entities")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(project)
    there = client.create_experiment(project) if experiment is None else experiment.experiment_id

    def copy(seed: ExportedSeed) -> int | None:
        if client.search_runs([there], f"tags.`{MLFLOW_TAG}` = '{seed.identity}'", max_results=1):
            return None
        now = int(1000 * time.time())
        run = client.create_run(there, run_name=f"{seed.group}/{seed.name}").info.run_id
        params = [entities.Param(key, str(value)) for key, value in seed.config.items()]
        client.log_batch(run, params=params)
        lines, metrics = 0, []
        for step, values in seed.lines:
            metrics += [entities.Metric(tag, value, now, step) for tag, value in values.items()]
            lines += 1
        final = {name: value for name, value in seed.summary.items() if _is_number(value)}
        metrics += [entities.Metric(f"summary/{name}", float(value), now, 0) for name, value in final.items()]
        for start in range(0, len(metrics), MLFLOW_BATCH):
            client.log_batch(run, metrics=metrics[start : start + MLFLOW_BATCH])
        # Last: without the tag, a run that was interrupted is copied again.
        tags = [entities.RunTag(MLFLOW_TAG, seed.identity), entities.RunTag("group", seed.group)]
        client.log_batch(run, tags=tags)
        client.set_terminated(run, "FINISHED" if seed.summary["status"] == "done" else "FAILED")
        return lines

    return copy


def _trackio(trackio: Any, project: str) -> Callable[[ExportedSeed], int]:
    def copy(seed: ExportedSeed) -> int:
        config = {**seed.config, **{f"summary.{name}": value for name, value in seed.summary.items()}}
        run = trackio.init(project=project, group=seed.group, name=seed.identity, config=config, embed=False)
        lines = 0
        for step, values in seed.lines:
            run.log(values, step=step)
            lines += 1
        run.finish()
        return lines

    return copy


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
