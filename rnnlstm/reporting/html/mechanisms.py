"""Why they learn it or not: how far back the gradient reaches, what the gates do, what clipping changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from markupsafe import Markup

from rnnlstm.reporting import charts
from rnnlstm.reporting.charts import WHEN, Axis, Chart, Level, Line, Shown, TaskGroup, number, share
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, chapter, element, figure, legend, table
from rnnlstm.reporting.html.svg import SMALL, Means, colour_bar, draw_map, gate_dots, meter, plot

# How far back the gradient reaches.


@chapter(
    "gradient",
    "How far back the gradient reaches",
    "A network learns to remember only if the error at the answer says something about the steps before it. What "
    "it says is the gradient. Backpropagation carries it back through time and multiplies it at each step by a "
    "factor. Factors below one, taken many times, leave nothing: it <em>vanishes</em>. Factors above one make it "
    "<em>explode</em>. Below is its norm in h, and in an LSTM also in its memory, the cell state c, as a share "
    "of its norm at the answer.",
    "The gradient through time was not recorded (probe=off, or the run has just begun).",
)
def gradient(report: Report, group: TaskGroup) -> Markup | None:
    maps = charts.flow_maps(group)
    if not maps:
        return None
    lags = charts.lag_charts(group, maps)
    drawn = zip(WHEN, lags.items(), strict=True)
    panels = [Panel(plot(f"{group.key}-lags-{when}", chart), words) for when, (words, chart) in drawn]
    rows = [
        (f"{m.name}, {words}", *(share(float(values[k * (len(values) - 1) // 4])) for k in (1, 2, 3, 4)))
        for m in maps
        for when, words in WHEN.items()
        for values in [getattr(m.flow, when)]
    ]
    heads = (
        "share of the gradient left",
        "a quarter back",
        "halfway back",
        "three quarters back",
        "at the first step",
    )
    numbers = Numbers(f"Gradient, {group.title}", heads, rows)
    by_lag = figure(report, f"{group.key}-lags", panels, charts.LAGS, numbers)
    plain_first = sorted(maps, key=lambda m: len(m.shown.run.flows))  # an RNN beside an LSTM
    panels = [
        Panel(draw_map(f"{group.key}-map-{m.shown.style}-{k}", m), m.name, m.shown) for k, m in enumerate(plain_first)
    ]
    by_training = figure(report, f"{group.key}-maps", panels, charts.MAPS, None, foot=colour_bar(group.key))
    return legend(group) + by_lag + by_training + _remembered(report, group)


def _remembered(report: Report, group: TaskGroup) -> Markup:
    """What the answer depends on, beside where the gradient arrives; nothing without a record of it."""
    both = charts.influence_charts(group)
    if not both:
        return Markup()
    names = [name for _, name in both[0].y_axis.ticks]
    height, room = 64 + 26 * len(names), min(230, 20 + 7 * max(map(len, names)))
    titles = ("what is remembered", "what can still be learned")
    panels = [
        Panel(plot(f"{group.key}-influence-{k}", chart, (460, height), room), title)
        for k, (chart, title) in enumerate(zip(both, titles, strict=True))
    ]
    rows = [tuple(dot.name.rsplit(": ", 1)) for chart in both for dot in chart.dots]
    numbers = Numbers(f"Tokens replaced, and the gradient there, {group.title}", ("network: token", "value"), rows)
    return legend(group, dots=True) + figure(report, f"{group.key}-influence", panels, charts.INFLUENCE, numbers)


# What the gates do.

GATES = (
    "Open ring: before training; filled dot: at the last look. A gate that moves apart for different kinds of token "
    "has learned to tell them apart. Means over units and the probe’s sequences, medians over seeds.{layers}"
)
MOST_GATES, MOST_KINDS = 6, 12  # a record may hold any number


@chapter(
    "gates",
    "What the gates do",
    "A plain RNN treats every input alike. A gate is a factor between 0 (shut) and 1 (open) that the network "
    "computes at each step, so that it can tell inputs apart. The <em>forget gate</em> decides how much of the "
    "memory stays, and is the gradient’s factor along the cell state: at 0.5 memory halves at each step, near 1 "
    "it is kept. The <em>input gate</em> decides what is written, the <em>output gate</em> what is shown.",
    "No gates were recorded: these networks have none, or ran with probe=off.",
)
def gates(report: Report, group: TaskGroup) -> Markup | None:
    panels, rows, any_layers = [], [], False
    for s in group.shown:
        by_gate, layered = _gate_means(s)
        any_layers |= layered and bool(by_gate)
        for k, (gate, means) in enumerate(by_gate.items()):
            panels.append(
                Panel(
                    gate_dots(f"{group.key}-gate-{s.style}-{k}", s.name, s.style, gate, means),
                    f"{s.name}: {gate} gate",
                    s,
                )
            )
            rows += [(f"{s.name}: {gate}, {kind}", number(a), number(b)) for kind, (a, b) in means.items()]
    if not panels:
        return None
    numbers = Numbers(f"Gates by kind of token, {group.title}", ("gate, token", "before training", "last look"), rows)
    caption = GATES.format(layers=" The first layer is shown." if any_layers else "")
    return figure(report, f"{group.key}-gates", panels, caption, numbers)


def _gate_means(s: Shown) -> tuple[dict[str, Means], bool]:
    """Every gate's means, of the first layer where there are several."""
    tags = s.run.tags("gate/")
    layered = any("/layer_" in tag for tag in tags)
    suffix = "/layer_0" if layered else ""
    names = [tag[len("gate/") : -len(f"_mean{suffix}")] for tag in tags if tag.endswith(f"_mean{suffix}")]
    means = {name: dict(_means(s, name, suffix)) for name in names[:MOST_GATES]}
    return {name: by_kind for name, by_kind in means.items() if by_kind}, layered


