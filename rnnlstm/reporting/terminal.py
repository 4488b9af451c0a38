"""The comparison in a terminal: one table of results, one of paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from rnnlstm.options import show
from rnnlstm.reporting.paired import Differences
from rnnlstm.reporting.pairing import Contest
from rnnlstm.reporting.runs import Run, differing_keys
from rnnlstm.reporting.states import STATES
from rnnlstm.reporting.statistics import ENOUGH_SEEDS, sign_test, wilson
from rnnlstm.reporting.survival import solve_times
from rnnlstm.reporting.table import NAMED, finite, row

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
    left_out = []
    for header in filter(columns.__contains__, SPARED):
        if sum(3 + max(map(cell_len, (head, *cells))) for head, cells in columns.items()) <= width:
            break
        del columns[header]
        left_out.append(header)
    numbers = [h for h, cells in columns.items() if h not in ("metric", "not done") and all(map(_is_number, cells))]
    return _table(columns, numbers), left_out


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
        "metric": [_metric(run, r) for run, r in zip(runs, rows, strict=True)],
        "solved (95 %)": [_solved(run) for run in runs],
        "steps to solve": [_steps(run) for run in runs],
        "clipped": [_number(r["clip_rate"], ".0%") for r in rows],
        "median norm": [_number(r["median_norm_before_clip"], ".2g") for r in rows],
        "parameters": [_number(r["parameters"], ",.0f") for r in rows],
        "multiply-adds": [_number(r["multiply_adds"], ",.0f") for r in rows],
        "bytes kept": [_number(r["bytes_kept"], ",.0f") for r in rows],
        "ms/update": [_number(r["ms_per_update"], ".3g") for r in rows],
    }
    states = [_states(r) for r in rows]
    if any(states):
        columns["not done"] = states
    return columns


def _table(columns: dict[str, list[str]], numbers: Sequence[str] = (), title: str | None = None) -> Table:
    """The columns `numbers` stand to the right."""
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
        title=Text(title) if title else None,
        title_justify="left",
    )
    for header in columns:
        result.add_column(Text(header), justify="right" if header in numbers else "left")
    for cells in zip(*columns.values(), strict=True):
        result.add_row(*map(Text, cells))  # as it is: nothing in it is markup
    return result


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell.startswith((">", "—", "never", "null"))


def paired_tables(found: Sequence[Contest]) -> Iterator[Table]:
    """Each row's differences from its reference, pair by pair; + is more than the reference."""
    for title in dict.fromkeys(contest.title for contest in found):
        rows = [contest for contest in found if contest.title == title]
        names = {contest.metric_name or "metric" for contest in rows}
        columns = {
            "configuration": [contest.name for contest in rows],
            names.pop() if len(names) == 1 else "metric": [_differences(contest.metric, ".3g") for contest in rows],
            "better in": [_score(contest.better, contest.worse, contest.metric) for contest in rows],
            "steps to solve": [_differences(contest.steps, ",.0f") for contest in rows],
            "sooner in": [_score(contest.steps.below, contest.steps.above, contest.steps) for contest in rows],
        }
        yield _table(columns, title=title)


def _differences(differences: Differences, form: str) -> str:
    """Median and interval; where the median is only known to lie between bounds, these."""
    if not differences.bounds or differences.open == len(differences.bounds):
        return "—"
    low, high = differences.median()
    if low == high:
        middle = "never" if math.isinf(low) else f"{low:+{form}}"
    elif math.isinf(low) and math.isinf(high):
        middle = "?"
    elif math.isinf(low) or math.isinf(high):
        middle = f"≤ {high:+{form}}" if math.isinf(low) else f"≥ {low:+{form}}"
    else:
        middle = f"{low:+{form}} to {high:+{form}}"
    if len(differences.bounds) == 1:
        return middle.replace("-", "−")
    low, high = differences.interval()
    ends = [f"{end:+{form}}".replace("inf", "∞") for end in (low, high)]
    brackets = "[]" if len(differences.bounds) >= ENOUGH_SEEDS else "()"
    return f"{middle} {brackets[0]}{' … '.join(ends)}{brackets[1]}".replace("-", "−")


def _score(wins: int, losses: int, differences: Differences) -> str:
    """`5 of 6, p = 0.22`: ties and pairs that don't say are named, and left out of the sign test."""
    if not differences.bounds:
        return "—"
    parts = [f"{wins} of {len(differences.bounds)}"]
    if differences.equal:
        parts.append(f"{differences.equal} equal")
    if differences.open:
        parts.append(f"{differences.open} undecided")
    if wins + losses:
        parts.append(f"p = {sign_test(wins, losses):.2g}")
    return ", ".join(parts)


def _metric(run: Run, r: dict[str, Any]) -> str:
    """The median, and under five seeds every value, from five on the interval of the median."""
    if r["metric"] is None:
        return "—"
    text, values = f"{r['metric_name']} {r['metric']:.3g}", finite(run.values("metric"))
    if len(values) == 1:
        return text
    if len(values) < ENOUGH_SEEDS:
        return f"{text} ({'  '.join(f'{value:.3g}' for value in sorted(values))})"
    return f"{text} [{r['metric_low']:.3g} … {r['metric_high']:.3g}]"


def _solved(run: Run) -> str:
    low, high = wilson(run.solved, len(run.seeds))
    return f"{run.solved}/{len(run.seeds)} ({low * 100:.0f}–{high * 100:.0f} %)"


def _steps(run: Run) -> str:
    """The Kaplan–Meier median with its interval; `> 2,000` where it lies beyond what has been seen."""
    times = solve_times(run)

    def text(step: float) -> str:
        if math.isfinite(step):
            return f"{step:,.0f}"
        return "never" if times.never else f"> {times.followed:,.0f}"

    if len(times.steps) == 1 or not times.solved.any():
        return text(times.median())
    low, high = times.interval()
    brackets = "[]" if len(times.steps) >= ENOUGH_SEEDS else "()"
    return f"{text(times.median())} {brackets[0]}{text(low)} … {text(high)}{brackets[1]}"


def _states(r: dict[str, Any]) -> str:
    """`2 running, 1 diverged`, or nothing if all are done."""
    return ", ".join(f"{r[state]} {state}" for state in STATES if state != "done" and r[state])


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)
