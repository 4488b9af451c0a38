"""A sentence with what a network makes of it: influence of each word on the answer, and gates while it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from rnnlstm.instruments.analysed_network import AnalysedNetwork

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnlstm.reporting.colours import PALETTE
from rnnlstm.reporting.flow_figures import panels, wrapped
from rnnlstm.tasks.task import until_over

#: Words in a line of the influence figure, and time steps in a row of the gate figure.
LINE, ROW = 12, 50
#: log10 of an input's influence against the largest in the sentence.
INFLUENCE = (-4.0, 0.0)
#: Most networks in one of these figures.
MOST_NETWORKS = 4
#: Longest sentence whose words are drawn whole; of longer ones the ends.
MOST_WORDS = 240


def influence_figure(found: Sequence[tuple[str, AnalysedNetwork, Tensor]], sequence: int = 0) -> Figure:
    """A block of text for each network, every word on a ground that says how much the answer depends on it.

    `found`: label, subject and influence (T, B) of each.
    """
    found = found[:MOST_NETWORKS]
    words = _shown(_words(found[0][1], sequence))
    lines = math.ceil(len(words) / LINE)
    figure, axes = plt.subplots(
        len(found), 1, figsize=(13, 0.9 + len(found) * (0.5 + 0.3 * lines)), squeeze=False, layout="constrained"
    )
    for (label, subject, values), axis in zip(found, axes[:, 0], strict=True):
        words = _words(subject, sequence)
        logs, words = values[: len(words), sequence].log10(), _shown(words)
        _text(axis, words, _shown((logs - logs.max()).clamp(min=-400).tolist()), _shown(_rare(subject, sequence)))
        axis.set_title(label, loc="left", fontsize=10)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(*INFLUENCE), "Blues")
    bar = figure.colorbar(scale, ax=list(axes[:, 0]), shrink=0.8, extend="min", ticks=range(-4, 1))
    bar.set_label("influence on the answer, log10\n(0: the most influential word)")
    return figure


def distance_figure(found: Sequence[tuple[str, AnalysedNetwork, Tensor]]) -> Figure:
    """A panel for each network: influence over the distance to the answer, a colour for each kind of token."""
    figure, axes = panels(len(found), 4.2)
    for (label, subject, values), axis in zip(found, axes, strict=True):
        T = len(values)
        logs = (values / values.amax(0)).log10().clamp(min=-400)  # (T, B)
        distance = torch.arange(T - 1, -1, -1)[:, None].expand_as(logs)
        kinds = subject.batch.kinds
        names = subject.task.kind_names if kinds is not None else ("input",)
        counts = [int((kinds == k).sum()) if kinds is not None else logs.numel() for k in range(len(names))]
        for k in sorted((k for k in range(len(names)) if counts[k]), key=lambda k: -counts[k]):
            chosen = kinds == k if kinds is not None else torch.ones_like(logs, dtype=torch.bool)
            size = 3 if counts[k] == max(counts) else 16
            colour = PALETTE[k % len(PALETTE)]
            axis.scatter(
                distance[chosen], logs[chosen], s=size, color=colour, alpha=0.5, label=names[k], linewidths=0
            )
        axis.set(title=wrapped(label), ylim=(-12, 0.5), xlabel="steps before the answer")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, markerscale=1.5)
    axes[0].set_ylabel("influence on the answer, log10\n(0: the most influential of its sequence)")
    return figure


def gates_figure(found: Sequence[tuple[str, AnalysedNetwork]], sequence: int = 0, layer: int = 0) -> Figure:
    """Mean over the units of each gate, and of |c|, at every word. Gates from 0 (white) to 1 (dark), |c| from 0 to
    its largest in the sentence: it has no bound, and would soon be dark everywhere."""
    rows = [(label, subject, _series(subject, sequence, layer)) for label, subject in found]
    rows = [(label, subject, series) for label, subject, series in rows if series][:MOST_NETWORKS]
    T = max(len(_words(subject, sequence)) for _, subject, _ in rows)
    parts = min(math.ceil(T / ROW), 4)
    heights = [len(series) for _, _, series in rows for _ in range(parts)]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(13, sum(heights) * 0.26 + 1.15 * len(heights)), squeeze=False, layout="constrained",
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    panels = iter(axes[:, 0])
    for label, subject, series in rows:
        words = _words(subject, sequence)
        values = torch.stack(list(series.values()))  # (rows, T)
        for part in range(parts):
            axis = next(panels)
            steps = range(part * ROW, min((part + 1) * ROW, len(words)))
            if not steps:  # another network's sentence is longer
                axis.axis("off")
                continue
            axis.imshow(values[:, steps.start : steps.stop].numpy(), cmap="Purples", vmin=0, vmax=1, aspect="auto")
            axis.set_yticks(range(len(series)), list(series), fontsize=8)
            axis.set_xticks(range(len(steps)), [words[t] for t in steps], rotation=90, fontsize=7)
            axis.set_xlim(-0.5, ROW - 0.5)
            if part == 0:
                axis.set_title(label, loc="left", fontsize=10)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), "Purples")
    bar = figure.colorbar(scale, ax=list(axes[:, 0]), shrink=0.6, pad=0.01, ticks=[0, 1])
    bar.ax.set_yticklabels(["0 shut", "1 open"], fontsize=8)  # fits where one network makes a low picture
    return figure


def _series(subject: AnalysedNetwork, sequence: int, layer: int) -> dict[str, Tensor]:
    """(T,) by name: gates, and |c| of the cell state against its largest."""
    series = {name: gate[:, sequence].mean(-1) for name, gate in subject.path.gates[layer].items()}
    if "cell" in subject.path.states[layer]:
        size = subject.path.states[layer]["cell"][: len(_words(subject, sequence)), sequence].abs().mean(-1)
        series["|c| / its largest"] = size / size.max().clamp(min=1e-300)
    return series


def _words(subject: AnalysedNetwork, sequence: int) -> list[str]:
    """Without the padding after the sequence's end."""
    return until_over(subject.task.words(subject.batch, sequence))


