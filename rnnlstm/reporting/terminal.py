"""The comparison in a terminal: one table of results, one of paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from rnnlstm.config.errors import show
from rnnlstm.reporting.columns import as_table, leave_out
from rnnlstm.reporting.pairing import Contest
from rnnlstm.reporting.runs import Run, differing_keys
from rnnlstm.reporting.table import NAMED, row
from rnnlstm.reporting.texts import (
    differences_text,
    metric_text,
    number_text,
    score_text,
    solved_text,
    states_text,
    steps_text,
)  # fmt: skip

#: Columns to go without in a narrow terminal, the first first. In the middle, keys that change no result.
SPARED = (
    "bytes kept", "multiply-adds", "median norm", "ms/update",
    "log.every", "probe.every", "probe", "eval.every", "device",
    "parameters", "clipped",
)  # fmt: skip


def table(
    runs: Sequence[Run], among: Sequence[Run], by: Sequence[str] = (), width: int = 200
) -> tuple[Table, list[str]]:
    """A row per configuration or group: the keys `by` which it was grouped, or else what differs between all
    `among` which these are; then what came out. Also the columns that `width` characters had no room for."""
    columns = _columns(runs, among, by)
    left_out = leave_out(columns, SPARED, width)
    numbers = [h for h, cells in columns.items() if h not in ("metric", "not done") and all(map(_is_number, cells))]
    return as_table(columns, numbers), left_out


def _columns(runs: Sequence[Run], among: Sequence[Run], by: Sequence[str]) -> dict[str, list[str]]:
    rows = [row(run) for run in runs]
    differing = differing_keys(among)
    keys = list(by) or [key for key in (*NAMED, "optimizer.lr") if key in differing]
    keys += [key for key in differing if key not in keys]
    columns: dict[str, list[str]] = {
        key.removesuffix(".name").removeprefix("model."): [
            show(run.config[key]) if key in run.config else "—" for run in runs
        ]
        for key in keys or ["model.name"]
    }
    if any(r["configurations"] > 1 for r in rows):
        columns["configurations"] = [f"{r['configurations']:,}" for r in rows]
    columns |= {
        "metric": [metric_text(run, r) for run, r in zip(runs, rows, strict=True)],
        "solved (95 %)": [solved_text(run) for run in runs],
        "steps to solve": [steps_text(run) for run in runs],
        "clipped": [number_text(r["clip_rate"], ".0%") for r in rows],
        "median norm": [number_text(r["median_norm_before_clip"], ".2g") for r in rows],
        "parameters": [number_text(r["parameters"], ",.0f") for r in rows],
        "multiply-adds": [number_text(r["multiply_adds"], ",.0f") for r in rows],
        "bytes kept": [number_text(r["bytes_kept"], ",.0f") for r in rows],
        "ms/update": [number_text(r["ms_per_update"], ".3g") for r in rows],
    }
    states = [states_text(r) for r in rows]
    if any(states):
        columns["not done"] = states
    return columns


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell.startswith((">", "—", "never", "null"))


def paired_tables(found: Sequence[Contest]) -> Iterator[Table]:
    """Each row's differences from its reference, pair by pair; + is more than the reference."""
    for title in dict.fromkeys(contest.title for contest in found):
        rows = [contest for contest in found if contest.title == title]
        names = {contest.metric_name or "metric" for contest in rows}
        columns = {
            "configuration": [contest.name for contest in rows],
            names.pop() if len(names) == 1 else "metric": [
                differences_text(contest.metric, ".3g") for contest in rows
            ],
            "better in": [score_text(contest.better, contest.worse, contest.metric) for contest in rows],
            "steps to solve": [differences_text(contest.steps, ",.0f") for contest in rows],
            "sooner in": [score_text(contest.steps.below, contest.steps.above, contest.steps) for contest in rows],
        }
        yield as_table(columns, title=title)
