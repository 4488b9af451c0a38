"""The comparison's numbers, a row per configuration or group with its seeds taken together; and as CSV."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import DiskError, show
from rnnlstm.reporting.runs import Run, differing_keys
from rnnlstm.reporting.states import STATES, counts
from rnnlstm.reporting.statistics import interval
from rnnlstm.reporting.survival import solve_times

COLUMNS = (
    "task", "length", "model", "init", "backend", "hidden_size", "parameters", "seeds", "solved",
    "median_steps_to_solve", "metric_name", "metric", "metric_low", "metric_high", "baseline",
    "clip_rate", "median_norm_before_clip", "steps_per_second",
)  # fmt: skip
#: What it costs, the last columns of the CSV.
COSTS = ("ms_per_update", "multiply_adds", "state_size", "bytes_kept")
#: How the seeds stand, and intervals; after all others.
STANDING = (*STATES, "configurations", "steps_to_solve_low", "steps_to_solve_high", "followed_to")
#: Configuration keys that have a column of their own.
NAMED = ("task.name", "task.length", "model.name", "model.init", "model.backend", "model.hidden_size")


def row(run: Run) -> dict[str, Any]:
    """The columns of one configuration; medians over its seeds, None where nothing is known, or where the runs of a
    group have nothing in common."""
    names = _common(run, "metric_name")
    metric = finite(run.values("metric")) if names is not None else []
    low, high = interval(metric) or (None, None)
    times = solve_times(run)
    earliest, latest = times.interval()
    return {
        "task": run.config.get("task.name"),
        "length": run.config.get("task.length"),
        "model": run.config.get("model.name"),
        "init": run.config.get("model.init"),
        "backend": _common(run, "backend") or run.config.get("model.backend"),
        "hidden_size": run.config.get("model.hidden_size"),
        "parameters": _common(run, "parameters"),
        "seeds": len(run.seeds),
        "solved": run.solved,
        "median_steps_to_solve": finite_or_none(times.median()),
        "metric_name": names,
        "metric": _median(metric),
        "metric_low": low,
        "metric_high": high,
        "baseline": _common(run, "baseline"),
        "clip_rate": _median(run.values("clip_rate")),
        "median_norm_before_clip": _median(run.values("median_norm_before_clip")),
        "steps_per_second": _median(run.values("steps_per_second")),
        "ms_per_update": _median(run.values("ms_per_update")),
        "multiply_adds": _common(run, "multiply_adds"),
        "state_size": _common(run, "state_size"),
        "bytes_kept": _common(run, "bytes_kept"),
        **counts(run),
        "configurations": len(run.members),
        "steps_to_solve_low": finite_or_none(earliest),
        "steps_to_solve_high": finite_or_none(latest),
        "followed_to": times.followed,
    }


def write_csv(runs: Sequence[Run], path: str) -> None:
    """The table as CSV: `COLUMNS`, then every other key in which the rows differ, then `COSTS` and `STANDING`.

    An empty `median_steps_to_solve` or `steps_to_solve_high`: not by the update `followed_to`.

    Raises: DiskError.
    """
    further = [key for key in differing_keys(runs) if key not in NAMED]
    try:
        with Path(path).open("w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, *further, *COSTS, *STANDING])
            for run in runs:
                values = row(run)
                cells = [*(values[name] for name in COLUMNS), *(run.config.get(key) for key in further)]
                cells += [values[name] for name in (*COSTS, *STANDING)]
                writer.writerow(["" if cell is None else cell for cell in cells])
    except OSError as error:
        raise DiskError(f"can't write {path}: {error.strerror}") from None


def equal_keys(runs: Sequence[Run]) -> str:
    """What the table leaves out because it is the same in every row: `task=keyword, task.length=100`."""
    differing = differing_keys(runs)
    in_all = set.intersection(*(set(run.config) for run in runs))
    keys = [key for key in (*NAMED, "optimizer.lr") if key not in differing and key in in_all]
    return ", ".join(f"{key.removesuffix('.name')}={show(runs[0].config[key])}" for key in keys)


def finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _common(run: Run, key: str) -> Any:
    """A summary's value, if all seeds have the same."""
    first = run.seeds[0].get(key)
    return first if all(seed.get(key) == first for seed in run.seeds) else None


def _median(values: Iterable[float]) -> float | None:
    values = list(values)
    return statistics.median(values) if values else None
