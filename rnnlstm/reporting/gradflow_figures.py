"""The figures of `gradflow`: gradients, Jacobians, exponents, sentences, gates, activations, gains, fixed points.

Ranges are fixed, so that two figures can be laid side by side.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from rnnlstm.cells.rnn import NONLINEARITIES
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.counterfactual import InfluenceRow
from rnnlstm.instruments.dynamics import Dynamics, Orbit, answers, time_constants
from rnnlstm.instruments.measurement import Measurement
from rnnlstm.record.heatmap import HIGH, LOW
from rnnlstm.reporting.colours import PALETTE
from rnnlstm.reporting.figures import FLOW_COLOURS
from rnnlstm.tasks.task import until_over

#: log10 of a gradient against that at the last scored position.
DECAY = (-20.0, 5.0)
DASHES = ("-", "--", "-.", ":")  # by layer


def gradient_figure(measurements: Sequence[Measurement], styles: Mapping[str, int]) -> Figure:
    """‖∂L/∂h_t‖ over the steps before the answer, and beside it ‖∂L/∂c_t‖ where there is one."""
    states = ["hidden", *(["cell"] if any("cell" in m.flow.total for m in measurements) else [])]
    figure, axes = plt.subplots(
        1, len(states), figsize=(6.4 * len(states), 4.6), sharey=True, squeeze=False, layout="constrained"
    )
    for state, axis in zip(states, axes[0], strict=True):
        for m, looks in zip(measurements, _looks(measurements, styles), strict=True):
            if state not in m.flow.total:
                continue
            norms = m.flow.total[state][m.layer].log10()
            half_life = m.flow.half_life(state, m.layer)[0]
            label = f"{m.label}: half-life {half_life_text(half_life)} steps"
            axis.plot((norms - norms[0]).clamp(min=-400).numpy(), label=label, linewidth=1.8, **looks)
        letter = "h" if state == "hidden" else "c"
        _decay_axes(axis, f"$\\|\\partial L/\\partial {letter}_t\\|$, the total gradient", measurements)
        axis.set_xlabel("steps before the answer (lag)")
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1 + (len(measurements) > 4))
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


def weight_figure(measurements: Sequence[Measurement], styles: Mapping[str, int]) -> Figure:
    """The share of the weight gradient that comes from the last k steps."""
    figure, axis = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
    K = max(len(m.weights.share) for m in measurements)
    for m, looks in zip(measurements, _looks(measurements, styles), strict=True):
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


def jacobian_figure(measurements: Sequence[Measurement]) -> Figure:
    """A panel per setting: singular values of ∂state_T/∂state_k by lag under their bounds."""
    figure, axes = panels(len(measurements), 4.6)
    for m, axis in zip(measurements, axes, strict=True):
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
        _decay_axes(axis, wrapped(m.label), measurements)
        axis.set_xlabel("lag: steps from k to T")
    handles = {text: h for axis in axes for h, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
    axes[0].set_ylabel("log10 of $\\partial state_T/\\partial state_k$")
    return figure


def lyapunov_figure(measurements: Sequence[Measurement], styles: Mapping[str, int]) -> Figure:
    """The spectrum of each setting; above zero directions explode."""
    figure, axis = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
    for m, looks in zip(measurements, _looks(measurements, styles), strict=True):
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


def _looks(measurements: Sequence[Measurement], styles: Mapping[str, int]) -> list[dict[str, Any]]:
    """A line's looks for each: the network's colour (`styles`: its number by label), the layer's dashes."""
    return [{"color": PALETTE[styles[m.network]], "linestyle": DASHES[m.layer % len(DASHES)]} for m in measurements]


def half_life_text(value: float) -> str:
    """A half-life in steps, which may be infinite or unknown."""
    return "∞" if math.isinf(value) else "—" if math.isnan(value) else f"{value:.3g}"


def wrapped(label: str) -> str:
    """A label as the title of one of these panels: a long one would run into its neighbour's."""
    return textwrap.fill(label, 48)


def _decay_axes(axis: Axes, title: str, measurements: Sequence[Measurement]) -> None:
    axis.set(ylim=DECAY, title=title, xlim=(-1, max(len(m.singular) for m in measurements)))
    axis.axhline(0, color="0.35", linestyle="--", linewidth=1)
    axis.axhline(math.log10(1.2e-7), color="0.7", linewidth=0.8)
    axis.annotate("float32 rounding", (1, math.log10(1.2e-7)), (-3, 2), ("axes fraction", "data"), "offset points",
                  ha="right", fontsize=7, color="0.5")  # fmt: skip
    axis.grid(alpha=0.3)


