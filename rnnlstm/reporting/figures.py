"""The charts of a comparison as PNG files, drawn with matplotlib; and the benchmark's figure."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from rnnlstm.config.errors import writing
from rnnlstm.record.files import write_output
from rnnlstm.record.folders import as_name
from rnnlstm.record.heatmap import HIGH, LOW, colours
from rnnlstm.reporting import charts
from rnnlstm.reporting.charts import MOST_GROUPS, Chart, FlowMap, Line, Reach, TaskGroup, grouped
from rnnlstm.reporting.colours import PALETTE, STYLES
from rnnlstm.reporting.records import Flow
from rnnlstm.reporting.runs import Run, shortened

MOST_MAPS = 6
LONGEST_LABEL = 60  # characters in a legend
FLOW_COLOURS = ListedColormap(colours(np.linspace(LOW, HIGH, 256)) / 255.0)


def save_figures(runs: Sequence[Run], folder: str, chosen: Collection[str] = ()) -> list[Path]:
    """`learning_curves.png`, `survival.png`, `reach.png` where a network was trained at several lengths, and an
    overview of each task and length that has records of the gradient through time: `overview.png`, or
    `overview_<task>_T<length>.png` where there are several.

    `chosen` are the keys of which each run has the best value.

    However many runs there are, at most eight tasks and lengths are drawn, and eight configurations of each.
    Raises: DiskError.
    """
    paths = []
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():  # names are no formulas
        warnings.filterwarnings("ignore", "Glyph")  # and may be written in letters that the font lacks
        with writing(f"figures in {folder}"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, figure in _figures(runs, chosen):
                paths.append(Path(folder) / name)
                save_picture(figure, paths[-1], 110)
    return paths


def save_picture(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as PNG, whole or not at all, and close it. Raises: OSError."""
    picture = io.BytesIO()
    try:
        figure.savefig(picture, format="png", dpi=dpi)
    finally:
        plt.close(figure)
    write_output(path, picture.getvalue())


def _figures(runs: Sequence[Run], chosen: Collection[str]) -> Iterator[tuple[str, Figure]]:
    groups = grouped(runs)
    yield "learning_curves.png", learning_figure(groups[:MOST_GROUPS])
    yield "survival.png", solving_figure(groups[:MOST_GROUPS])
    if networks := charts.reaches(runs, chosen):
        yield "reach.png", reach_figure(networks)
    for group in groups[:MOST_GROUPS]:
        maps = [flow_map for flow_map in charts.flow_maps(group) if flow_map.state == "h"]
        if maps:
            length = group.runs[0].config.get("task.length")
            name = "overview.png" if len(groups) == 1 else f"overview_{as_name(group.task)}_T{length}.png"
            yield name, overview_figure(group, maps)


def learning_figure(groups: Sequence[TaskGroup]) -> Figure:
    """A column for each task and length: the headline metric above, the loss with baseline and plateaus below."""
    figure, axes = _columns(groups, 2, 8)
    for column, group in zip(axes.T, groups, strict=True):
        for axis, chart in zip(column, charts.learning_charts(group).values(), strict=False):
            draw(axis, chart)
        _legend(column[-1], _handles(group))
    _caption(figure, charts.learning_caption(groups))
    return figure


def solving_figure(groups: Sequence[TaskGroup]) -> Figure:
    """A column for each task and length: the share of seeds that have solved it, by update."""
    figure, axes = _columns(groups, 1, 4.6)
    for axis, group in zip(axes[0], groups, strict=True):
        draw(axis, charts.solving_chart(group))
        _legend(axis)
    _caption(figure, charts.solving_caption(groups))
    return figure


def reach_figure(networks: Sequence[Reach]) -> Figure:
    """A column for each task: the share of seeds that solve it, by length; networks that reach farthest first."""
    tasks = dict(list(charts.by_reach(networks).items())[:MOST_GROUPS])
    size = (1 + 6 * len(tasks), 4.2 + 0.22 * max(min(len(m), charts.MOST_SHOWN) for m in tasks.values()))
    figure, axes = plt.subplots(1, len(tasks), figsize=size, squeeze=False, layout="constrained")
    for axis, (task, members) in zip(axes[0], tasks.items(), strict=True):
        draw(axis, charts.reach_chart(task, members))
        axis.set_title(task, fontsize=11)
        _legend(axis)
    _caption(figure, charts.REACH)
    return figure


def overview_figure(group: TaskGroup, maps: Sequence[FlowMap]) -> Figure:
    """One task's learning curves, and beside them each configuration's gradient through time, all on one scale. Of
    more than `MOST_MAPS` it shows the first ones, and says so."""
    maps, left_out = maps[:MOST_MAPS], len(maps[MOST_MAPS:])
    figure = plt.figure(figsize=(12, 2 + 1.9 * max(2, len(maps))), layout="constrained")
    figure.suptitle(group.title)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.25))[0]
    upper, lower = left.subplots(2, 1)
    for axis, chart in zip((upper, lower), charts.learning_charts(group).values(), strict=False):
        draw(axis, chart)
    upper.set_title("learning: median and band over seeds", fontsize=11)
    _legend(lower, _handles(group))
    rows = right.subplots(len(maps), 1, squeeze=False)[:, 0]
    for axis, flow_map in zip(rows, maps, strict=True):
        image = draw_map(axis, flow_map.flow)
        axis.set_title(
            shortened(flow_map.name, LONGEST_LABEL), fontsize=9, loc="left", color=PALETTE[flow_map.shown.style]
        )
    more = f"\n{left_out} more networks: compare --html shows their maps" if left_out else ""
    rows[-1].set_xlabel(f"steps back from the answer{more}")
    bar = right.colorbar(image, ax=list(rows), extend="both", ticks=range(int(LOW), int(HIGH) + 1, 2))
    bar.ax.set_yticklabels([charts.power(k) for k in range(int(LOW), int(HIGH) + 1, 2)])
    bar.set_label("gradient in h, against that at the answer")
    _caption(figure, charts.MAPS)
    return figure