def _rare(subject: AnalysedNetwork, sequence: int) -> list[bool]:
    """Whether each token is of another kind than most: the keyword, a decoy, the question."""
    words, kinds = _words(subject, sequence), subject.batch.kinds
    if kinds is None:
        return [False] * len(words)
    here = kinds[: len(words), sequence]
    flags: list[bool] = (here != here.mode().values).tolist()
    return flags


def _text(axis: Axes, words: Sequence[str], logs: Sequence[float], rare: Sequence[bool]) -> None:
    """Words in a grid, each on its colour; rare kinds of token framed."""
    colours = plt.get_cmap("Blues")
    lines = math.ceil(len(words) / LINE)
    axis.set(xlim=(0, LINE), ylim=(lines, 0))
    axis.axis("off")
    for k, (word, log, framed) in enumerate(zip(words, logs, rare, strict=True)):
        share = float(np.clip((log - INFLUENCE[0]) / (INFLUENCE[1] - INFLUENCE[0]), 0, 1))
        row, column = divmod(k, LINE)
        axis.add_patch(mpl.patches.Rectangle((column, row), 1, 1, facecolor=colours(share), edgecolor="white"))
        if framed:
            place = (column + 0.03, row + 0.08)
            axis.add_patch(mpl.patches.Rectangle(place, 0.94, 0.84, fill=False, edgecolor="#D55E00", linewidth=1.5))
        axis.text(column + 0.5, row + 0.5, word, ha="center", va="center", fontsize=7.5 if len(word) < 15 else 6,
                  color="white" if share > 0.6 else "black")  # fmt: skip


def _shown(entries: list[Any]) -> list[Any]:
    """All entries, or of a long sequence both ends."""
    if len(entries) <= MOST_WORDS:
        return entries
    half = MOST_WORDS // 2
    return [*entries[:half], *entries[-half:]]