def _finite(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.numpy()
    return np.where(np.isfinite(array), array, np.nan)


#: Words in a line of the influence figure, and time steps in a row of the gate figure.
WORDS_IN_A_LINE, STEPS_IN_A_ROW = 12, 50
#: log10 of an input's influence against the largest in the sentence.
INFLUENCE = (-4.0, 0.0)
#: Most networks in one of these figures.
MOST_NETWORKS = 4
#: Longest sentence whose words are drawn whole; of longer ones the ends.
MOST_WORDS = 240


def influence_figure(networks: Sequence[tuple[str, AnalysedNetwork, Tensor]], sequence: int = 0) -> Figure:
    """A block of text for each network, every word on a ground that says how much the answer depends on it.

    `networks`: label, subject and influence (T, B) of each.
    """
    networks = networks[:MOST_NETWORKS]
    words = _ends(_words(networks[0][1], sequence))
    lines = math.ceil(len(words) / WORDS_IN_A_LINE)
    size = (_width(len(words) / WORDS_IN_A_LINE), 0.9 + len(networks) * (0.5 + 0.3 * lines))
    figure, axes = plt.subplots(len(networks), 1, figsize=size, squeeze=False, layout="constrained")
    for (label, subject, values), axis in zip(networks, axes[:, 0], strict=True):
        words = _words(subject, sequence)
        logs, words = values[: len(words), sequence].log10(), _ends(words)
        _draw_words(axis, words, _ends((logs - logs.max()).clamp(min=-400).tolist()), _ends(_rare(subject, sequence)))
        axis.set_title(label, loc="left", fontsize=10)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(*INFLUENCE), "Blues")
    bar = figure.colorbar(
        scale, ax=list(axes[:, 0]), location="bottom", shrink=min(1, 5 / size[0]), aspect=40, extend="min",
        ticks=range(-4, 1),
    )  # fmt: skip
    bar.set_label("gradient influence on the answer, log10 (0: the most influential word)", fontsize=9)
    return figure


def _width(rows: float) -> float:
    """Inches of a picture with so many rows of words, which is narrow if there isn't one."""
    return max(5.5, 13 * min(rows, 1))


def distance_figure(networks: Sequence[tuple[str, AnalysedNetwork, Tensor]]) -> Figure:
    """A panel for each network: influence over the distance to the answer, a colour for each kind of token."""
    figure, axes = panels(len(networks), 4.2)
    for (label, subject, values), axis in zip(networks, axes, strict=True):
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
    axes[0].set_ylabel("gradient influence on the answer, log10\n(0: the most influential of its sequence)")
    return figure


#: log10 of the gradient, and KL divergence, that the figure of both influences is drawn down to.
SEEN, SMALLEST_DIVERGENCE = -20.0, 1e-12
FEW_PLACES = 30


def counterfactual_figure(found: Sequence[tuple[str, Sequence[InfluenceRow]]], classes: bool) -> Figure:
    """A column for each network. Top: which replaced tokens change the answer (forward memory). Bottom: where its
    gradient arrives (backward learnability). Between them, for classes, how far the probabilities move."""
    heights = {"changed": 3.0, "divergence": 1.6, "gradient": 3.0}
    if not classes:
        del heights["divergence"]
    figure, axes = plt.subplots(
        len(heights), len(found), figsize=(1.2 + 4.6 * len(found), 1.6 + 1.05 * sum(heights.values())),
        sharex=True, sharey="row", squeeze=False, layout="constrained",
        gridspec_kw={"height_ratios": list(heights.values())},
    )  # fmt: skip
    labels = list(dict.fromkeys(row.label for _, measured in found for row in measured))
    colours = {label: PALETTE[k % len(PALETTE)] for k, label in enumerate(labels)}
    for column, (name, measured) in enumerate(found):
        for what, axis in zip(heights, axes[:, column], strict=True):
            axis.grid(alpha=0.3)
            for label, colour in colours.items():
                _draw_kind(axis, what, [row for row in measured if row.label == label], _strongest(measured), colour)
        axes[0, column].set_title(wrapped(name), fontsize=10)
        axes[-1, column].set_xlabel("steps before the answer")
        if measured:
            _name_rarest(axes[0, column], axes[-1, column], measured)
    if classes:
        axes[0, 0].set(
            ylim=(-0.04, 1.08), ylabel="REMEMBERED\nshare of answers that change\nif the token is replaced"
        )
        axes[0, 0].yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        axes[1, 0].set(yscale="log", ylim=(SMALLEST_DIVERGENCE, 50), ylabel="KL divergence,\nnats")
    else:
        axes[0, 0].set_ylabel("REMEMBERED\nmean change of the answer\nif the token is replaced")
    axes[-1, 0].set(ylim=(SEEN - 1, 1), ylabel="LEARNABLE\ngradient at the same tokens, log10\n(0: the strongest)")
    _distance_axis(axes[-1, 0], [row for _, measured in found for row in measured])
    for axis in axes[-1]:
        axis.axhline(math.log10(1.2e-7), color="0.6", linewidth=0.8)
        place = (0, math.log10(1.2e-7))
        axis.annotate("float32 rounding", place, (3, -9), ("axes fraction", "data"), "offset points", fontsize=7)
    handles = [Line2D([], [], color=colour, marker="o", label=label) for label, colour in colours.items()]
    few = Line2D(
        [], [], color="0.3", marker="o", markerfacecolor="white", linestyle="", label=f"under {FEW_PLACES} places"
    )
    lower = Line2D([], [], color="0.3", marker="v", linestyle="", label="off the scale")
    figure.legend(handles=[*handles, few, lower], loc="outside lower center", ncols=len(labels) + 2, fontsize=9)
    return figure


