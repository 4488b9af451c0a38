"""Pictures of a comparison: learning curves with bands and baselines, and the gradient through time."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from rnnlstm.record.heatmap import HIGH, LOW, colours
from rnnlstm.reporting.colours import PALETTE, colour_numbers
from rnnlstm.reporting.curves import evaluation_curve
from rnnlstm.reporting.flow import Flow, flows
from rnnlstm.reporting.runs import Run, by_task, labels, task_title

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

MOST_MAPS = 6
LARGEST = 1e30  #: what is larger, or no number, leaves a gap in a curve: axes can't be divided to hold it
MOST_PANELS = 8  # tasks and lengths in one picture
LONGEST_LABEL = 60  # characters in a legend
FLOW_COLOURS = ListedColormap(colours(np.linspace(LOW, HIGH, 256)) / 255.0)


def panels(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each task and length by title, the first of each: no more than can be told apart."""
    groups = by_task(runs)
    titled = {}
    for (task, length), members in list(groups.items())[:MOST_PANELS]:
        count = f" (first {len(PALETTE)} of {len(members)})" if len(members) > len(PALETTE) else ""
        titled[task_title(task, length) + count] = members[: len(PALETTE)]
    return titled


def learning_curves(runs: Sequence[Run]) -> Figure:
    """A column for each task and length: the headline metric above, the loss with baseline and plateaus below."""
    titled = panels(runs)
    figure, axes = plt.subplots(2, len(titled), figsize=(1 + 5.5 * len(titled), 7), squeeze=False, sharex="col")
    for (upper, lower), (title, members) in zip(axes.T, titled.items(), strict=True):
        metric = _metric(members)
        upper.set_title(title)
        draw_curves(upper, members, f"eval/{metric}", metric, labels(members, LONGEST_LABEL))
        draw_curves(lower, members, "eval/loss", "held-out loss", labels(members, LONGEST_LABEL))
        draw_baselines(lower, members[0])
        _legend(upper)
        lower.set_xlabel("update")
    figure.tight_layout()
    return figure


def overview(runs: Sequence[Run]) -> Figure:
    """One task's learning curves, and beside them each configuration's gradient through time, all on one scale."""
    found = ((run, drawn) for run in runs[: 4 * MOST_MAPS] if (drawn := flows(run).get("hidden")) is not None)
    maps = list(itertools.islice(found, MOST_MAPS))
    figure = plt.figure(figsize=(12, 1.2 + 1.9 * max(2, len(maps))), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.25))[0]
    upper, lower = left.subplots(2, 1, sharex=True)
    shown = [run for run, _ in maps]
    names = labels(shown, LONGEST_LABEL)
    metric = _metric(shown)
    draw_curves(upper, shown, f"eval/{metric}", metric, names)
    draw_curves(lower, shown, "eval/loss", "held-out loss", names)
    draw_baselines(lower, shown[0])
    _legend(upper)
    upper.set_title("learning (median, band over seeds)")
    lower.set_xlabel("update")
    rows = right.subplots(len(maps), 1, squeeze=False)[:, 0]
    for panel, name, (_, flow) in zip(rows, names, maps, strict=True):
        image = draw_flow(panel, flow)
        panel.set_title(name, fontsize=9, loc="left")
    rows[-1].set_xlabel("time step in the sequence (the answer is given at the last)")
    bar = right.colorbar(image, ax=list(rows), extend="both", ticks=range(int(LOW), int(HIGH) + 1, 2))
    bar.set_label("gradient reaching h, log10 of the ratio to the last step")
    return figure


def draw_curves(axes: Axes, runs: Sequence[Run], tag: str, name: str, names: Sequence[str]) -> None:
    """Median and band of a tag, a colour for each configuration; `names` for the legend."""
    for run, label, number in zip(runs, names, colour_numbers(names), strict=True):
        colour = PALETTE[number]
        curve = evaluation_curve(run, tag)
        if curve is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a step at which no seed has a value
            low, median, high = curve.band()
        low, median, high = (np.where(abs(line) <= LARGEST, line, np.nan) for line in (low, median, high))
        axes.fill_between(curve.steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(curve.steps, median, color=colour, label=label)
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)


def draw_baselines(axes: Axes, run: Run) -> None:
    """The task's baseline and plateaus, named on their lines. The axis ends at twice the baseline: an untrained
    network's loss may be far above it."""
    for tag in ("baseline/loss", *_plateau_tags(run)):
        curve = evaluation_curve(run, tag)
        if curve is not None:
            value = next((v for v in curve.values.flat if abs(v) <= LARGEST), None)
            if value is None:
                continue
            if tag == "baseline/loss" and value > 0:
                axes.set_ylim(0, min(axes.get_ylim()[1], 2 * value))
            axes.axhline(value, color="0.35", linestyle="--", linewidth=1)
            name = "baseline: no input seen" if tag == "baseline/loss" else tag.partition("/")[2].replace("_", " ")
            axes.annotate(
                name, (1, value), (-4, 3), ("axes fraction", "data"), "offset points", ha="right", fontsize=8
            )


def draw_flow(axes: Axes, flow: Flow) -> mpl.image.AxesImage:
    """Time step across, training step down, colours on the fixed scale."""
    steps, ratios, K = flow.steps, flow.by_step, flow.by_step.shape[1]
    image = axes.imshow(
        np.clip(np.nan_to_num(ratios[:, ::-1], neginf=2 * LOW), 2 * LOW, 2 * HIGH),
        cmap=FLOW_COLOURS,
        norm=Normalize(LOW, HIGH),
        aspect="auto",
        extent=(0.5, K + 0.5, len(steps) - 0.5, -0.5),
        interpolation="nearest",
    )
    rows = sorted({0, len(steps) // 2, len(steps) - 1})
    axes.set_yticks(rows, [str(steps[row]) for row in rows])
    axes.set_ylabel("update")
    return image


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:  # there may be nothing to draw yet
        axes.legend(fontsize=8)


def _metric(runs: Sequence[Run]) -> str:
    """The headline metric's name."""
    return next((str(seed["metric_name"]) for run in runs for seed in run.seeds if seed["metric_name"]), "metric")


def _plateau_tags(run: Run) -> list[str]:
    first = next((seed for seed in run.series if seed), {})
    return [tag for tag in first if tag.startswith("baseline/") and tag != "baseline/loss"]
