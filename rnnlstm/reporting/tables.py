"""The comparison as tables: a row per configuration or group, for a terminal and as CSV."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnnlstm.config.errors import show, writing
from rnnlstm.record.files import write_output
from rnnlstm.reporting.pairing import Contest, contests
from rnnlstm.reporting.runs import STATES, Run, counts, differing_keys, reasons
from rnnlstm.reporting.selection import Comparison, first_of_each, pooled_over
from rnnlstm.reporting.statistics import ENOUGH_SEEDS, Differences, interval, sign_test, solve_times, wilson


def table_console(width: int) -> Console:
    """A console, `width` characters wide where it is neither a terminal nor told by COLUMNS: a file has room."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = width
    return console


def leave_out(columns: dict[str, list[str]], spared: Sequence[str], width: int, wrapped: bool = False) -> list[str]:
    """Removes columns named in `spared`, in that order, until the rest fit into `width` characters, or fit `wrapped`
    between words. Returns those removed."""
    left_out = []
    for header in filter(columns.__contains__, spared):
        if _needed(columns, wrapped) <= width:
            break
        del columns[header]
        left_out.append(header)
    return left_out


BETWEEN = 3  #: characters between two columns


def _needed(columns: dict[str, list[str]], wrapped: bool) -> int:
    """The characters that a table takes in a line."""
    widest = _longest_word if wrapped else cell_len
    return sum(BETWEEN + max(map(widest, (head, *cells))) for head, cells in columns.items())


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _tight(text: str) -> str:
    """The same with fewer spaces, so that an interval is one word, and stays in one line."""
    for loose in (" … ", " %", "> ", "≥ ", "≤ ", " = "):
        text = text.replace(loose, loose.strip())
    return text.replace("  ", ",")


def _tight_columns(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    return {head: list(map(_tight, cells)) for head, cells in columns.items()}


def as_table(
    columns: dict[str, list[str]], numbers: Sequence[str] = (), title: str | None = None, width: int | None = None
) -> Table:
    """A table for a terminal; the columns `numbers` are aligned right. To fit into `width` characters, spaces are
    left out and the widest cells wrapped, never within a word, and not within an interval where there is room."""
    if width is not None and _needed(columns, wrapped=False) > width:
        tight = _tight_columns(columns)
        columns = tight if _needed(tight, wrapped=True) <= width else columns
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
        title=Text(title) if title else None,
        title_justify="left",
    )
    widths = {head: max(map(cell_len, (head, *cells))) for head, cells in columns.items()}
    least = {head: max(map(_longest_word, (head, *cells))) for head, cells in columns.items()}
    while width is not None and sum(BETWEEN + w for w in widths.values()) > width:
        head = max(widths, key=lambda head: (widths[head] > least[head], widths[head]))
        if widths[head] == least[head]:
            break
        widths[head] -= 1
    for header in columns:
        justify: Any = "right" if header in numbers else "left"
        result.add_column(Text(header), justify=justify, width=None if width is None else widths[header])
    for cells in zip(*columns.values(), strict=True):
        result.add_row(*map(Text, cells))  # as it is: nothing in it is markup
    return result


COLUMNS = (
    "task", "length", "model", "init", "backend", "hidden_size", "parameters", "seeds", "solved",
    "median_steps_to_solve", "metric_name", "metric", "metric_low", "metric_high", "baseline",
    "clip_rate", "median_norm_before_clip", "steps_per_second",
)  # fmt: skip
FORMULA = re.compile(r"[=@\t\r\n]|[+-](?![\d.]+(e[+-]?\d+)?$)", re.IGNORECASE)  #: how one begins; numbers don't
#: What it costs, the last columns of the CSV.
COSTS = ("ms_per_update", "multiply_adds", "state_size", "bytes_kept")
#: States of the seeds, and intervals; after all others.
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
        "configurations": run.configurations,
        "steps_to_solve_low": finite_or_none(earliest),
        "steps_to_solve_high": finite_or_none(latest),
        "followed_to": times.followed,
    }


def write_csv(runs: Sequence[Run], path: str, best: Sequence[str] = ()) -> None:
    """The table as CSV: `COLUMNS`, then every other key in which the rows differ or that was chosen as `best`, then
    `COSTS` and `STANDING`.

    An empty `median_steps_to_solve` or `steps_to_solve_high`: not by the update `followed_to`.

    Raises: DiskError.
    """
    further = [key for key in dict.fromkeys((*differing_keys(runs), *best)) if key not in NAMED]
    lines: list[list[Any]] = [[*COLUMNS, *further, *COSTS, *STANDING]]
    for run in runs:
        values = row(run)
        cells = [*(values[name] for name in COLUMNS), *(run.config.get(key) for key in further)]
        lines.append([*cells, *(values[name] for name in (*COSTS, *STANDING))])
    with writing(path):
        write_output(Path(path), csv_text(lines).encode("utf-8", "replace"))


