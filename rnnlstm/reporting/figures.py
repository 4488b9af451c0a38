"""Pictures of a comparison: learning curves with bands and baselines, and the gradient through time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from rnnlstm.exits import DiskError
from rnnlstm.record.files import read_lines
from rnnlstm.record.heatmap import HIGH, LOW, colours
from rnnlstm.record.seed_record import METRICS
from rnnlstm.reporting.curves import evaluation_curve, flow_map
from rnnlstm.reporting.runs import Run, by_task, label

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

#: Okabe & Ito's colours, which most colour-blind readers tell apart; no more lines than these in one panel.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MOST_MAPS = 6
FLOW_COLOURS = ListedColormap(colours(np.linspace(LOW, HIGH, 256)) / 255.0)


def save_figures(runs: Sequence[Run], folder: str) -> list[Path]:
    """`learning_curves.png`, and an overview of each task and length that has records of the gradient through time:
    `overview.png`, or `overview_<task>_T<length>.png` where there are several.

    Raises: DiskError.
    """
    figures = {"learning_curves.png": learning_curves(runs)}
    groups = by_task(runs)
    for (task, length), members in groups.items():
        if any(flow_map(run) is not None for run in members):
            name = "overview.png" if len(groups) == 1 else f"overview_{task}_T{length}.png"
            figures[name] = overview(members)
    paths = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            paths.append(Path(folder) / name)
            figure.savefig(paths[-1], dpi=110)
    except OSError as error:
        raise DiskError(f"can't write figures in {folder}: {error.strerror}") from None
    finally:
        for figure in figures.values():
            plt.close(figure)
    return paths


def learning_curves(runs: Sequence[Run]) -> Figure:
    """A column for each task and length: the headline metric above, the loss with baseline and plateaus below."""
    groups = by_task(runs)
    figure, axes = plt.subplots(2, len(groups), figsize=(1 + 5.5 * len(groups), 7), squeeze=False, sharex="col")
    for (upper, lower), ((task, length), members) in zip(axes.T, groups.items(), strict=True):
        metric = members[0].seeds[0]["metric_name"]
        upper.set_title(f"{task}, T = {length}")
        draw_curves(upper, members, f"eval/{metric}", metric)
        draw_curves(lower, members, "eval/loss", "held-out loss")
        draw_baselines(lower, members[0])
        upper.legend(fontsize=8)
        lower.set_xlabel("update")
    figure.tight_layout()
    return figure


def overview(runs: Sequence[Run]) -> Figure:
    """One task's learning curves, and beside them each configuration's gradient through time, all on one scale."""
    maps = [(run, found) for run in runs if (found := flow_map(run)) is not None][:MOST_MAPS]
    figure = plt.figure(figsize=(12, 1.2 + 1.9 * max(2, len(maps))), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.25))[0]
    upper, lower = left.subplots(2, 1, sharex=True)
    shown = [run for run, _ in maps]
    metric = shown[0].seeds[0]["metric_name"]
    draw_curves(upper, shown, f"eval/{metric}", metric)
    draw_curves(lower, shown, "eval/loss", "held-out loss")
    draw_baselines(lower, shown[0])
    upper.legend(fontsize=8)
    upper.set_title("learning (median, band over seeds)")
    lower.set_xlabel("update")
    panels = right.subplots(len(maps), 1, squeeze=False)[:, 0]
    for panel, (run, (steps, ratios)) in zip(panels, maps, strict=True):
        image = draw_flow(panel, steps, ratios)
        panel.set_title(label(run, runs), fontsize=9, loc="left")
    panels[-1].set_xlabel("time step in the sequence (the answer is given at the last)")
    bar = right.colorbar(image, ax=list(panels), extend="both", ticks=range(int(LOW), int(HIGH) + 1, 2))
    bar.set_label("gradient reaching h, log10 of the ratio to the last step")
    return figure


def draw_curves(axes: Axes, runs: Sequence[Run], tag: str, name: str) -> None:
    """Median and band of a tag, a colour for each configuration."""
    for run, colour in zip(runs, PALETTE, strict=False):
        curve = evaluation_curve(run, tag)
        if curve is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a step at which no seed has a value
            low, median, high = curve.band()
        axes.fill_between(curve.steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(curve.steps, median, color=colour, label=label(run, runs))
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)
    if len(runs) > len(PALETTE):
        axes.set_title(f"{axes.get_title()} (first {len(PALETTE)} of {len(runs)})")


def draw_baselines(axes: Axes, run: Run) -> None:
    """The task's baseline and plateaus, named on their lines. The axis ends at twice the baseline: an untrained
    network's loss may be far above it."""
    for tag in ("baseline/loss", *_plateau_tags(run)):
        curve = evaluation_curve(run, tag)
        if curve is not None:
            value = curve.values[0, 0]
            if tag == "baseline/loss":
                axes.set_ylim(0, min(axes.get_ylim()[1], 2 * value))
            axes.axhline(value, color="0.35", linestyle="--", linewidth=1)
            name = "baseline: no input seen" if tag == "baseline/loss" else tag.partition("/")[2].replace("_", " ")
            axes.annotate(
                name, (1, value), (-4, 3), ("axes fraction", "data"), "offset points", ha="right", fontsize=8
            )


def draw_flow(axes: Axes, steps: Sequence[int], ratios: np.ndarray) -> mpl.image.AxesImage:
    """Time step across, training step down, colours on the fixed scale."""
    K = ratios.shape[1]
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


def _plateau_tags(run: Run) -> list[str]:
    first = next(iter(read_lines(run.folder / f"seed_{run.seeds[0]['seed']}" / METRICS)), {})
    return [tag for tag in first if tag.startswith("baseline/") and tag != "baseline/loss"]
