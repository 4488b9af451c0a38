"""What `gradflow` prints: measurements and operations as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table

from rnnlstm.analysis.measurement import Measurement
from rnnlstm.analysis.operations import Operation


def gradient_table(found: Sequence[Measurement]) -> Table:
    """A row per setting and layer: how far back the gradient reaches."""
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
    return _table(columns)


def operations_table(rows: Sequence[Operation], metrics: Sequence[str]) -> Table:
    """A row per operation: the score and the gradient after it."""
    columns = {"operation": [row.name for row in rows]}
    columns |= {m: [f"{row.scores[m]:.4g}" if m in row.scores else "—" for row in rows] for m in ("loss", *metrics)}
    columns["∂L/∂h at the first"] = [_power(row.ratio) for row in rows]
    if any(row.cell_ratio is not None for row in rows):
        columns["∂L/∂c at the first"] = [_power(row.cell_ratio) for row in rows]
    columns["half-life, steps"] = [_steps(row.half_life) for row in rows]
    return _table(columns)


def _table(columns: dict[str, list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for k, header in enumerate(columns):
        table.add_column(header, justify="left" if k == 0 else "right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


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
