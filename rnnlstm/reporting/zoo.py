"""The zoo's table: who solves what, and in how many updates, as Markdown (`scripts/zoo table`)."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from rnnlstm.exits import guarded
from rnnlstm.reporting.runs import Run, find_runs


def zoo_table(runs: Sequence[Run]) -> str:
    """A row for each model, a column for each task; models that solve most of the tasks first.

    A cell of the table: solved seeds, and the median and range of the updates that they took; where no seed solved
    the task, the median of its headline metric.
    """
    columns = sorted({_task(run) for run in runs})
    by_model: dict[str, dict[str, Run]] = {}
    for run in runs:
        by_model.setdefault(run.config["model.name"], {})[_task(run)] = run

    def rank(name: str) -> tuple[float, float]:
        row = by_model[name].values()
        steps = [step for run in row for step in run.values("steps_to_solve")]
        return -sum(run.solved / len(run.seeds) for run in row), statistics.fmean(steps) if steps else 0.0

    lines = [["model", "parameters", *columns], ["---"] * (len(columns) + 2)]
    for name in sorted(by_model, key=rank):
        row = by_model[name]
        counts = sorted({int(n) for run in row.values() for n in run.values("parameters")})
        layers = {run.config["model.num_layers"] for run in row.values()} - {1}
        also = f", {max(layers)} layers" if layers else ""
        shown = f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} … {counts[-1]:,}"
        lines.append([f"`{name}`{also}", shown, *(_cell(row.get(column)) for column in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _task(run: Run) -> str:
    variant = run.config.get("task.variant", "standard")
    parts = [run.config["task.name"], *([] if variant == "standard" else [variant]), f"T={run.config['task.length']}"]
    return " ".join(parts)


def _cell(run: Run | None) -> str:
    if run is None:
        return "–"
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
    print(zoo_table(find_runs(places)))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: _main(sys.argv[1:])))
