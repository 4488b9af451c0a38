"""What a study leaves: `<out>/<size>/<name>.json` with everything, `.csv` with the table, `.png` with the figure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import writing
from rnnlstm.record.environment import describe_here
from rnnlstm.record.files import read_json, write_json, write_whole
from rnnlstm.reporting import tables
from rnnlstm.reporting.statistics import interval, wilson
from rnnlstm.studies.study import Finding, Row, Study, name_of

BEFORE = "before"  #: the time of settings that were run before times were kept by setting
OVERVIEW = "overview.png"  #: beside the folders of the sizes: three studies in one picture


def verdict(findings: Sequence[Finding]) -> str:
    """`pass` if there are checks and all hold, else `miss`."""
    return "pass" if findings and all(finding.passed for finding in findings) else "miss"


def result(
    study: Study,
    size: str,
    rows: Sequence[Row],
    seconds: Mapping[str, float],
    before: Mapping[str, Any] | None = None,
    lacking: int = 0,
) -> dict[str, Any]:
    """Everything that the page shows of a study, as plain data. `seconds` by setting. While settings are missing, or
    `lacking` rows, the verdict is `unfinished`. `before`: what was there; if it has these very rows, it also
    says when and where they were measured."""
    import torch

    missing = [name for name in study.settings(size) if not any(name in ("all", row.setting) for row in rows)]
    unfinished = bool(missing or lacking)
    findings = [] if unfinished else study.findings(size, rows)
    data = [row.as_data() for row in rows]
    measured = {
        "written": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {**describe_here(), "torch": torch.__version__, "threads": torch.get_num_threads()},
    }
    if before and [Row.from_data(row).as_data() for row in before["rows"]] == data:
        measured = {name: before[name] for name in measured}
    return {
        "study": study.name,
        "size": size,
        "verdict": "unfinished" if unfinished else verdict(findings),
        "reference": study.reference,
        "checks": [dataclasses.asdict(finding) for finding in findings],
        "seconds": round(sum(seconds.values()), 1),
        "setting_seconds": {name: round(value, 1) for name, value in seconds.items()},
        **measured,
        "rows": data,
    }


def write(study: Study, data: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the JSON, CSV and PNG file of a study; returns their paths. Raises: DiskError."""
    from rnnlstm.studies.figure import save_figure

    rows = [Row.from_data(row) for row in data["rows"]]
    folder = out / data["size"]
    paths = [folder / f"{study.name}{end}" for end in (".json", ".csv", ".png")]
    with writing(f"results in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(paths[0], data)
        write_whole(paths[1], csv_text(rows, study.columns).encode())
        if not study.draw(rows, paths[2]):
            save_figure(study, rows, paths[2])
    return paths


def read(study: str, size: str, out: Path) -> dict[str, Any] | None:
    """The data that `write` wrote; None if it is missing or incomplete."""
    data = read_json(out / size / f"{study}.json")
    return data if data is not None and {"verdict", "checks", "rows", "machine"} <= data.keys() else None


def text_table(rows: Sequence[Row], columns: Sequence[str]) -> list[list[str]]:
    """The head and a line for each row, as strings for terminal and page; columns without any value are left out."""
    trained = any(row.steps for row in rows)
    columns = [column for column in columns if any(row.values(column) for row in rows)]
    head = ["setting", "network"]
    if trained:
        head += ["rate", "solved (95 %)", "updates to solve", _metric_name(rows)]
    head += [name_of(column) for column in columns]
    diverged, clipped = any(row.diverged_count for row in rows), any(any(row.clip_rate) for row in rows)
    head += (["diverged"] if diverged else []) + (["clipped"] if clipped else [])
    lines = [head]
    for row in rows:
        line = [row.setting, row.arm]
        if trained:
            line += [_rate(row), _solved(row), _steps(row), spread(row.values("metric"))]
        line += [spread(row.values(column)) for column in columns]
        if diverged:
            line.append(f"{row.diverged_count} of {row.n}")
        if clipped:
            line.append(f"{row.median('clip_rate'):.0%}" if row.clip_rate else "")
        lines.append(line)
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "∣") for cell in line] for line in lines]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def csv_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The table as numbers: medians with both ends, as `spread` has them; an empty cell where there is none."""
    lines = [_numbers(row, columns) for row in rows]
    heads = list(dict.fromkeys(name for line in lines for name in line))
    return tables.csv_text([heads, *([line.get(head) for head in heads] for line in lines)], "\n")


def _numbers(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    low, high = wilson(row.solved_count, row.n)
    line: dict[str, Any] = {"setting": row.setting, "network": row.arm, "seeds": row.n}
    if row.steps:
        line |= {
            "learning_rate": row.rate,
            "hidden_size": row.hidden_size,
            "parameters": row.parameters,
            "batch_size": row.batch_size,
            "updates_at_most": row.steps,
            "solved": row.solved_count,
            "solved_low": round(low, 4),
            "solved_high": round(high, 4),
            "diverged": row.diverged_count,
            "median_updates_to_solve": row.median_steps if math.isfinite(row.median_steps) else f">{row.steps}",
            "metric_name": row.metric_name,
            "baseline_loss": f"{row.baseline:.6g}" if row.baseline is not None else "",
        }
    for name in [*(["metric", "loss", "clip_rate"] if row.steps else []), *columns]:
        values = row.values(name)
        bounds = interval(values)
        ends = ["", ""] if bounds is None else [f"{end:.6g}" for end in bounds]
        middle = f"{row.median(name):.6g}" if values else ""
        line |= {name: middle, f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return line


def spread(values: Sequence[float]) -> str:
    """The median, with the range of up to five values and the bootstrap interval of the median from six on."""
    bounds = interval(values)
    if bounds is None:
        return ""
    middle = statistics.median(values)
    ends = [number(end) for end in bounds]
    return number(middle) if ends[0] == ends[1] else f"{number(middle)} ({ends[0]} … {ends[1]})"


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _metric_name(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(row.metric_name for row in rows if row.metric_name))
    return " / ".join(name.replace("_", " ") for name in names)


def _rate(row: Row) -> str:
    return f"{row.rate:g}" if row.rate is not None else ""


def _solved(row: Row) -> str:
    low, high = wilson(row.solved_count, row.n)
    return f"{row.solved_count} of {row.n} ({low:.0%} … {high:.0%})"


def _steps(row: Row) -> str:
    """The median over all seeds, those that did not solve counting as more than the budget."""
    middle = row.median_steps
    steps = row.values("steps")
    if not math.isfinite(middle):
        return f"> {row.steps:,}"
    last = f"{max(steps):,.0f}" if len(steps) == row.n else f"> {row.steps:,}"
    first = f"{min(steps):,.0f}"
    return f"{middle:,.0f}" if first == last else f"{middle:,.0f} ({first} … {last})"
