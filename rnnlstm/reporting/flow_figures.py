"""Figures of the gradient through time: decay, weight gradient by lag, Jacobians with bounds, Lyapunov exponents.

Ranges are fixed, so that two figures can be laid side by side.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from torch import Tensor

from rnnlstm.instruments.measurement import Measurement
from rnnlstm.reporting.flow_table import _steps

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnlstm.reporting.colours import PALETTE, colour_numbers

#: log10 of a gradient against that at the last scored position.
DECAY = (-20.0, 5.0)
DASHES = ("-", "--", "-.", ":")  # by layer


def gradient_figure(found: Sequence[Measurement]) -> Figure:
    """‖∂L/∂h_t‖ over the steps before the answer, and beside it ‖∂L/∂c_t‖ where there is one."""
    states = ["hidden", *(["cell"] if any("cell" in m.flow.total for m in found) else [])]
    figure, axes = plt.subplots(
        1, len(states), figsize=(6.4 * len(states), 4.6), sharey=True, squeeze=False, layout="constrained"
    )
    for state, axis in zip(states, axes[0], strict=True):
        for m, looks in zip(found, _looks(found), strict=True):
            if state not in m.flow.total:
                continue
            norms = m.flow.total[state][m.layer].log10()
            half_life = m.flow.half_life(state, m.layer)[0]
            label = f"{m.label}: half-life {_steps(half_life)} steps"
            axis.plot((norms - norms[0]).clamp(min=-400).numpy(), label=label, linewidth=1.8, **looks)
        letter = "h" if state == "hidden" else "c"
        _decay_axes(axis, f"$\\|\\partial L/\\partial {letter}_t\\|$, the total gradient", found)
        axis.set_xlabel("steps before the answer (lag)")
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1 + (len(found) > 4))
    axes[0, 0].set_ylabel("against the answer's step, log10")
    if "hidden" in states:
        axes[0, 0].plot(0, 0, "kv", markersize=7)
        axes[0, 0].annotate(
            "direct part: only here,\nnothing at any other step",
            (0, 0),
            (12, 8),
            textcoords="offset points",
            fontsize=8,
        )
    return figure


def weight_figure(found: Sequence[Measurement]) -> Figure:
    """The share of the weight gradient that comes from the last k steps."""
    figure, axis = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
    K = max(len(m.weights.share) for m in found)
    for m, looks in zip(found, _looks(found), strict=True):
        axis.plot(np.arange(1, len(m.weights.share) + 1), m.weights.share.numpy(), label=m.label, **looks)
    steps = np.arange(1, K + 1)
    axis.plot(steps, steps / K, color="0.6", linestyle=":", label="every step alike")
    axis.axhline(1, color="0.35", linestyle="--", linewidth=1)
    axis.set(
        xscale="log", ylim=(-0.25, 1.25), xlabel="steps used, counted back from the answer (k + 1)",
        ylabel=r"share of the weight gradient $\langle G_{\leq k}, G\rangle / \|G\|^2$",
    )  # fmt: skip
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left")
    return figure


def jacobian_figure(found: Sequence[Measurement]) -> Figure:
    """A panel per setting: singular values of ∂state_T/∂state_k by lag under their bounds."""
    figure, axes = panels(len(found), 4.6)
    for m, axis in zip(found, axes, strict=True):
        values = m.singular.clamp(min=-400)
        axis.plot(values[:, 0].numpy(), color=PALETTE[0], linewidth=2, label="largest singular value")
        median = values.quantile(0.5, dim=1)
        median[median < values[:, 0] - 15] = math.nan  # rounding of the largest
        axis.plot(median.numpy(), color=PALETTE[5], linewidth=1.2, label="median singular value")
        words = {"steps": "bound: product of the steps' norms", "weights": "bound: max φ' and σ of W, each step"}
        for (name, bound), style in zip(m.bounds.items(), ("--", ":"), strict=False):
            axis.plot(bound.numpy(), color="0.3", linestyle=style, label=words[name])
        if m.cell is not None:
            axis.plot(
                _finite(m.cell.along), color=PALETTE[1], linewidth=1.8, label="c to c along the cell: product of f"
            )
            axis.plot(_finite(m.cell.rest), color=PALETTE[2], linewidth=1.2, label="c to c through h: the rest")
        _decay_axes(axis, wrapped(m.label), found)
        axis.set_xlabel("lag: steps from k to T")
    handles = {text: h for axis in axes for h, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
    axes[0].set_ylabel("log10 of $\\partial state_T/\\partial state_k$")
    return figure


def lyapunov_figure(found: Sequence[Measurement]) -> Figure:
    """The spectrum of each setting; above zero directions explode."""
    figure, axis = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
    for m, looks in zip(found, _looks(found), strict=True):
        spectrum = m.lyapunov.numpy()
        axis.plot(np.linspace(0, 1, len(spectrum)), np.where(np.isfinite(spectrum), spectrum, np.nan),
                  label=f"{m.label}: largest {spectrum[0]:+.4f}", **looks)  # fmt: skip
    axis.axhline(0, color="0.35", linestyle="--", linewidth=1)
    axis.annotate(
        "explodes above, vanishes below", (1, 0), (-4, 4), ("data"), "offset points", ha="right", fontsize=8
    )
    axis.set(ylim=(-3, 0.5), xlabel="direction, from the slowest to the fastest (share of all)")
    axis.set_ylabel("Lyapunov exponent, nats a step")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower left")
    return figure


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """So many panels with one scale of values, at most four in a row."""
    rows = math.ceil(count / 4)
    columns = math.ceil(count / rows)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.6 * columns, height * rows), sharey=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def _looks(found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """A line's looks for each: the network's colour, the layer's dashes."""
    networks = list(dict.fromkeys(m.network for m in found))
    colours = dict(zip(networks, colour_numbers(networks), strict=True))
    return [{"color": PALETTE[colours[m.network]], "linestyle": DASHES[m.layer % len(DASHES)]} for m in found]


def wrapped(label: str) -> str:
    """A label as the title of one of these panels: a long one would run into its neighbour's."""
    return textwrap.fill(label, 48)


def _decay_axes(axis: Axes, title: str, found: Sequence[Measurement]) -> None:
    axis.set(ylim=DECAY, title=title, xlim=(-1, max(len(m.singular) for m in found)))
    axis.axhline(0, color="0.35", linestyle="--", linewidth=1)
    axis.axhline(math.log10(1.2e-7), color="0.7", linewidth=0.8)
    axis.annotate("float32 rounding", (1, math.log10(1.2e-7)), (-3, 2), ("axes fraction", "data"), "offset points",
                  ha="right", fontsize=7, color="0.5")  # fmt: skip
    axis.grid(alpha=0.3)


def _finite(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.numpy()
    return np.where(np.isfinite(array), array, np.nan)
