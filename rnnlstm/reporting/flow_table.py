"""What `gradflow` prints: measurements and operations as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from rnnlstm.instruments.measurement import Measurement
from rnnlstm.instruments.surgery_table import SurgeryRow
from rnnlstm.reporting.columns import as_table, leave_out

#: Columns to go without in a narrow terminal, the first first.
SPARED = (
    "‖∂W‖", "parameters", "gates imply", "∂h 10 back", "∂h 100 back", "90 % of ∂W in", "∂W, last 10", "Lyapunov",
)  # fmt: skip
SPARED_OF_OPERATIONS = ("half-life, steps", "∂L/∂h at the first")
#: What columns mean, line by line.
MEANINGS = (
    {
        "half-life of ∂L/∂h": "Half-life: in steps back from the answer",
        "∂h at the first": "∂h at the first: gradient left at the first step, as a share of that at the answer",
    },
    {
        "∂W, last 10": "∂W, last 10: share of the weight gradient from the last 10 steps",
        "90 % of ∂W in": "90 % of ∂W in: so many steps",
        "Lyapunov": "Lyapunov: nats a step, below 0 vanishing",
    },
)


def gradient_table(found: Sequence[Measurement], width: int = 200) -> tuple[Table, list[str]]:
    """A row per setting and layer: how far back the gradient reaches. And the lines beneath it: the columns that
    `width` characters had no room for, what the others mean."""
    rows = [m.numbers() for m in found]
    columns: dict[str, list[str]] = {"setting": [m.label for m in found]}
    columns["parameters"] = [f"{m.parameters:,}" for m in found]
    columns["half-life of ∂L/∂h"] = [_interval(r, "hidden") for r in rows]
    if any("cell_half_life" in r for r in rows):
        columns["of ∂L/∂c"] = [_interval(r, "cell") if "cell_half_life" in r else "—" for r in rows]
    if any(m.gates_half_life for m in found):
        columns["gates imply"] = [_implied(m) for m in found]
    for name, title in (("10", "10 back"), ("100", "100 back"), ("first", "at the first")):
        key = f"log10_gradient_ratio_lag_{name}"
        if any(key in r for r in rows):
            columns[f"∂h {title}"] = [_power(r.get(key)) for r in rows]
    columns["∂W, last 10"] = [_share(r.get("weight_share_last_10")) for r in rows]
    columns["90 % of ∂W in"] = [f"{r['steps_for_90%_of_weight_gradient']:.0f}" for r in rows]
    columns["‖∂W‖"] = [f"{r['weight_gradient_norm']:.2g}" for r in rows]
    columns["Lyapunov"] = [f"{r['lyapunov_largest']:+.4f}" for r in rows]
    left_out = leave_out(columns, SPARED, width)
    meanings = [[words for column, words in line.items() if column in columns] for line in MEANINGS]
    lines = ["; ".join(words) for words in meanings if words]
    return _table(columns), [*_no_room(left_out, "table.csv"), *lines]


def operations_table(rows: Sequence[SurgeryRow], metrics: Sequence[str], width: int = 200) -> tuple[Table, list[str]]:
    """A row per operation: the score and the gradient after it. And the line beneath it, if `width` characters have
    no room for some columns: the gradient, and metrics but the first."""
    columns = {"operation": [row.name for row in rows]}
    columns |= {m: [f"{row.scores[m]:.4g}" if m in row.scores else "—" for row in rows] for m in ("loss", *metrics)}
    columns["∂L/∂h at the first"] = [_power(row.ratio) for row in rows]
    if any(row.cell_ratio is not None for row in rows):
        columns["∂L/∂c at the first"] = [_power(row.cell_ratio) for row in rows]
    columns["half-life, steps"] = [_steps(row.half_life) for row in rows]
    left_out = leave_out(columns, (*SPARED_OF_OPERATIONS, *reversed(metrics[1:])), width)
    return _table(columns), _no_room(left_out, "results.json")


def _table(columns: dict[str, list[str]]) -> Table:
    """Names to the left, which are wrapped where it is narrow; numbers are whole always."""
    _, *numbers = columns
    table = as_table(columns, numbers)
    for column in table.columns[1:]:
        column.no_wrap = True
    return table


def _no_room(left_out: Sequence[str], file: str) -> list[str]:
    names = ", ".join(header.replace(",", "") for header in left_out)
    return [f"No room for: {names}; {file} has them"] if left_out else []


def _interval(row: dict[str, float], state: str) -> str:
    low, high = row[f"{state}_half_life_low"], row[f"{state}_half_life_high"]
    return f"{_steps(row[f'{state}_half_life'])} [{_steps(low)} … {_steps(high)}]"


def _implied(m: Measurement) -> str:
    if m.gates_half_life is None:
        return "—"
    middle, low, high = (_steps(value) for value in m.gates_half_life)
    return f"{middle} ({low}–{high})"


def _steps(value: float) -> str:
    return "∞" if math.isinf(value) else "—" if math.isnan(value) else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.0%}"


def _power(log10: float | None) -> str:
    """10^log10, as 3.2e-17."""
    if log10 is None or math.isnan(log10):
        return "—"
    if math.isinf(log10):
        return "0"
    return f"{10 ** (log10 % 1):.1f}e{math.floor(log10):+03d}"
