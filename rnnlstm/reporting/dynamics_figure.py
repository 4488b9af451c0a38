"""The page of `gradflow show=dynamics`: states, fixed points, cycles, eigenvalues, time constants, what is kept."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.dynamics import Dynamics, Orbit, answers, time_constants
from rnnlstm.reporting.colours import PALETTE

MOST_TEXTS = 48  #: whose trajectories are drawn
MOST_SHOWN = 8  #: orbits with eigenvalues
#: Marks by kind of orbit.
MARKS = {"fixed point": "o", "slow point": "D", "cycle": "s"}
RIGHT, TOLD = PALETTE[9], "black"  #: colours of the last panel
LONGEST = 1e4  #: time constants in steps that are drawn


def dynamics_figure(found: Sequence[tuple[str, AnalysedNetwork, Dynamics]]) -> Figure:
    """A row for each network. States on their two principal components, a colour for each class that is to be
    answered; eigenvalues beside the unit circle; time constants against T; what answers keep under held input."""
    figure, axes = plt.subplots(
        len(found), 4, figsize=(18, 0.9 + 4.3 * len(found)), squeeze=False, layout="constrained",
        gridspec_kw={"width_ratios": [1.25, 1, 1, 1]},
    )  # fmt: skip
    for (name, _, d), row in zip(found, axes, strict=True):
        _draw_states(row[0], d)
        row[0].set_title(textwrap.fill(name, 44), fontsize=10, loc="left")
        _draw_eigenvalues(row[1], d)
        _draw_time_constants(row[2], d)
        _draw_kept(row[3], d)
    titles = ("", "eigenvalues λ at the points", "time constants −1/ln|λ|", "input held: what the answers keep")
    for axis, title in zip(axes[0, 1:], titles[1:], strict=True):
        axis.set_title(title, fontsize=10, loc="left")
    _legend(figure, found)
    return figure


def _colours(d: Dynamics, values: Tensor) -> list[object]:
    """A colour for each class number, or for each number by its place in the range of targets."""
    if d.classes:
        return [PALETTE[int(k) % len(PALETTE)] for k in values]
    low, high = d.target.min().item(), d.target.max().item()
    place = (values.flatten(1)[:, 0] - low) / max(high - low, 1e-12) if values.dim() > 1 else (values - low)
    return [mpl.colormaps["viridis"](float(p)) for p in place]


def _colour(d: Dynamics, output: Tensor) -> object:
    return _colours(d, output.argmax()[None] if d.classes else output[None])[0]


def _draw_states(axis: Axes, d: Dynamics) -> None:
    paths = d.project(d.visited[:, :MOST_TEXTS]).numpy()  # (T − 1, B, 2)
    for path, colour in zip(paths.transpose(1, 0, 2), _colours(d, d.target[:MOST_TEXTS]), strict=True):
        axis.plot(path[:, 0], path[:, 1], "-", color=colour, alpha=0.35, linewidth=0.8)
        axis.plot(*path[-1], ".", color=colour, markersize=5, alpha=0.8)
    low, high = (np.nanquantile(paths, q, axis=(0, 1)) for q in (0, 1))
    margin = 0.25 * np.maximum(high - low, 1e-6)
    low, high = low - margin, high + margin
    middle, half, outside = (low + high) / 2, (high - low) / 2, 0
    for orbit in reversed(d.orbits):
        at = d.project(orbit.states).numpy()
        if orbit.period > 1:
            axis.plot(*np.vstack([at, at[:1]]).T, ":", color="0.3", linewidth=0.8)
        for place, output in zip(at, orbit.outputs, strict=True):
            beyond = float(np.max(np.abs(place - middle) / half))
            if beyond > 1:
                outside += 1
                place = middle + (place - middle) / beyond
            _mark(axis, place, orbit, _colour(d, output))
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    first, second = d.explained
    farther = f"\n{outside} on the border: farther out, in that direction" if outside else ""
    axis.set_xlabel(f"principal component 1 ({first:.0%} of the variance){farther}")
    axis.set_ylabel(f"component 2 ({second:.0%})")
    axis.grid(alpha=0.3)


def _mark(axis: Axes, place: np.ndarray, orbit: Orbit, colour: object) -> None:
    """Filled where every deviation shrinks, hollow where some grow."""
    face = colour if orbit.unstable == 0 else "white"
    axis.plot(
        *place, MARKS["cycle" if orbit.period > 1 else orbit.kind], color=colour, markerfacecolor=face,
        markeredgecolor="black" if face == colour else colour, markersize=11, markeredgewidth=1.4, clip_on=False,
        zorder=5,
    )  # fmt: skip


def _draw_eigenvalues(axis: Axes, d: Dynamics) -> None:
    """Of points, on the complex plane. Those of a cycle of p are taken to the power 1/p, so that |λ| is a step's."""
    angle = np.linspace(0, 2 * np.pi, 200)
    axis.plot(np.cos(angle), np.sin(angle), color="0.35", linewidth=1, linestyle="--")
    for orbit in reversed(d.orbits[:MOST_SHOWN]):
        values = orbit.eigenvalues ** (1 / orbit.period)
        axis.plot(values.real, values.imag, MARKS["cycle" if orbit.period > 1 else orbit.kind],
                  color=_colour(d, orbit.outputs[0]), markersize=5, alpha=0.8, linestyle="",
                  markerfacecolor=None if orbit.unstable == 0 else "none")  # fmt: skip
    axis.set_aspect("equal", adjustable="datalim")
    axis.set(xlabel="real part", ylabel="imaginary part")
    axis.grid(alpha=0.3)