def _means(s: Shown, gate: str, suffix: str) -> Iterator[tuple[str, tuple[float, float]]]:
    if (all_tokens := s.run.ends(f"gate/{gate}_mean{suffix}")) is not None:
        yield "every step", all_tokens
    beginning = f"gate_by_kind/{gate}_"
    for tag in s.run.tags(beginning)[:MOST_KINDS]:
        ends = s.run.ends(tag)
        if ends is not None and tag.endswith(suffix):
            yield tag[len(beginning) : len(tag) - len(suffix)].replace("_", " "), ends


# What clipping changes.

RATE = (
    "The share of all updates so far on which clipping changed the gradient. Near 0 the threshold has no effect. "
    "Near 1 it sets the size of nearly every step, and acts as a learning rate."
)
NORMS = (
    "Coloured: the gradient’s norm before clipping, over the updates recorded since the evaluation before. Dashed "
    "grey: after clipping. Lines are medians, bands go from the 10 % to the 90 % quantile. Where the two part, "
    "clipping was at work."
)
LARGEST = (
    "Of the updates that were clipped, the share in which this parameter’s gradient was the largest; mean over seeds"
)
MOST_PARAMETERS = 3
CLIP_HEADS = (
    "at the last evaluation", "clipped so far", "norm before: 10 %", "50 %", "90 %", "after: 10 %", "50 %", "90 %",
)  # fmt: skip


