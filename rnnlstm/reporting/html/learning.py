"""Who learns it: the headline metric and the held-out loss over training, beside what can be had without looking."""

from __future__ import annotations

import math
import warnings

import numpy as np
from markupsafe import Markup

from rnnlstm.reporting.curves import Curve
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, chapter, figure, legend
from rnnlstm.reporting.html.plot import Axis, Level, Line, plot
from rnnlstm.reporting.html.scale import number
from rnnlstm.reporting.html.shown import TaskGroup
from rnnlstm.reporting.statistics import ENOUGH_SEEDS

INTRO = (
    "After every few updates each network answers held-out sequences that it never trained on. A line is the median "
    "over its seeds: the same network, started and fed differently. The band around it shows how far seeds differ."
)
CAPTION = (
    "<strong>What to see.</strong> A line that leaves the dashed <em>baseline</em> has begun to use its input: the "
    "baseline is the best loss without looking at it. A network that stays there has learned the task’s statistics "
    "and remembers nothing. Further dashed lines are plateaus, reached by remembering a part. A line that ends "
    "early belongs to seeds that had solved the task, or that broke off. {band}"
)

MOST_LEVELS = 6


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    return chapter("learning", "Who learns it", report, INTRO, parts, "No evaluation has been recorded yet.")


def _part(report: Report, group: TaskGroup) -> Markup | None:
    panels, rows = [], []
    for what, name in (("metric", group.metric), ("loss", "loss")):
        tag = f"eval/{name}"
        curves = [(s, c) for s in group.shown if (c := report.records.curve(s.run, tag)) is not None]
        if not name or not curves:
            continue
        lines = [Line(s.name, s.style, c.steps, *_parts(c)) for s, c in curves]
        levels = levels_of(report, group) if what == "loss" else []
        words = name.replace("_", " ") if what == "metric" else "held-out loss"
        picture = plot(
            f"{group.key}-{what}",
            f"{words} over training, {group.title}",
            "; ".join(f"{s.name}: from {number(_first(c))} to {number(_last(c))}" for s, c in curves),
            Axis("update"),
            Axis(words, y_range(lines, levels)),
            lines,
            levels,
        )
        panels.append(Panel(picture, words))
        rows += [(f"{s.name}: {words}", *_sampled(c)) for s, c in curves]
    if not panels:
        return None
    few = all(len(s.run.seeds) < ENOUGH_SEEDS for s in group.shown)
    band = "Bands: the range over seeds." if few else "Bands: the middle half of the seeds (their range under five)."
    heads = ("median", "first", "at a quarter", "halfway", "at three quarters", "last")
    numbers = Numbers(f"Medians over training, {group.title}", heads, rows)
    return legend(group) + figure(report, f"{group.key}-learning", panels, CAPTION.format(band=band), numbers)


def levels_of(report: Report, group: TaskGroup) -> list[Level]:
    """The task's baseline and plateaus, as a run recorded them."""
    run = next((s.run for s in group.shown if report.records.tags(s.run, "baseline/")), None)
    if run is None:
        return []
    levels = []
    for tag in report.records.tags(run, "baseline/")[:MOST_LEVELS]:
        found = report.records.ends(run, tag)
        if found is not None:
            name = "baseline: no input seen" if tag == "baseline/loss" else tag.partition("/")[2].replace("_", " ")
            levels.append(Level(name, found[1]))
    return levels


def y_range(lines: list[Line], levels: list[Level]) -> tuple[float, float] | None:
    """0 … 1 for shares; a loss from 0 to at most twice its baseline, unless it ends higher: an untrained
    network's may be far above it."""
    values = np.concatenate([line.high if line.high is not None else line.y for line in lines])
    lows = np.concatenate([line.low if line.low is not None else line.y for line in lines])
    finite = values[np.isfinite(values)]
    if not len(finite) or np.nanmin(np.where(np.isfinite(lows), lows, math.inf)) < 0:
        return None
    top = float(finite.max())
    if levels:
        highest = max(level.value for level in levels)
        ends = [float(line.y[np.isfinite(line.y)][-1]) for line in lines if np.isfinite(line.y).any()]
        return 0.0, max(min(top, 2 * highest), 1.15 * highest, *(1.1 * end for end in ends))
    return (0.0, 1.0) if 0.25 < top <= 1 else (0.0, 1.05 * top or 1.0)


def _parts(curve: Curve) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Median, and the band where there are several seeds."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a step at which no seed has a value
        low, median, high = curve.band()
    return (median, low, high) if len(curve.values) > 1 else (median, None, None)


def _sampled(curve: Curve) -> list[str]:
    median = _parts(curve)[0]
    return [number(float(median[k])) for k in np.linspace(0, len(median) - 1, 5).round().astype(int)]


def _first(curve: Curve) -> float:
    return float(_parts(curve)[0][0])


def _last(curve: Curve) -> float:
    return float(_parts(curve)[0][-1])
