"""Activations with their derivatives, what a factor near one does in 365 steps, and the map of gain × length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from rnnlstm.cells.rnn import NONLINEARITIES

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rnnlstm.record.heatmap import HIGH, LOW, colours
from rnnlstm.reporting.colours import PALETTE

SHOWN = ("sigmoid", "tanh", "relu", "centred_sigmoid", "steep_sigmoid")
FACTORS = (1.01, 0.99)
STEPS = 365


def activation_figure() -> Figure:
    """φ and φ' of each nonlinearity, and c^t for a factor just above and just below one."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    x = torch.linspace(-5, 5, 801, dtype=torch.float64, requires_grad=True)
    for name, colour in zip(SHOWN, PALETTE, strict=False):
        y = NONLINEARITIES[name][0](x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        style = "--" if name in ("centred_sigmoid", "steep_sigmoid") else "-"
        words = {"centred_sigmoid": "2σ(x) − 1", "steep_sigmoid": "σ(4x)"}.get(name, name)
        left.plot(x.detach(), y.detach(), style, color=colour, label=words)
        middle.plot(x.detach(), slope, style, color=colour, label=f"{words}: at most {slope.max():.3g}")
    left.set(title="activation φ(x)", ylim=(-1.2, 2), xlim=(-5, 5), xlabel="x")
    middle.set(title="derivative φ'(x)", ylim=(-0.05, 1.15), xlim=(-5, 5), xlabel="x")
    middle.axhline(0.25, color="0.6", linewidth=0.8, linestyle=":")
    t = np.arange(STEPS + 1)
    for factor, colour in zip(FACTORS, (PALETTE[1], PALETTE[0]), strict=True):
        right.plot(t, factor**t, color=colour, label=f"{factor}^{STEPS} = {factor**STEPS:.3g}")
    right.axhline(1, color="0.35", linestyle="--", linewidth=1)
    right.set(
        title="one factor, taken again and again", yscale="log", xlabel="steps", ylim=(0.01, 100), xlim=(0, STEPS)
    )
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
    return figure


def gain_map_figure(maps: Mapping[str, Tensor], gains: Sequence[float], lengths: Sequence[int]) -> Figure:
    """A panel per nonlinearity: how strong the gradient is at the first step, from vanished to exploded."""
    figure, axes = plt.subplots(
        1, len(maps), figsize=(4.6 * len(maps) + 1, 4.8), sharey=True, squeeze=False, layout="constrained"
    )
    table = mpl.colors.ListedColormap(colours(np.linspace(LOW, HIGH, 256)) / 255.0)
    for (name, values), axis in zip(maps.items(), axes[0], strict=True):
        shown = np.nan_to_num(values.numpy(), neginf=-300.0, posinf=300.0)
        axis.imshow(shown, cmap=table, vmin=LOW, vmax=HIGH, aspect="auto", origin="lower")
        axis.contour(shown, levels=[0.0], colors="black", linewidths=2)
        axis.contour(shown, levels=[-3.0, 3.0], colors="black", linewidths=0.8, linestyles="dotted")
        axis.set_xticks(range(len(lengths)), [str(length) for length in lengths])
        axis.set_yticks(range(len(gains)), [f"{gain:g}" for gain in gains])
        for i, row in enumerate(shown):
            for j, value in enumerate(row):
                dark = value < -3.5 or value > 2.5
                number = "−∞" if value <= -300 else f"{round(value):d}".replace("-", "−")
                axis.text(j, i, number, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axis.set(title=f"{name} RNN, orthogonal weights × gain", xlabel="length T, steps")
    axes[0, 0].set_ylabel("gain of the recurrent weights")
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(LOW, HIGH), table)
    bar = figure.colorbar(scale, ax=list(axes[0]), extend="both", ticks=range(-8, 5, 2))
    bar.set_label(
        "gradient at the first step against the last, log10\n(thick line: 0, neither vanishes nor explodes)"
    )
    return figure
