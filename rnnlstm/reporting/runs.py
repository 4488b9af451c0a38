"""Finished and unfinished runs, read from their folders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnlstm.options import ConfigError, show
from rnnlstm.plain_yaml import read_yaml
from rnnlstm.record.files import read_json
from rnnlstm.record.naming import HOUSEKEEPING, flatten
from rnnlstm.record.seed_record import SUMMARY


@dataclass(frozen=True)
class Run:
    """One configuration and what its seeds came to."""

    folder: Path
    config: dict[str, Any]  #: flat: `model.init` → `chrono`
    seeds: list[dict[str, Any]]  #: the summaries, by seed

    def values(self, key: str) -> list[float]:
        """A summary's number over the seeds that have it."""
        return [float(seed[key]) for seed in self.seeds if isinstance(seed.get(key), int | float)]

    @property
    def solved(self) -> int:
        return sum(bool(seed.get("solved")) for seed in self.seeds)


def find_runs(places: Iterable[str]) -> list[Run]:
    """Every run below `places`: by task and length, the lowest held-out loss first.

    Raises: ConfigError if a place isn't there, or no run is found in any.
    """
    places = list(places)
    found: dict[Path, Run] = {}
    for place in places:
        try:
            root = Path(place).expanduser()
            there = root.exists()
        except (OSError, ValueError, RuntimeError) as error:  # too long, or ~ of nobody
            raise ConfigError(f"{show(place)}: {error}") from None
        if not there:
            raise ConfigError(f"{place}: no such folder")
        for path in sorted(root.rglob("config.yaml")):
            run = read_run(path.parent)
            if run is not None:
                found[path.parent.resolve()] = run
    if not found:
        raise ConfigError(f"no runs in {', '.join(places)}")
    return sorted(found.values(), key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    losses = run.values("loss")
    loss = statistics.median(losses) if losses else math.inf
    return run.config["task.name"], run.config.get("task.length") or 0, loss, str(run.folder)


def read_run(folder: Path) -> Run | None:
    """The run in `folder`; None if it is no run folder, or none of its seeds has begun."""
    try:
        tree = read_yaml(folder / "config.yaml")
    except (OSError, ValueError):
        return None
    if (
        not isinstance(tree, dict)
        or not isinstance(tree.get("task"), dict)
        or not isinstance(tree.get("model"), dict)
    ):
        return None
    summaries = [s for path in folder.glob(f"seed_*/{SUMMARY}") if (s := read_json(path)) is not None]
    if not summaries:
        return None
    config = {key: value for key, value in flatten(tree) if key not in HOUSEKEEPING or key == "name"}
    return Run(folder, config, sorted(summaries, key=lambda s: s.get("seed", 0)))


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
    return label_by(run, differing_keys(runs))


def label_by(run: Run, differing: Iterable[str]) -> str:
    """`label`, from the keys in which the configurations differ: for many of them, found once."""
    words = [str(run.config["model.name"])]
    for key in differing:
        if key != "model.name" and key not in UNLABELLED and key in run.config:
            name = key.rpartition(".")[2] if not key.endswith(".name") else key.removesuffix(".name")
            words.append(f"{name}={show(run.config[key])}")
    return ", ".join(words)


def by_task(runs: Iterable[Run]) -> dict[tuple[object, object], list[Run]]:
    """The runs of each task and length."""
    groups: dict[tuple[object, object], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config["task.name"], run.config.get("task.length")), []).append(run)
    return groups
