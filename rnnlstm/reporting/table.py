"""The comparison table: a row per configuration, its seeds grouped."""

from __future__ import annotations

import csv
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from rnnlstm.exits import DiskError
from rnnlstm.options import show
from rnnlstm.reporting.runs import Run, differing_keys
from rnnlstm.reporting.statistics import ENOUGH_SEEDS, interval, wilson

COLUMNS = (
    "task", "length", "model", "init", "backend", "hidden_size", "parameters", "seeds", "solved",
    "median_steps_to_solve", "metric_name", "metric", "metric_low", "metric_high", "baseline",
    "clip_rate", "median_norm_before_clip", "steps_per_second",
)  # fmt: skip
#: What it costs, the last columns of the CSV.
COSTS = ("ms_per_update", "multiply_adds", "state_size", "bytes_kept")
#: Configuration keys that have a column of their own.
NAMED = ("task.name", "task.length", "model.name", "model.init", "model.backend", "model.hidden_size")


def row(run: Run) -> dict[str, Any]:
    """The columns of one configuration; medians over its seeds, None where nothing is known."""
    first = run.seeds[0]
    metric = run.values("metric")
    low, high = interval(metric) or (None, None)
    return {
        "task": run.config["task.name"],
        "length": run.config.get("task.length"),
        "model": run.config["model.name"],
        "init": run.config.get("model.init"),
        "backend": first.get("backend") or run.config.get("model.backend"),
        "hidden_size": run.config.get("model.hidden_size"),
        "parameters": first.get("parameters"),
        "seeds": len(run.seeds),
        "solved": run.solved,
        "median_steps_to_solve": median_steps_to_solve(run),
        "metric_name": first.get("metric_name"),
        "metric": _median(metric),
        "metric_low": low,
        "metric_high": high,
        "baseline": first.get("baseline"),
        "clip_rate": _median(run.values("clip_rate")),
        "median_norm_before_clip": _median(run.values("median_norm_before_clip")),
        "steps_per_second": _median(run.values("steps_per_second")),
        "ms_per_update": _median(run.values("ms_per_update")),
        "multiply_adds": first.get("multiply_adds"),
        "state_size": first.get("state_size"),
        "bytes_kept": first.get("bytes_kept"),
    }


def median_steps_to_solve(run: Run) -> float | None:
    """The median over all seeds, one that has not solved the task counting as later than all that have."""
    steps = [seed["steps_to_solve"] if seed.get("solved") else math.inf for seed in run.seeds]
    median = statistics.median(steps)
    return None if math.isinf(median) else median


def write_csv(runs: Sequence[Run], path: str) -> None:
    """The table as CSV: `COLUMNS`, then every other key in which the configurations differ, then `COSTS`.

    Raises: DiskError.
    """
    further = [key for key in differing_keys(runs) if key not in NAMED]
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, *further, *COSTS])
            for run in runs:
                values = row(run)
                cells = [*(values[name] for name in COLUMNS), *(run.config.get(key) for key in further)]
                cells += [values[name] for name in COSTS]
                writer.writerow(["" if cell is None else cell for cell in cells])
    except OSError as error:
        raise DiskError(f"can't write {path}: {error.strerror}") from None


def equal_keys(runs: Sequence[Run]) -> str:
    """What the table leaves out because it is the same in every row: `task=keyword, task.length=100`."""
    differing = differing_keys(runs)
    keys = [key for key in (*NAMED, "optimizer.lr") if key not in differing and key in runs[0].config]
    return ", ".join(f"{key.removesuffix('.name')}={show(runs[0].config[key])}" for key in keys)


def table(runs: Sequence[Run]) -> Table:
    """The table for a terminal: what differs between the configurations first, then what came out."""
    rows = [row(run) for run in runs]
    differing = differing_keys(runs)
    keys = [key for key in (*NAMED, "optimizer.lr") if key in differing]
    keys += [key for key in differing if key not in keys]
    columns: dict[str, list[str]] = {
        key.removesuffix(".name").removeprefix("model."): [
            show(run.config[key]) if key in run.config else "—" for run in runs
        ]
        for key in keys or ["model.name"]
    }
    words = len(columns)
    columns |= {
        "metric": [metric_text(run, r) for run, r in zip(runs, rows, strict=True)],
        "solved (95 %)": [solved_text(run) for run in runs],
        "steps to solve": [_number(r["median_steps_to_solve"], ",.0f") for r in rows],
        "clipped": [_number(r["clip_rate"], ".0%") for r in rows],
        "median norm": [_number(r["median_norm_before_clip"], ".2g") for r in rows],
        "parameters": [_number(r["parameters"], ",.0f") for r in rows],
        "multiply-adds": [_number(r["multiply_adds"], ",.0f") for r in rows],
        "bytes kept": [_number(r["bytes_kept"], ",.0f") for r in rows],
        "ms/update": [_number(r["ms_per_update"], ".3g") for r in rows],
    }
    states = [states_text(run) for run in runs]
    if any(states):
        columns["not done"] = states
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for k, header in enumerate(columns):
        result.add_column(header, justify="left" if k <= words or header == "not done" else "right")
    for cells in zip(*columns.values(), strict=True):
        result.add_row(*cells)
    return result


def metric_text(run: Run, r: dict[str, Any]) -> str:
    """The median, and under five seeds every value, from five on the interval of the median."""
    if r["metric"] is None:
        return "—"
    text = f"{r['metric_name']} {r['metric']:.3g}"
    if r["seeds"] == 1:
        return text
    if r["seeds"] < ENOUGH_SEEDS:
        return f"{text} ({'  '.join(f'{value:.3g}' for value in sorted(run.values('metric')))})"
    return f"{text} [{r['metric_low']:.3g} … {r['metric_high']:.3g}]"


def solved_text(run: Run) -> str:
    low, high = wilson(run.solved, len(run.seeds))
    return f"{run.solved}/{len(run.seeds)} ({low * 100:.0f}–{high * 100:.0f} %)"


def states_text(run: Run) -> str:
    """`2 running, 1 diverged`, or nothing if all are done."""
    counts = Counter(seed.get("status", "unknown") for seed in run.seeds)
    return ", ".join(f"{count} {state}" for state, count in counts.items() if state != "done")


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def _median(values: Iterable[float]) -> float | None:
    values = list(values)
    return statistics.median(values) if values else None