def _strongest(measured: Sequence[InfluenceRow]) -> float:
    return max((row.gradient for row in measured), default=0.0) or 1.0


def _draw_kind(axis: Axes, what: str, rows: Sequence[InfluenceRow], strongest: float, colour: str) -> None:
    """A line over distance, or a large mark where the kind stands at one distance alone. A triangle: lower still. A
    hollow mark: few places."""
    x = np.array([row.distance for row in rows])
    values = np.array([getattr(row, what) for row in rows])
    least = {"changed": -math.inf, "divergence": SMALLEST_DIVERGENCE, "gradient": SEEN}[what]
    if what == "gradient":
        with np.errstate(divide="ignore"):
            values = np.log10(values / strongest)
    axis.plot(x, np.maximum(values, least), color=colour, linewidth=1.5)
    for at, value, row in zip(x, values, rows, strict=True):
        axis.plot(at, max(value, least), "v" if value < least else "o", color=colour,
                  markersize=10.0 if len(rows) == 1 else 4.5,
                  markerfacecolor=colour if row.places >= FEW_PLACES else "white")  # fmt: skip


def _distance_axis(axis: Axes, rows: Sequence[InfluenceRow]) -> None:
    """Steps before the answer, logarithmic from 1 on."""
    nearest, farthest = (min(r.nearest for r in rows), max(r.farthest for r in rows)) if rows else (0, 1)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(-0.3 if nearest == 0 else 0.8, 1.4 * max(farthest, 1))
    ticks = [t for t in (0, *(10**k for k in range(len(str(farthest))))) if t >= nearest and 1.5 * t < farthest]
    axis.set_xticks([*ticks, farthest], [str(tick) for tick in (*ticks, farthest)], minor=False)
    axis.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def _name_rarest(top: Axes, bottom: Axes, measured: Sequence[InfluenceRow]) -> None:
    """What becomes of the rarest kind of token, where it is farthest back, in words."""
    places = Counter[str]()
    for row in measured:
        places[row.label] += row.places
    rarest = min(places, key=places.__getitem__)
    row = max((row for row in measured if row.label == rarest), key=lambda row: row.distance)
    log = math.log10(row.gradient / _strongest(measured)) if row.gradient else -math.inf
    changed = (
        f"{row.changed:.0%} of answers change" if row.divergence is not None else f"changes by {row.changed:.2g}"
    )
    arrives = f"gradient $10^{{{log:.0f}}}$ of the strongest" if log < -0.5 else "as strong as any"
    if math.isinf(log):
        arrives = "no gradient at all"
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6", "alpha": 0.9}
    arrow = {"arrowstyle": "-", "color": "0.6"}
    for axis, words, at in ((top, changed, row.changed), (bottom, arrives, max(log, SEEN))):
        axis.annotate(f"{row.label}, {row.distance:.0f} back:\n{words}", (row.distance, at), (0.04, 0.42),
                      textcoords="axes fraction", fontsize=9, bbox=box, arrowprops=arrow)  # fmt: skip


