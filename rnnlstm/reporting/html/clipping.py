"""Clipping: how often it fired, the norm before and after it, and which parameter set it off."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from rnnlstm.reporting.html.markup import element
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, chapter, figure, legend, table
from rnnlstm.reporting.html.plot import SMALL, Axis, Level, Line, plot
from rnnlstm.reporting.html.scale import number
from rnnlstm.reporting.html.shown import Shown, TaskGroup

INTRO = (
    "An exploding gradient would throw the weights far off in one update. Clipping limits the <em>gradient</em>, "
    "not the weights: where its norm exceeds the threshold, it is scaled down to it. It helps against explosion and "
    "does nothing against vanishing, for there is nothing left to scale."
)
RATE = (
    "<strong>What to see.</strong> The share of all updates so far on which clipping changed the gradient. Near 0 "
    "the threshold has no effect; near 1 it sets the size of nearly every step, and acts as a learning rate."
)
NORMS = (
    "<strong>What to see.</strong> Coloured: the gradient’s norm as backpropagation left it, since the evaluation "
    "before; line: median, band: from the 10 % to the 90 % quantile. Dashed, its band grey: the norm after clipping, "
    "which the optimiser was given. Where the two part, clipping was at work. Medians over seeds, one scale in all."
)
LARGEST = (
    "Of the updates that were clipped, the share in which this parameter’s gradient was the largest; mean over seeds"
)
MOST_PARAMETERS = 3


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    missing = "No updates have been recorded yet."
    return chapter("clipping", "Clipping", report, INTRO, parts, missing)


def _part(report: Report, group: TaskGroup) -> Markup | None:
    curves = [(s, c) for s in group.shown if (c := report.records.curve(s.run, "clip/rate")) is not None]
    if not curves:
        return None
    lines = [Line(s.name, s.style, c.steps, _median(c.values)) for s, c in curves]
    told = "; ".join(f"{line.name}: {number(100 * float(line.y[-1]))} % of the updates" for line in lines)
    rate = plot(
        f"{group.key}-rate", f"Share of clipped updates, {group.title}", told, Axis("update", _from_zero(lines)),
        Axis("share of updates clipped", (0.0, 1.0)), lines,
    )  # fmt: skip
    rows: list[tuple[object, ...]] = [
        (line.name, f"{number(100 * float(line.y[-1]))} %", *_quantiles(report, s))
        for line, (s, _) in zip(lines, curves, strict=True)
    ]
    heads = (
        "at the last evaluation",
        "clipped so far",
        "norm before: 10 %",
        "50 %",
        "90 %",
        "after: 10 %",
        "50 %",
        "90 %",
    )
    parts = [
        legend(group),
        figure(
            report,
            f"{group.key}-rates",
            [Panel(rate, "how often")],
            RATE,
            Numbers(f"Clipping, {group.title}", heads, rows),
        ),
    ]
    found = [(s, _norms(report, s)) for s, _ in curves]
    ends = [float(v) for _, lines in found for line in lines for part in (line.low, line.high) for v in _finite(part)]
    if ends:
        y_axis = Axis("gradient norm", (min(ends) - 0.05, max(ends) + 0.05), log=True)
        panels = [Panel(_norm_plot(group, s, lines, y_axis), s.name, s) for s, lines in found if lines]
        parts.append(figure(report, f"{group.key}-norms", panels, NORMS, None))
    if rows := [row for s, _ in curves for row in _largest(report, s)]:
        parts.append(table(Numbers(f"{LARGEST}, {group.title}", ("configuration", "parameter", "share", ""), rows)))
    return Markup("").join(parts)


def _from_zero(lines: list[Line]) -> tuple[float, float]:
    return 0.0, max(1.0, *(float(line.x[-1]) for line in lines))


def _median(values: np.ndarray) -> np.ndarray:
    """Over the seeds that have a finite value, at each step; NaN where none has."""
    finite = np.where(np.isfinite(values), values, np.nan)
    there = ~np.isnan(finite).all(axis=0)
    median = np.full(finite.shape[1], np.nan)
    median[there] = np.nanmedian(finite[:, there], axis=0)
    return median


def _finite(values: np.ndarray | None) -> np.ndarray:
    return np.empty(0) if values is None else values[np.isfinite(values)]


def _norms(report: Report, s: Shown) -> list[Line]:
    """log10 of the quantiles after and before clipping; none if they weren't recorded."""
    lines = []
    for which, kind in (("after", "after"), ("before", "")):  # what was before lies on top
        curves = [report.records.curve(s.run, f"clip/norm_{which}_{q}") for q in ("q10", "q50", "q90")]
        found = [(c.steps, _median(c.values)) for c in curves if c is not None]
        if len(found) < 3:
            return []
        low, median, high = (np.log10(np.where(values > 0, values, np.nan)) for _, values in found)
        lines.append(Line(f"norm {which} clipping", s.style, found[1][0], median, low, high, kind))
    return lines


def _norm_plot(group: TaskGroup, s: Shown, lines: list[Line], y_axis: Axis) -> Markup:
    threshold = s.run.config.get("clip.threshold")
    by_norm = s.run.config.get("clip.name") == "norm" and isinstance(threshold, int | float) and threshold > 0
    levels = [Level("threshold", float(np.log10(float(threshold))))] if by_norm and threshold is not None else []
    after, before = (number(10 ** float(line.y[-1])) for line in lines)
    return plot(
        f"{group.key}-norms-{s.style}", f"Gradient norm before and after clipping: {s.name}",
        f"The median norm at the end is {before} before and {after} after clipping.",
        Axis("update"), y_axis, lines, levels, size=SMALL,
    )  # fmt: skip


def _quantiles(report: Report, s: Shown) -> list[str]:
    tags = [f"clip/norm_{which}_{q}" for which in ("before", "after") for q in ("q10", "q50", "q90")]
    found = [report.records.ends(s.run, tag) for tag in tags]
    return ["—" if ends is None else number(ends[1]) for ends in found]


def _largest(report: Report, s: Shown) -> list[tuple[object, ...]]:
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
        (s.name, element("code", name), f"{number(100 * value)} %", _bar(s, value))
        for value, name in largest[:MOST_PARAMETERS]
    ]


def _bar(s: Shown, value: float) -> Markup:
    width = 100 * min(max(value, 0.0), 1.0)
    filled = element("rect", class_=f"fill s{s.style}", x=0, y=0, width=width, height=10)
    return element(
        "svg", filled, class_="meter", viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true"
    )
