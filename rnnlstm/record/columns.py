"""Columns of TensorBoard's HParams table: which keys tell the runs below one `runs_root` apart.

TensorBoard takes the columns from one run, of its own choice, and ticks five at most: those marked as differing, in
the order of their names. So each run's aggregate names every key, and marks the five that say most about the runs
beside it. A run that ends brings the aggregates of the others up to date.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from rnnlstm.config.schema import SECTIONS, default_section, default_top, options_of
from rnnlstm.record.folders import AGGREGATE, CONFIG, HOUSEKEEPING, read_configuration
from rnnlstm.record.summary import FINISHED, read_summaries
from rnnlstm.record.tensorboard import experiment, replace_first

MOST_SIBLINGS = 256  #: runs that are looked at; with more of them a run knows its own configuration alone
TICKED = 5  #: columns that TensorBoard's page shows before one ticks others
#: Keys that are looked at first, and those that are shown where less than five differ.
FIRST = ("task.name", "model.name", "task.variant", "task.length", "model.init")
LAST = ("eval.", "log.", "probe.", "checkpoint.", "train.steps")  # say how a run is looked at, and how long it is
USUAL = ("model.name", "model.init", "model.hidden_size", "optimizer.lr", "task.length")


def hparams(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a flat configuration that have a value and say what was computed, and the run's label (`name`)."""
    return {
        key: value
        for key, value in configuration.items()
        if value is not None and (key == "name" or key.partition(".")[0] not in HOUSEKEEPING)
    }


def ticked(mine: Mapping[str, Any], configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys to tick, at most five: first those that tell the flat configurations apart, each of which splits runs
    that the ones before leave together; then where `mine` differs from the defaults, then others that differ."""
    keys = list(dict.fromkeys(key for one in (mine, *configurations) for key in hparams(one)))
    keys.sort(key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
    values = {key: [repr(one.get(key)) for one in configurations] for key in keys}
    differing = [key for key in keys if len(set(values[key])) > 1]
    apart: list[str] = []
    groups: list[tuple[str, ...]] = [()] * len(configurations)
    for key in differing:
        split = [(*group, value) for group, value in zip(groups, values[key], strict=True)]
        if len(set(split)) > len(set(groups)):
            apart.append(key)
            groups = split
    first = [key for key in differing if key in FIRST]
    changed = sorted(off_default(mine), key=lambda key: key.startswith(LAST))
    order = (*apart, *first, *changed, *differing, *(key for key in USUAL if key in keys))
    return list(dict.fromkeys(order))[:TICKED]


def off_default(configuration: Mapping[str, Any]) -> list[str]:
    """Keys that differ from the defaults of the chosen task, model, optimiser and so on. Of a task or cell from a
    plugin only the keys that each has."""
    defaults: dict[str, Any] = dict(default_top())
    for section in SECTIONS:
        chosen = default_section(section, configuration.get(f"{section}.name"))
        defaults |= {f"{section}.{key}": value for key, value in chosen.items()}
    for group in ("task", "model"):
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
            for key, text, _ in options_of(group, str(configuration.get(f"{group}.name"))):
                defaults[f"{group}.{key}"] = yaml.safe_load(text)
    return [key for key, value in hparams(configuration).items() if key in defaults and defaults[key] != value]


def columns(run: Path) -> dict[str, bool]:
    """Every key of the run and of those beside it, with whether it is to be ticked."""
    beside = _siblings(run)
    mine = beside.get(run.resolve(), {})
    chosen = ticked(mine, list(beside.values()))
    keys = sorted({key for one in beside.values() for key in hparams(one)})
    return {key: key in chosen for key in keys}


def refresh(run: Path, metrics: Sequence[str]) -> None:
    """Name the columns anew in the aggregates of the run and of the finished ones beside it, where they changed."""
    now = experiment(columns(run), metrics)
    for folder in _siblings(run):
        with contextlib.suppress(OSError, ValueError):
            if folder == run.resolve() or _finished(folder):
                replace_first(folder / AGGREGATE, now)


def _siblings(run: Path) -> dict[Path, Mapping[str, Any]]:
    """The flat configurations of the runs below the same `runs_root`, this one's among them, by their folders."""
    run = run.resolve()
    found = sorted(islice(run.parents[1].glob(f"*/*/{CONFIG}"), MOST_SIBLINGS + 1))
    configurations = {}
    for path in found if len(found) <= MOST_SIBLINGS else [run / CONFIG]:
        with contextlib.suppress(OSError, ValueError):
            configurations[path.parent] = _read(path.parent, path.stat().st_mtime_ns)
    return configurations


@functools.lru_cache(maxsize=4 * MOST_SIBLINGS)
def _read(folder: Path, _changed: int) -> Mapping[str, Any]:
    return read_configuration(folder)


def _finished(folder: Path) -> bool:
    """Whether every seed has finished, so that no process writes its events."""
    summaries, problems = read_summaries(folder)
    return bool(summaries) and not problems and all(summary["status"] in FINISHED for summary in summaries)