def csv_text(lines: Iterable[Iterable[Any]], end: str = "\r\n") -> str:
    """Lines of cells as CSV; None is empty. A text that a spreadsheet would run as a formula gets an apostrophe in
    front: names and keys may come from others."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end)
    for line in lines:
        writer.writerow([f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell for cell in line])
    return out.getvalue()


def equal_keys(runs: Sequence[Run], shown: Sequence[str] = ()) -> str:
    """Keys that are left out of the table, being equal in every row: `task=keyword, task.length=100`; without those
    that are shown."""
    differing = differing_keys(runs)
    in_all = set.intersection(*(set(run.config) for run in runs))
    keys = [key for key in (*NAMED, "optimizer.lr") if key not in (*differing, *shown) and key in in_all]
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


def differences_text(differences: Differences, form: str) -> str:
    """Median and interval, or range; where the median is only known to lie between bounds, these."""
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


def score_text(wins: int, losses: int, differences: Differences) -> str:
    """`5 of 6, p = 0.22`: ties and undecided pairs are named, and left out of the sign test."""
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


def metric_text(run: Run, r: dict[str, Any], short: bool = False) -> str:
    """The median, and up to five seeds every value (`short`: the range), from six on the interval of the median."""
    if r["metric"] is None:
        return "—"
    text, values = f"{r['metric_name']} {r['metric']:.3g}", finite(run.values("metric"))
    if len(values) == 1:
        return text
    few = len(values) < ENOUGH_SEEDS
    if few and not short:
        return f"{text} ({'  '.join(f'{value:.3g}' for value in sorted(values))})"
    brackets = "()" if few else "[]"
    return f"{text} {brackets[0]}{r['metric_low']:.3g} … {r['metric_high']:.3g}{brackets[1]}"


def solved_text(run: Run) -> str:
    low, high = wilson(run.solved, len(run.seeds))
    return f"{run.solved}/{len(run.seeds)} ({low * 100:.0f}–{high * 100:.0f} %)"


def steps_text(run: Run) -> str:
    """The Kaplan–Meier median with its interval, or range; `> 2,000` where it lies beyond what has been seen."""
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


def states_text(r: dict[str, Any]) -> str:
    """`2 running, 1 diverged`, or nothing if all are done."""
    return ", ".join(f"{r[state]} {state}" for state in STATES if state != "done" and r[state])


def number_text(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


#: Columns that a narrow terminal lacks, in the order of leaving them out.
SPARED = ("bytes kept", "multiply-adds", "median norm", "ms/update", "parameters", "clipped")
#: Those that stay if a key that begins so differs between the rows: what the sweep is about.
ABOUT = {
    "clip.": ("clipped", "median norm"),
    "model.hidden_size": ("parameters",),
    "model.num_layers": ("parameters",),
    "match": ("parameters", "ms/update"),
    "model.backend": ("ms/update",),
    "precision": ("ms/update",),
    "device": ("ms/update",),
}


def table(
    runs: Sequence[Run],
    among: Sequence[Run],
    by: Sequence[str] = (),
    width: int = 200,
    best: Sequence[str] = (),
) -> tuple[Table, list[str]]:
    """A row per configuration or group of `runs`: the keys `by` which they are grouped, or else those that differ
    among all rows (`among`), and those chosen as `best`; then the results. Returns also the columns left out to fit
    `width` characters."""
    columns = _columns(runs, among, by, best)
    differing = [*differing_keys(among), *best]
    wanted = {
        header
        for beginning, headers in ABOUT.items()
        if any(key.startswith(beginning) for key in differing)
        for header in headers
    }
    about = [header for header in SPARED if header in wanted]
    left_out = leave_out(columns, [header for header in SPARED if header not in wanted], width)

    def too_wide() -> bool:
        return _needed(_tight_columns(columns), wrapped=True) > width

    if too_wide():
        columns["metric"] = [metric_text(run, row(run), short=True) for run in runs]
    if too_wide():
        columns = _keys_in_one(_tight_columns(columns))
        left_out += leave_out(columns, about, width, wrapped=True)
    numbers = [h for h, cells in columns.items() if h not in ("metric", "not done") and all(map(_is_number, cells))]
    names = {_common(run, "metric_name") for run in runs}
    if len(names) == 1 and (name := names.pop()):  # once above, not in every row
        columns["metric"] = [cell.removeprefix(f"{name} ") for cell in columns["metric"]]
        columns = {f"metric {name}" if head == "metric" else head: cells for head, cells in columns.items()}
    return as_table(columns, numbers, width=width), left_out


def _keys_in_one(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """The columns before `metric` as one, `configuration`, which can be wrapped: `rnn, lr=0.01`."""
    heads = list(columns)[: list(columns).index("metric")]
    ends = [head.rpartition(".")[2] for head in heads]
    names = [end if ends.count(end) == 1 else head for head, end in zip(heads, ends, strict=True)]
    cells = zip(*(columns[head] for head in heads), strict=True)
    texts = [
        ", ".join(
            cell if name == "model" else f"{name}={cell}"
            for name, cell in zip(names, row, strict=True)
            if cell != "—"
        )
        for row in cells
    ]
    return {"configuration": texts, **{head: cells for head, cells in columns.items() if head not in heads}}


def _columns(
    runs: Sequence[Run], among: Sequence[Run], by: Sequence[str], best: Sequence[str]
) -> dict[str, list[str]]:
    rows = [row(run) for run in runs]
    differing = differing_keys(among)
    keys = list(by) or [key for key in (*NAMED, "optimizer.lr") if key in differing]
    keys += [key for key in (*differing, *best) if key not in keys]
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


def paired_tables(pairs: Sequence[Contest], width: int) -> Iterator[Table]:
    """Each row's differences from its reference, pair by pair; + is more than the reference."""
    for title in dict.fromkeys(contest.title for contest in pairs):
        rows = [contest for contest in pairs if contest.title == title]
        heads = ("configuration", common_metric(rows), "better in", "steps to solve", "sooner in")
        cells = zip(*((contest.name, *contest_cells(contest)) for contest in rows), strict=True)
        yield as_table(dict(zip(heads, map(list, cells), strict=True)), title=title, width=width)