def _draw_time_constants(axis: Axes, d: Dynamics) -> None:
    """Sorted, the slowest first; growing directions are left out."""
    for orbit in reversed(d.orbits[:MOST_SHOWN]):
        steps = orbit.time_constants
        steps = steps[steps > 0].sort(descending=True).values.clamp(max=LONGEST)
        axis.plot(range(1, len(steps) + 1), steps, "-", color=_colour(d, orbit.outputs[0]), linewidth=1.4)
    on_the_way = time_constants(d.on_the_way)
    on_the_way = torch.where(on_the_way < 0, torch.inf, on_the_way).sort(1, descending=True).values
    median = on_the_way.quantile(0.5, dim=0).clamp(max=LONGEST)
    axis.plot(range(1, len(median) + 1), median, ":", color="black", linewidth=1.6)
    axis.axhline(d.length, color="0.35", linestyle="--", linewidth=1)
    axis.annotate(f"T = {d.length}", (1, d.length), (-4, 3), ("axes fraction", "data"), "offset points", ha="right",
                  fontsize=8)  # fmt: skip
    axis.set(yscale="log", xscale="log", ylim=(0.1, 2 * LONGEST), xlabel="direction, the slowest first")
    axis.set_ylabel("steps")
    axis.grid(alpha=0.3)


def _draw_kept(axis: Axes, d: Dynamics) -> None:
    if not d.classes:
        axis.axis("off")
        axis.text(0.5, 0.5, "answers are numbers", ha="center", fontsize=9)
        return
    whole = min(2 * d.length, d.held)  # beyond, a cycle's steps could not be told apart
    for shares, colour in ((d.right, RIGHT), (d.told, TOLD)):
        axis.plot(range(1, whole + 1), shares[1 : whole + 1], color=colour, linewidth=1.2)
        steps = np.unique(np.geomspace(whole, d.held, 200).astype(int))
        means = [d.over(shares, int(step)) for step in steps]
        axis.plot(steps, means, color=colour, linewidth=2.4)
    axis.axhline(1 / d.choices, color="0.6", linestyle=":", linewidth=1)
    axis.axvline(d.length, color="0.35", linestyle="--", linewidth=1)
    axis.set_xscale("log")
    axis.set(ylim=(-0.04, 1.08), xlim=(1, d.held), xlabel="steps of held input (bold: mean over the last T)")
    axis.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    axis.set_ylabel("share of texts")
    axis.grid(alpha=0.3)


def _legend(figure: Figure, found: Sequence[tuple[str, AnalysedNetwork, Dynamics]]) -> None:
    look: dict[str, Any] = {"color": "0.3", "linestyle": "", "markersize": 9.0}
    handles = [
        Line2D([], [], marker="o", **look, label="fixed point, stable"),
        Line2D([], [], marker="o", markerfacecolor="white", **look, label="unstable: some deviations grow"),
        Line2D([], [], marker="D", **look, label="slow point"),
        Line2D([], [], marker="s", **look, label="cycle, its phases"),
        Line2D([], [], color="black", linestyle=":", label="on the way, before the question (median)"),
    ]
    _, subject, d = found[0]
    if d.classes:
        handles.append(Line2D([], [], color=RIGHT, linewidth=2.4, label="share of answers that are right"))
        handles.append(Line2D([], [], color=TOLD, linewidth=2.4, label="of answers that tell the class"))
        outputs = torch.eye(d.choices, dtype=torch.float64)[: len(PALETTE)]
        for name, colour in zip(answers(subject, outputs), PALETTE, strict=False):
            handles.append(Line2D([], [], color=colour, linewidth=4, label=name))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