@chapter(
    "clipping",
    "Clipping",
    "An exploding gradient would throw the weights far off in one update. Clipping limits the <em>gradient</em>, "
    "not the weights: where its norm exceeds the threshold, it is scaled down to it. It helps against explosion "
    "and does nothing against vanishing, for there is nothing left to scale.",
    "No updates have been recorded yet.",
)
def clipping(report: Report, group: TaskGroup) -> Markup | None:
    curves = [(s, c) for s in group.shown if (c := s.run.curve("clip/rate")) is not None]
    if not curves:
        return None
    lines = [Line(s.name, s.style, c.steps, _median(c.values)) for s, c in curves]
    rates = [f"{number(100 * float(line.y[-1]))} %" for line in lines]
    rate = Chart(
        f"Share of clipped updates, {group.title}",
        "; ".join(f"{line.name}: {words} of the updates" for line, words in zip(lines, rates, strict=True)),
        Axis("update", (0.0, max(1.0, *(float(line.x[-1]) for line in lines)))),
        Axis("share of updates clipped", (0.0, 1.0)), lines,
    )  # fmt: skip
    rows = [(s.name, words, *_quantiles(s)) for (s, _), words in zip(curves, rates, strict=True)]
    numbers = Numbers(f"Clipping, {group.title}", CLIP_HEADS, rows)
    panel = Panel(plot(f"{group.key}-rate", rate), "how often")
    parts = [legend(group), figure(report, f"{group.key}-rates", [panel], RATE, numbers)]
    with_norms = [(s, norms) for s, _ in curves if (norms := _norms(s))]
    values = [part for _, norms in with_norms for line in norms for part in (line.low, line.high) if part is not None]
    ends = [float(v) for part in values for v in part[np.isfinite(part)]]
    if ends:
        y_axis = Axis("gradient norm", (min(ends) - 0.05, max(ends) + 0.05), log=True)
        panels = [Panel(_norm_plot(group, s, norms, y_axis), s.name, s) for s, norms in with_norms]
        parts.append(figure(report, f"{group.key}-norms", panels, NORMS, None))
    if largest := [row for s, _ in curves for row in _largest(s)]:
        parts.append(
            table(Numbers(f"{LARGEST}, {group.title}", ("configuration", "parameter", "share", ""), largest))
        )
    return Markup("").join(parts)


def _median(values: np.ndarray) -> np.ndarray:
    """Over the seeds that have a finite value, at each step; NaN where none has."""
    finite = np.where(np.isfinite(values), values, np.nan)
    there = ~np.isnan(finite).all(axis=0)
    median = np.full(finite.shape[1], np.nan)
    median[there] = np.nanmedian(finite[:, there], axis=0)
    return median


def _norms(s: Shown) -> list[Line]:
    """log10 of the quantiles after and before clipping; none if they weren't recorded."""
    lines = []
    for which, kind in (("after", "after"), ("before", "")):  # what was before lies on top
        curves = [s.run.curve(f"clip/norm_{which}_{q}") for q in ("q10", "q50", "q90")]
        quantiles = [(c.steps, _median(c.values)) for c in curves if c is not None]
        if len(quantiles) < 3:
            return []
        low, median, high = (np.log10(np.where(values > 0, values, np.nan)) for _, values in quantiles)
        lines.append(Line(f"norm {which} clipping", s.style, quantiles[1][0], median, low, high, kind))
    return lines


def _norm_plot(group: TaskGroup, s: Shown, lines: list[Line], y_axis: Axis) -> Markup:
    threshold = s.run.config.get("clip.threshold")
    by_norm = s.run.config.get("clip.name") == "norm" and isinstance(threshold, int | float) and threshold > 0
    levels = [Level("threshold", float(np.log10(float(threshold))))] if by_norm and threshold is not None else []
    after, before = (number(10 ** float(line.y[-1])) for line in lines)
    chart = Chart(
        f"Gradient norm before and after clipping: {s.name}",
        f"The median norm at the end is {before} before and {after} after clipping.",
        Axis("update"), y_axis, lines, levels,
    )  # fmt: skip
    return plot(f"{group.key}-norms-{s.style}", chart, SMALL)


def _quantiles(s: Shown) -> list[str]:
    tags = [f"clip/norm_{which}_{q}" for which in ("before", "after") for q in ("q10", "q50", "q90")]
    return ["—" if (ends := s.run.ends(tag)) is None else number(ends[1]) for tag in tags]


def _largest(s: Shown) -> list[tuple[object, ...]]:
    """The parameters that were largest most often, with a bar each."""
    shares: dict[str, float] = {}
    beginning = "clip/largest/"
    clipped = [seed for seed in s.run.series if any(tag.startswith(beginning) for tag in seed)]
    for seed in clipped:
        for tag, values in seed.items():
            if tag.startswith(beginning):
                name = tag.removeprefix(beginning)
                shares[name] = shares.get(name, 0.0) + list(values.values())[-1] / len(clipped)
    largest = sorted(((value, name) for name, value in shares.items() if value == value), reverse=True)
    return [
        (s.name, element("code", name), f"{number(100 * value)} %", meter(s.style, value))
        for value, name in largest[:MOST_PARAMETERS]
    ]