def common_metric(pairs: Sequence[Contest]) -> str:
    """The metric that all were compared in; `metric` where there are several."""
    names = {contest.metric_name or "metric" for contest in pairs}
    return names.pop() if len(names) == 1 else "metric"


def contest_cells(contest: Contest) -> tuple[str, str, str, str]:
    """Difference of the metric and in how many pairs it is better, of the updates to solve and in how many sooner."""
    return (
        differences_text(contest.metric, ".3g"),
        score_text(contest.better, contest.worse, contest.metric),
        differences_text(contest.steps, ",.0f"),
        score_text(contest.steps.below, contest.steps.above, contest.steps),
    )


#: With fewer pairs than this the smallest p that they can give is said.
FEW_PAIRS = 5
#: Up to so many rows, differences are printed without `--paired`; more would be longer than the table.
FEW = 8
MOST_KEYS = 12  # named beneath the table


def paragraphs(
    comparison: Comparison, top: int, paired: bool, against: Sequence[str], width: int
) -> Iterator[Table | str]:
    """The table, what belongs under it, and the differences over shared seeds: if asked for, or if few rows share
    two seeds or more. Raises: ConfigError for `against` that names no row."""
    rows = comparison.rows
    pairs = contests(rows, against) if paired or against or len(rows) <= FEW else []
    if not paired and not against:
        pairs = [contest for contest in pairs if len(contest.steps.bounds) > 1]
    shown = spread_out(rows, top)
    results, left_out = table(shown, rows, comparison.by, width, comparison.best)
    yield results
    if len(shown) < len(rows):
        yield f"{len(rows) - len(shown):,} more rows: --top {len(rows)} shows them, --csv writes all"
    if left_out:
        yield f"No room for: {', '.join(left_out)}; --csv has them"
    if equal := equal_keys(rows, comparison.best):
        yield f"Equal in all: {equal}"
    if pooled := pooled_over(rows):
        yield f"Pooled over: {_some(pooled)}; the intervals take every seed of every configuration as one of equals"
    yield from comparison.notes
    yield from reasons(rows)
    if pairs:
        yield from paired_tables(pairs[:top], width)
        yield from _explanation(pairs, top, bool(against))
    elif paired or against:
        yield "No two rows of one task share seeds and data."


def spread_out(rows: Sequence[Run], top: int) -> list[Run]:
    """At most `top` rows: the first of each task and length, then the second of each, and so on."""
    tasks = [(run.config.get("task.name"), run.config.get("task.length")) for run in rows]
    return [rows[k] for k in first_of_each(tasks, top)]


def _explanation(pairs: Sequence[Contest], top: int, named: bool) -> Iterator[str]:
    if len(pairs) > top:
        yield f"{len(pairs) - top:,} more rows: --top {len(pairs)} shows them"
    yield (
        "Differences seed by seed, on the same data: the median, [its 95 % bootstrap interval] or (the range) up to "
        "five pairs; p: exact sign test"
    )
    most = max(len(differences.bounds) for contest in pairs for differences in (contest.metric, contest.steps))
    if most < FEW_PAIRS:
        pooled = any(contest.run.configurations > 1 for contest in pairs)  # then one seed may make several pairs
        what = ("pair" if pooled else "seed") + "s" * (most > 1)
        yield f"With {most} {what} p can't fall below {sign_test(most, 0):.2g}"
    if not named:
        yield "The reference has the lowest loss of these very seeds, which flatters it; --against names another"


def _some(keys: Sequence[str]) -> str:
    left = len(keys) - MOST_KEYS
    return ", ".join(keys[:MOST_KEYS]) + (f" and {left} more" if left > 0 else "")
