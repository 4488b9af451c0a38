"""A study's figure: a panel for each setting or a line for each network over the settings, every seed a dot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from rnnlstm.reporting.colours import PALETTE, STYLES, named_network, style_numbers
from rnnlstm.reporting.figures import save_picture
from rnnlstm.reporting.statistics import wilson
from rnnlstm.studies.study import Row, Rows, Study, name_of

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

ACROSS = 4  #: panels beside each other


def save_figure(study: Study, rows: Sequence[Row], path: Path) -> None:
    """A panel for each setting: networks down, every seed a dot, the median a bar; or the study's
    scatter plots. Raises: OSError."""
    if study.scatter:
        save_picture(scatter_plots(rows, study.scatter), path, 90)
        return
    table = Rows(rows)
    what = _drawn(study, rows)
    settings = _panels(table, what)
    count = max(len(table.of(setting)) for setting in settings)
    across = min(len(settings), ACROSS)
    down = -(-len(settings) // across)
    figure, axes = panels(down, across, 2.2 + 2.6 * across, 0.3 + (0.8 + 0.27 * count) * down)
    for panel in axes.flat[len(settings) :]:
        panel.axis("off")
    for panel, setting in zip(axes.flat, settings, strict=False):
        _draw(panel, table.of(setting), what, study.log_scale)
        panel.set_title(setting, fontsize=9)
    figure.supxlabel(axis_label(study, rows), fontsize=9)
    save_picture(figure, path, 90)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure of that size in inches, and its panels (rows, columns)."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")


def draw_share_map(axes: Axes, shares: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Shares between 0 and 1 as colours with their numbers; NaN stays empty."""
    axes.imshow(shares, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (y, x), share in np.ndenumerate(shares):
        if not math.isnan(share):
            colour = "black" if share > 0.6 else "white"
            axes.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)


def scatter_plots(rows: Sequence[Row], names: Sequence[str]) -> Figure:
    """Updates to solve against each of the scores: a colour for each network, a mark for each setting, hollow where a
    seed did not solve the task, at its budget."""
    table, colours = Rows(rows), _colours(rows)
    figure, axes = plt.subplots(
        1, len(names), figsize=(2.6 + 3.4 * len(names), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    marks = {setting: STYLES[k % len(STYLES)].marker for k, setting in enumerate(table.settings)}
    for panel, name in zip(axes[0], names, strict=True):
        for row in rows:
            for value, step in zip(row.scores[name], row.steps_to_solve, strict=True):
                if value is not None:
                    full = {"color": colours[row.arm], "alpha": 0.7, "markeredgewidth": 0.8}
                    fill = {} if step is not None else {"markerfacecolor": "none"}
                    y = row.steps if step is None else step
                    panel.plot(value, y, marks[row.setting], markersize=5, **full, **fill)
        panel.set_xlabel(name_of(name), fontsize=9)
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(ScalarFormatter())
        panel.yaxis.set_minor_formatter(ScalarFormatter())
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8, which="both")
    axes[0, 0].set_ylabel("updates to solve", fontsize=9)
    handles = [Line2D([], [], color=colour, marker="o", linestyle="", label=arm) for arm, colour in colours.items()]
    handles += [Line2D([], [], color="0.3", marker=m, linestyle="", label=setting) for setting, m in marks.items()]
    figure.legend(handles=handles, loc="outside right center", fontsize=7.5, frameon=False)
    return figure


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    """The colour of each row's arm; rows of one network have one colour."""
    networks = {row.arm: named_network(row.arm) or row.arm for row in rows}
    distinct = list(dict.fromkeys(networks.values()))
    numbers = dict(zip(distinct, style_numbers(distinct, distinct), strict=True))
    return {arm: PALETTE[numbers[network]] for arm, network in networks.items()}


def _drawn(study: Study, rows: Sequence[Row]) -> str:
    names = (study.figure,) if isinstance(study.figure, str) else study.figure
    return next((name for name in names if any(name in row.scores for row in rows)), names[0])


def _panels(table: Rows, what: str) -> list[str]:
    settings = [s for s in table.settings if what == "solved" or any(row.values(what) for row in table.of(s))]
    return settings or table.settings


def axis_label(study: Study, rows: Sequence[Row]) -> str:
    what = _drawn(study, rows)
    if what == "metric":
        return " / ".join(dict.fromkeys(row.metric_name.replace("_", " ") for row in rows))
    return {"steps": "updates to solve", "solved": "share of seeds that solve it"}.get(what, name_of(what))


def _draw(axes: Axes, rows: Sequence[Row], what: str, log_scale: bool) -> None:
    colours = _colours(rows)
    for y, row in enumerate(rows):
        colour = colours[row.arm]
        if what == "solved":
            low, high = wilson(row.solved_count, row.n)
            axes.plot([low, high], [y, y], color=colour, linewidth=3, alpha=0.35)
            axes.plot(row.solved_count / max(row.n, 1), y, "o", color=colour, markersize=5)
            axes.set_xlim(-0.03, 1.03)
            if row.diverged_count:
                told, at = f"{row.diverged_count} of {row.n} diverged", 0.99 if row.solved_count < row.n / 2 else 0.6
                axes.text(at, y, told, fontsize=7, color="0.25", va="center", ha="right")
            continue
        values = row.values(what)
        shown = [v for v in values if v > 0] if log_scale else values
        axes.plot(shown, [y] * len(shown), "o", color=colour, markersize=3.5, alpha=0.6, markeredgewidth=0)
        middle = row.median_steps if what == "steps" else row.median(what)  # infinite: most seeds did not solve it
        if math.isfinite(middle) and (middle > 0 or not log_scale):
            axes.plot([middle, middle], [y - 0.32, y + 0.32], color=colour, linewidth=2)
        if not values:
            axes.annotate("none", (0.02, y), xycoords=("axes fraction", "data"), fontsize=7, color="0.4", va="center")
        elif what == "steps" and len(values) < row.n:
            said = f"{len(values)} of {row.n}"
            axes.annotate(
                said, (max(values), y), (5, 0), textcoords="offset points", fontsize=7, color="0.4", va="center"
            )
    axes.set_yticks(range(len(rows)), [row.arm for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if log_scale:
        axes.set_xscale("log")
    elif what == "steps":  # the budget's end, and room for what stands beside a dot there
        axes.set_xlim(0, 1.25 * max(row.steps for row in rows))
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="x", labelsize=8)
