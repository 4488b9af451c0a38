"""The zoo's tables: who solves what, and in how many updates, as Markdown (`scripts/zoo table`)."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence

from rnnlstm.cli.exits import guarded
from rnnlstm.reporting.runs import Run, find_runs


def zoo_tables(runs: Sequence[Run]) -> list[str]:
    """Tables of models by tasks, one for each set of tasks that the same models were trained on, the largest first.

    Models that solve most come first; where there are many tasks and few models, tasks are the rows. A cell of a
    table: solved seeds, and the median and range of the updates that they took; where no seed solved the task, the
    median of its headline metric.
    """
    by_task: dict[str, dict[str, Run]] = {}
    for run in runs:
        by_task.setdefault(_task(run), {})[_model(run)] = run
    groups: dict[frozenset[str], list[str]] = {}
    for task, row in sorted(by_task.items()):
        groups.setdefault(frozenset(row), []).append(task)
    return [
        _table([by_task[task] for task in tasks], tasks, models)
        for models, tasks in sorted(groups.items(), key=lambda group: -len(group[0]))
    ]


def _table(columns: list[dict[str, Run]], tasks: list[str], models: Iterable[str]) -> str:
    rows = {name: [column[name] for column in columns] for name in models}
    names = sorted(rows, key=lambda name: (*_rank(rows[name]), name))
    if len(tasks) > len(names):
        lines = [["task", *names]]
        lines += [[task, *(_cell(rows[name][k]) for name in names)] for k, task in enumerate(tasks)]
    else:
        lines = [["model", "parameters", *tasks]]
        lines += [[name, _parameters(rows[name]), *map(_cell, rows[name])] for name in names]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rank(row: Sequence[Run]) -> tuple[float, float]:
    steps = [step for run in row for step in run.values("steps_to_solve")]
    return -sum(run.solved / len(run.seeds) for run in row), statistics.fmean(steps) if steps else 0.0


def _model(run: Run) -> str:
    """The model, its initialisation if it is not PyTorch's, and its layers if there are several."""
    init, layers = run.config.get("model.init", "default"), run.config["model.num_layers"]
    parts = [f"`{run.config['model.name']}`", *([] if init == "default" else [init])]
    return ", ".join([*parts, *([f"{layers} layers"] if layers > 1 else [])])


def _parameters(row: Sequence[Run]) -> str:
    counts = [int(n) for run in row for n in run.values("parameters")]
    return f"{counts[0]:,}" if min(counts) == max(counts) else f"{min(counts):,} … {max(counts):,}"


def _task(run: Run) -> str:
    variant = run.config.get("task.variant", "standard")
    parts = [run.config["task.name"], *([] if variant == "standard" else [variant]), f"T={run.config['task.length']}"]
    return " ".join(parts)


def _cell(run: Run) -> str:
    diverged = sum(seed.get("status") == "diverged" for seed in run.seeds)
    also = f", {diverged} diverged" if diverged else ""
    steps = run.values("steps_to_solve")
    if steps:
        least, most = min(steps), max(steps)
        spread = "" if least == most else f" ({least:.0f} … {most:.0f})"
        return f"**{run.solved}/{len(run.seeds)}** {statistics.median(steps):.0f}{spread}{also}"
    scores = run.values("metric")
    median = f"{run.seeds[0]['metric_name']} {statistics.median(scores):.3g}" if scores else "no score"
    return f"0/{len(run.seeds)} {median}{also}"


def _main(places: Sequence[str]) -> int:
    print("\n\n".join(zoo_tables(find_runs(places))))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: _main(sys.argv[1:])))
