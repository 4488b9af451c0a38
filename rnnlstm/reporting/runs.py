"""Finished and unfinished runs, read from their folders."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnlstm.options import ConfigError, show
from rnnlstm.plain_yaml import read_yaml
from rnnlstm.record.files import read_json
from rnnlstm.record.naming import HOUSEKEEPING, flatten
from rnnlstm.record.seed_record import SUMMARY
from rnnlstm.reporting.folders import CONFIG, run_folders, seed_folders
from rnnlstm.reporting.liveness import settled


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
        for folder in run_folders(root):
            run = read_run(folder)
            if run is not None:
                found[folder.resolve()] = run
    if not found:
        raise ConfigError(f"no runs in {', '.join(places)}")
    return sorted(found.values(), key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    losses = [loss for loss in run.values("loss") if not math.isnan(loss)]
    loss, length = statistics.median(losses) if losses else math.inf, run.config.get("task.length")
    return str(run.config.get("task.name")), length if isinstance(length, int) else 0, loss, str(run.folder)


def read_run(folder: Path) -> Run | None:
    """The run in `folder`; None if it is no run folder, or none of its seeds has begun."""
    try:
        tree = read_yaml(folder / CONFIG)
    except (OSError, ValueError):
        return None
    if (
        not isinstance(tree, dict)
        or not isinstance(tree.get("task"), dict)
        or not isinstance(tree.get("model"), dict)
    ):
        return None
    summaries = [s for place in seed_folders(folder).values() if (s := read_json(place / SUMMARY)) is not None]
    if not summaries:
        return None
    config = {key: value for key, value in flatten(tree) if key not in HOUSEKEEPING or key == "name"}
    return Run(folder, config, sorted(settled(folder, summaries), key=lambda s: s.get("seed", 0)))


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
    return [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in names]


def _label(run: Run, differing: Iterable[str], left_out: Sequence[str] = UNLABELLED) -> str:
    words = [str(run.config["model.name"])] if "model.name" in run.config else []
    differing = list(differing)
    ends = [key.rpartition(".")[2] for key in differing]
    for key, end in zip(differing, ends, strict=True):
        if key != "model.name" and key not in left_out and key in run.config:
            name = key.removesuffix(".name") if end == "name" else end if ends.count(end) == 1 else key
            words.append(f"{name}={show(run.config[key])}")
    return ", ".join(words) or "all"