def gates_figure(networks: Sequence[tuple[str, AnalysedNetwork]], sequence: int = 0, layer: int = 0) -> Figure:
    """Mean over the units of each gate, and of |c|, at every word. Gates from 0 (white) to 1 (dark), |c| from 0 to
    its largest in the sentence: it has no bound, and would soon be dark everywhere."""
    rows = [(label, subject, _gate_means(subject, sequence, layer)) for label, subject in networks]
    rows = [(label, subject, series) for label, subject, series in rows if series][:MOST_NETWORKS]
    T = max(len(_words(subject, sequence)) for _, subject, _ in rows)
    parts = min(math.ceil(T / STEPS_IN_A_ROW), 4)
    heights = [len(series) for _, _, series in rows for _ in range(parts)]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(_width(T / STEPS_IN_A_ROW), sum(heights) * 0.26 + 1.15 * len(heights)),
        squeeze=False, layout="constrained", gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    panels = iter(axes[:, 0])
    for label, subject, series in rows:
        words = _words(subject, sequence)
        values = torch.stack(list(series.values()))  # (rows, T)
        for part in range(parts):
            axis = next(panels)
            steps = range(part * STEPS_IN_A_ROW, min((part + 1) * STEPS_IN_A_ROW, len(words)))
            if not steps:  # another network's sentence is longer
                axis.axis("off")
                continue
            axis.imshow(values[:, steps.start : steps.stop].numpy(), cmap="Purples", vmin=0, vmax=1, aspect="auto")
            axis.set_yticks(range(len(series)), list(series), fontsize=8)
            axis.set_xticks(range(len(steps)), [words[t] for t in steps], rotation=90, fontsize=7)
            axis.set_xlim(-0.5, min(T, STEPS_IN_A_ROW) - 0.5)
            if part == 0:
                axis.set_title(label, loc="left", fontsize=10)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), "Purples")
    # The bar of a single low picture is as high as that, and broad enough to show its colours.
    shrink, aspect = (0.6, 20) if len(heights) > 1 else (1, max(3, 2 * heights[0]))
    bar = figure.colorbar(scale, ax=list(axes[:, 0]), shrink=shrink, aspect=aspect, pad=0.01, ticks=[0, 1])
    bar.ax.set_yticklabels(["0 shut", "1 open"], fontsize=8)  # fits where one network makes a low picture
    return figure


def _gate_means(subject: AnalysedNetwork, sequence: int, layer: int) -> dict[str, Tensor]:
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


def _draw_words(axis: Axes, words: Sequence[str], logs: Sequence[float], rare: Sequence[bool]) -> None:
    """Words in a grid, each on its colour; rare kinds of token framed."""
    colours = plt.get_cmap("Blues")
    lines = math.ceil(len(words) / WORDS_IN_A_LINE)
    axis.set(xlim=(0, min(len(words), WORDS_IN_A_LINE)), ylim=(lines, 0))
    axis.axis("off")
    for k, (word, log, framed) in enumerate(zip(words, logs, rare, strict=True)):
        share = float(np.clip((log - INFLUENCE[0]) / (INFLUENCE[1] - INFLUENCE[0]), 0, 1))
        row, column = divmod(k, WORDS_IN_A_LINE)
        axis.add_patch(mpl.patches.Rectangle((column, row), 1, 1, facecolor=colours(share), edgecolor="white"))
        if framed:
            place = (column + 0.03, row + 0.08)
            axis.add_patch(mpl.patches.Rectangle(place, 0.94, 0.84, fill=False, edgecolor="#D55E00", linewidth=1.5))
        axis.text(column + 0.5, row + 0.5, word, ha="center", va="center", fontsize=7.5 if len(word) < 15 else 6,
                  color="white" if share > 0.6 else "black")  # fmt: skip


def _ends(entries: list[Any]) -> list[Any]:
    """All entries, or of a long sequence both ends."""
    if len(entries) <= MOST_WORDS:
        return entries
    half = MOST_WORDS // 2
    return [*entries[:half], *entries[-half:]]


#: With the number of the colour: tanh and ReLU have that of their RNN.
NONLINEARITIES_SHOWN = {"sigmoid": 10, "tanh": 0, "relu": 5, "centred_sigmoid": 11, "steep_sigmoid": 8}
FACTORS = (1.01, 0.99)
STEPS = 365


