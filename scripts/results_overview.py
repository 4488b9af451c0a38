"""The results in one picture: how much of the gradient comes back, and what that decides on two tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from rnnlstm.config.errors import DiskError
from rnnlstm.reporting.colours import NETWORKS as TABLE
from rnnlstm.reporting.colours import STYLES
from rnnlstm.studies.common import CHRONO, DEFAULT, GRU, TANH, forget_bias
from rnnlstm.studies.gradient import PLACES, memory
from rnnlstm.studies.results import OVERVIEW, read
from rnnlstm.studies.study import Row, Rows

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

STUDIES = ("gradient", "keyword", "adding")
#: Which line a network has: its colour, mark and place are the same in each panel. A forget bias of 0 is
#: PyTorch's default but for the random part of the biases; one study has the one, one the other.
NETWORKS: Mapping[str, tuple[str, ...]] = {
    "tanh RNN": (TANH.name,),
    "LSTM, PyTorch's start": (DEFAULT.name, forget_bias(0).name),
    "LSTM, forget bias 1": (forget_bias(1).name,),
    "LSTM, forget bias 5": (forget_bias(5).name,),
    "LSTM, chrono": (CHRONO.name,),
    "GRU": (GRU.name,),
}
#: The style of each, from the project's table.
LOOKS = [STYLES[list(TABLE).index(arms[0])] for arms in NETWORKS.values()]
FAINTEST = 1e-20  #: below it nothing is drawn: float32 could not tell it from nothing beside the last step's
CHANCE = 1 / 8  #: of naming the word, one of eight
UPDATES = (250, 500, 1000, 2000, 4000)
SIZE = (12.5, 4.3)  # inches


def save_overview(out: Path) -> Path | None:
    """`out/overview.png`, from the studies' files there; None if one of them was not run. Raises: DiskError."""
    tables = {}
    for study in STUDIES:
        data = read(study, "standard", out)
        if data is None:
            return None
        tables[study] = Rows([Row.from_data(row) for row in data["rows"]])
    figure, path = overview_figure(tables), out / OVERVIEW
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise DiskError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        plt.close(figure)
    return path


def overview_figure(tables: Mapping[str, Rows]) -> Figure:
    """A panel for each of `STUDIES`."""
    figure, panels = plt.subplots(1, 3, figsize=SIZE, layout="constrained")
    _gradient(panels[0], tables["gradient"])
    _accuracies(panels[1], tables["keyword"])
    _updates(panels[2], tables["adding"])
    handles = [Line2D([], [], **_style(k)) for k in range(len(NETWORKS))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(NETWORKS), frameon=False)
    return figure


def _networks(table: Rows) -> Iterator[tuple[int, list[Row]]]:
    """The number of each network that the study has, and its rows by length (`T=50`; other settings are left out)."""
    for k, arms in enumerate(NETWORKS.values()):
        rows = [row for row in table if row.arm in arms and _length(row) is not None]
        if rows:
            yield k, rows


def _length(row: Row) -> int | None:
    number = row.setting.removeprefix("T=")
    return int(number) if number.isdigit() else None


def _lengths(rows: Iterable[Row]) -> list[int]:
    return [length for row in rows if (length := _length(row)) is not None]


def _style(k: int) -> dict[str, Any]:
    looks = {"color": LOOKS[k].on_white, "marker": LOOKS[k].marker, "label": list(NETWORKS)[k]}
    return {**looks, "markersize": 5, "linewidth": 1.8}


def _gradient(axes: Axes, table: Rows) -> None:
    """Solid: of the output h, for every network; dotted: of an LSTM's memory c."""
    names = ("at_the_first_step", "half_way", "three_quarters", "at_the_last_step")
    back = [PLACES[-1] - place for place in PLACES]
    for k, (row,) in _networks(table):
        whole = row.median("at_the_last_step")
        axes.plot(back, [row.median(name) / whole for name in names], **_style(k))
    for k, arms in enumerate(NETWORKS.values()):
        for row in (row for arm in arms for row in table.arm(memory(arm))):
            whole = row.median("at_the_last_step")
            looks = {"color": LOOKS[k].on_white, "linestyle": ":", "linewidth": 1.8}
            axes.plot(back, [row.median(name) / whole for name in names], **looks)
    axes.set_yscale("log")
    axes.set_ylim(FAINTEST, 1e3)
    axes.invert_xaxis()
    axes.set(xlabel="steps before the answer", ylabel="gradient, as a share of the last step's")
    _title(axes, "How much gradient comes back", "untrained, T = 200; solid: ∂L/∂h, dotted: ∂L/∂c")


def _accuracies(axes: Axes, table: Rows) -> None:
    """Points of one length are drawn side by side, since many lie at chance."""
    ticks = sorted(set(_lengths(table)))
    axes.axhline(CHANCE, color="0.5", linewidth=1, linestyle="--")
    axes.annotate("chance", (ticks[-1], CHANCE), (0, -11), textcoords="offset points", fontsize=8, ha="right")
    for k, rows in _networks(table):
        x = [length + 2.5 * (k - 2) for length in _lengths(rows)]
        middle = [row.median("metric") for row in rows]
        spread = [
            [m - min(row.values("metric")) for m, row in zip(middle, rows, strict=True)],
            [max(row.values("metric")) - m for m, row in zip(middle, rows, strict=True)],
        ]
        axes.plot(x, middle, **_style(k))
        axes.errorbar(x, middle, spread, fmt="none", ecolor=LOOKS[k].on_white, elinewidth=1.2, alpha=0.6)
    axes.set_xticks(ticks)
    axes.set_ylim(0, 1.04)
    axes.set(xlabel="length T", ylabel="right answers")
    _title(axes, "A word from the start, named at the end", "first keyword recall; median and range of five seeds")


def _updates(axes: Axes, table: Rows) -> None:
    """A network that most seeds did not solve is drawn at the budget's end, hollow and joined to nothing."""
    for k, rows in _networks(table):
        lengths, until = _lengths(rows), [row.median_steps for row in rows]
        axes.plot(
            lengths, [y if math.isfinite(y) else math.nan for y in until], color=LOOKS[k].on_white, linewidth=1.8
        )
        for row, x, y in zip(rows, lengths, until, strict=True):
            axes.plot(x, min(y, row.steps), **_style(k), fillstyle="full" if math.isfinite(y) else "none")
    axes.set_yscale("log")
    axes.set_yticks(UPDATES, [f"{n:,}" for n in UPDATES])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(set(_lengths(table))))
    axes.set(xlabel="length T", ylabel="updates to solve it (median)")
    _title(axes, "Two far numbers, added", "adding problem; hollow: not solved in as many")


def _title(axes: Axes, what: str, how: str) -> None:
    axes.set_title(f"{what}\n", fontsize=10.5, fontweight="bold", loc="left")
    axes.text(0, 1.02, how, transform=axes.transAxes, fontsize=9, color="0.35")
    axes.grid(alpha=0.3)