def draw(axis: Axes, chart: Chart) -> None:
    """A chart into a pair of axes."""
    x_axis, y_axis = chart.axes()
    for line in chart.lines:
        _draw_line(axis, line)
    for dot in chart.dots:
        marker, size, edge = ("|", 9, 1.5) if dot.tick else (STYLES[dot.style].marker, 6, 1)
        axis.plot(dot.x, dot.y, color=PALETTE[dot.style], marker=marker, markersize=size, markeredgewidth=edge)
    for level in chart.levels:
        axis.axhline(level.value, color="0.35", linestyle="--", linewidth=1)
        at = ("axes fraction", "data")
        axis.annotate(level.name, (1, level.value), (-4, 3), at, "offset points", ha="right", fontsize=8)
    for axes_of, side in ((x_axis, "x"), (y_axis, "y")):
        axis.set(**{f"{side}lim": axes_of.range, f"{side}label": axes_of.label})
        places, texts = zip(*axes_of.ticks, strict=True) if axes_of.ticks else ((), ())
        axis.set(**{f"{side}ticks": places, f"{side}ticklabels": texts})
    axis.grid(alpha=0.3)


def _draw_line(axis: Axes, line: Line) -> None:
    looks = _looks(line.style, line.width)
    name = shortened(line.name, LONGEST_LABEL)
    label = f"{name}: {line.note}" if line.note else name
    if line.kind == "interval":
        label, looks = "_nolegend_", {"color": PALETTE[line.style], "linewidth": 1}
    axis.plot(line.x, line.y, label=label, **looks)
    if line.low is not None and line.high is not None and np.isfinite(line.low).any():
        axis.fill_between(line.x, line.low, line.high, color=PALETTE[line.style], alpha=0.15, linewidth=0)


def _looks(style: int, width: float = 1.0) -> dict[str, Any]:
    """A line's, as matplotlib has them; it counts dashes in widths of the line."""
    dashes = [length / (1.8 * width) for length in STYLES[style].dashes]
    return {"color": PALETTE[style], "linewidth": 1.8 * width, "linestyle": (0, dashes) if dashes else "-"}


def draw_map(axis: Axes, flow: Flow) -> AxesImage:
    """Steps back from the answer to the left, training down, colours on the fixed scale."""
    steps, K = flow.steps, flow.by_step.shape[1]
    image = axis.imshow(
        np.clip(np.nan_to_num(flow.by_step, neginf=2 * LOW), 2 * LOW, 2 * HIGH), cmap=FLOW_COLOURS,
        norm=Normalize(LOW, HIGH), aspect="auto", extent=(-0.5, K - 0.5, len(steps) - 0.5, -0.5),
        interpolation="nearest",
    )  # fmt: skip
    axis.invert_xaxis()
    places, texts = zip(*charts.round_ticks(0, K - 1), strict=True)
    axis.set_xticks(places, texts)
    rows = sorted({0, len(steps) // 2, len(steps) - 1})
    axis.set_yticks(rows, [f"{steps[row]:,}" for row in rows])
    axis.set_ylabel("update")
    return image


def _columns(groups: Sequence[TaskGroup], rows: int, height: float) -> tuple[Figure, np.ndarray]:
    size = (1 + 5.5 * len(groups), height + 0.2 * max(len(group.shown) for group in groups))
    figure, axes = plt.subplots(rows, len(groups), figsize=size, squeeze=False, layout="constrained")
    for axis, group in zip(axes[0], groups, strict=True):
        shown = f" (first {len(group.shown)} of {len(group.runs)})" if group.left_out else ""
        axis.set_title(group.title + shown, fontsize=11)
    return figure, axes


def _handles(group: TaskGroup) -> list[Line2D]:
    """A legend's entries: all configurations of the group."""
    return [Line2D([], [], label=shortened(s.name, LONGEST_LABEL), **_looks(s.style)) for s in group.shown]


def _legend(axis: Axes, handles: Sequence[Line2D] | None = None) -> None:
    """Below the axes, where it covers no line."""
    entries = handles or axis.get_legend_handles_labels()[0]
    if entries:
        axis.legend(
            handles=entries, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.15), frameon=False, handlelength=4
        )


def _caption(figure: Figure, words: str) -> None:
    text = textwrap.fill(words, int(figure.get_figwidth() * 14))
    figure.supxlabel(text, fontsize=8, x=0.01, ha="left", color="0.25")


def speed_figure(recurrences: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The benchmark: a panel for each cell, work of a step (B·T·H² multiply-adds) across, how many times faster than
    PyTorch's module up, sizes of H in colours."""
    cells = list(dict.fromkeys(r["cell"] for r in recurrences))
    figure, axes = plt.subplots(
        1, len(cells), figsize=(4 * len(cells), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for cell, axis in zip(cells, axes[0], strict=True):
        of_cell = [r for r in recurrences if r["cell"] == cell]
        for H in sorted({r["H"] for r in of_cell}):
            points = [(r["B"] * r["T"] * H * H, r["ratio"]) for r in of_cell if r["H"] == H]
            axis.plot(*zip(*points, strict=True), "o", markersize=5, alpha=0.8, label=f"H = {H}")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(title=cell, xscale="log", yscale="log", xlabel="B·T·H²")
        axis.grid(alpha=0.3, which="both")
    first = axes[0, 0]
    first.set_ylabel("times faster than torch.nn")
    first.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    first.legend(frameon=False, fontsize=8)
    save_picture(figure, path, 90)