def activation_figure() -> Figure:
    """φ and φ' of each nonlinearity, and c^t for a factor just above and just below one."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    x = torch.linspace(-5, 5, 801, dtype=torch.float64, requires_grad=True)
    for name, number in NONLINEARITIES_SHOWN.items():
        colour = PALETTE[number]
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
    for factor, colour in zip(FACTORS, (PALETTE[10], PALETTE[11]), strict=True):
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
    for (name, values), axis in zip(maps.items(), axes[0], strict=True):
        shown = np.nan_to_num(values.numpy(), neginf=-300.0, posinf=300.0)
        axis.imshow(shown, cmap=FLOW_COLOURS, vmin=LOW, vmax=HIGH, aspect="auto", origin="lower")
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
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(LOW, HIGH), FLOW_COLOURS)
    bar = figure.colorbar(scale, ax=list(axes[0]), extend="both", ticks=range(-8, 5, 2))
    bar.set_label(
        "gradient at the first step against the last, log10\n(thick line: 0, neither vanishes nor explodes)"
    )
    return figure


# -- the page of `show=dynamics`

MOST_TEXTS = 48  #: whose trajectories are drawn
MOST_ORBITS = 8  #: orbits with eigenvalues
#: Marks by kind of orbit.
MARKS = {"fixed point": "o", "slow point": "D", "cycle": "s"}
RIGHT, TOLD = PALETTE[9], "black"  #: colours of the last panel
LONGEST = 1e4  #: time constants in steps that are drawn


def dynamics_figure(found: Sequence[tuple[str, AnalysedNetwork, Dynamics]]) -> Figure:
    """A row for each network. States on their two principal components, a colour for each class that is to be
    answered; eigenvalues beside the unit circle; time constants against T; what answers keep under held input."""
    figure, axes = plt.subplots(
        len(found), 4, figsize=(16, 0.9 + 3.8 * len(found)), squeeze=False, layout="constrained",
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
        axis.plot(*path[np.isfinite(path[:, 0])][-1:].T, ".", color=colour, markersize=5, alpha=0.8)
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
    for orbit in reversed(d.orbits[:MOST_ORBITS]):
        values = orbit.eigenvalues ** (1 / orbit.period)
        axis.plot(values.real, values.imag, MARKS["cycle" if orbit.period > 1 else orbit.kind],
                  color=_colour(d, orbit.outputs[0]), markersize=5, alpha=0.8, linestyle="",
                  markerfacecolor=None if orbit.unstable == 0 else "none")  # fmt: skip
    axis.set_aspect("equal", adjustable="datalim")
    axis.set(xlabel="real part", ylabel="imaginary part")
    axis.grid(alpha=0.3)


def _draw_time_constants(axis: Axes, d: Dynamics) -> None:
    """Sorted, the slowest first; growing directions are left out."""
    for orbit in reversed(d.orbits[:MOST_ORBITS]):
        steps = orbit.time_constants
        steps = steps[steps > 0].sort(descending=True).values.clamp(max=LONGEST)
        axis.plot(range(1, len(steps) + 1), steps, "-", color=_colour(d, orbit.outputs[0]), linewidth=1.4)
    on_the_way = time_constants(d.on_the_way)
    on_the_way = torch.where(on_the_way < 0, torch.inf, on_the_way).sort(1, descending=True).values
    median = on_the_way.clamp(max=LONGEST).quantile(0.5, dim=0)
    axis.plot(range(1, len(median) + 1), median, ":", color="black", linewidth=1.6)
    axis.axhline(d.length, color="0.35", linestyle="--", linewidth=1)
    axis.annotate(f"T = {d.length}", (1, d.length), (-4, 3), ("axes fraction", "data"), "offset points", ha="right",
                  fontsize=8)  # fmt: skip
    axis.set(xlim=(0.9, 1.1 * len(median)), ylim=(0.1, 2 * LONGEST), xlabel="direction, the slowest first")
    axis.set(xscale="log", yscale="log")
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
    _, subject, d = max(found, key=lambda one: one[2].choices)
    if d.classes:
        handles.append(Line2D([], [], color=RIGHT, linewidth=2.4, label="share of answers that are right"))
        handles.append(Line2D([], [], color=TOLD, linewidth=2.4, label="share of answers that tell the class"))
        outputs = torch.eye(d.choices, dtype=torch.float64)[: len(PALETTE)]
        for name, colour in zip(answers(subject, outputs), PALETTE, strict=False):
            handles.append(Line2D([], [], color=colour, linewidth=4, label=name))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
