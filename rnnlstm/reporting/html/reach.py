"""How far they reach: each network's chance of solving a task, by length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from rnnlstm.reporting.colours import colour_numbers
from rnnlstm.reporting.html.markup import element, render
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, figure, keyed, table, unbroken
from rnnlstm.reporting.html.plot import Axis, Dot, Level, Line, plot
from rnnlstm.reporting.html.shown import MOST_GROUPS, MOST_SHOWN
from rnnlstm.reporting.reach import Reach, by_reach, reaches

INTRO = (
    "The same task at several lengths: the longer the sequences, the farther back the answer lies. How far a network "
    "reaches is the longest length at which at least half of its trainings solve the task, as they do at every "
    "shorter one of these."
)
CAPTION = (
    "<strong>What to see.</strong> A network that forgets falls from the top to the bottom as sequences grow; one "
    "that remembers stays at the top. Marks: the share of trainings that solved the task within the updates they "
    "were given, of those that have ended. Upright lines: 95\u00a0% interval of the share (Wilson’s). The scale of "
    "lengths is logarithmic, and marks at one length are moved aside a little."
)
SHIFT = 0.012  #: in decades, between two networks' marks


@dataclass(frozen=True)
class _Drawn:
    name: str
    style: int
    reach: Reach


def section(report: Report) -> Section | None:
    """None where no network was trained at two lengths of a task."""
    tasks = by_reach(reaches(report.runs))
    if not tasks:
        return None
    parts = [element("p", Markup(INTRO), class_="intro")]
    for number, (task, found) in enumerate(list(tasks.items())[:MOST_GROUPS], start=1):
        if len(tasks) > 1:
            parts.append(element("h3", task, id=f"reach-{number}"))
        styles = colour_numbers([reach.name for reach in found[:MOST_SHOWN]])
        drawn = [_Drawn(reach.name, style, reach) for style, reach in zip(styles, found, strict=False)]
        shown = {"shown": drawn, "left_out": len(found) - len(drawn)}
        parts.append(render("legend.html", group=shown, marks=None))
        parts.append(figure(report, f"t{number}-reach", [Panel(_picture(f"t{number}", task, drawn))], CAPTION, None))
        parts.append(table(_numbers(task, found, styles)))
    return Section("reach", "How far they reach", Markup("").join(parts))


def _picture(key: str, task: str, drawn: Sequence[_Drawn]) -> Markup:
    lengths = sorted({length for d in drawn for length in d.reach.lengths})
    lines, dots = [], []
    for d in drawn:
        x = np.log10(d.reach.lengths) + SHIFT * (d.style - (len(drawn) - 1) / 2)
        lines.append(Line(d.name, d.style, x, np.array(d.reach.shares)))
        for at, share, (low, high), words in zip(x, d.reach.shares, d.reach.intervals, _cells(d.reach), strict=True):
            upright = np.array([at, at])
            lines.append(Line(d.name, d.style, upright, np.array([low, high]), kind="interval"))
            dots.append(Dot(f"{d.name}: {words}", d.style, float(at), share))
    ends = (math.log10(lengths[0]) - 0.06, math.log10(lengths[-1]) + 0.06)
    ticks = [(math.log10(length), str(length)) for length in lengths]
    return plot(
        f"{key}-reach-plot", f"Share of trainings that solve the task, by length, {task}",
        "; ".join(f"{d.name}: {_longest(d.reach)}" for d in drawn),
        Axis("length T", ends, ticks=ticks), Axis("share that solves it", (-0.04, 1.04)), lines,
        [Level("half of them", 0.5)], dots,
    )  # fmt: skip


def _numbers(task: str, found: Sequence[Reach], styles: Sequence[int]) -> Numbers:
    lengths = sorted({length for reach in found for length in reach.lengths})
    rows = []
    for style, reach in itertools.zip_longest(styles, found):  # the last may be in no figure
        cells = dict(zip(reach.lengths, _cells(reach), strict=True))
        name = keyed(reach.name, style)
        rows.append((name, _longest(reach), *(cells.get(length, "—") for length in lengths)))
    heads = ("network", "reaches", *(f"T = {length}" for length in lengths))
    return Numbers(f"Solved, by length: {task}", heads, rows)


def _cells(reach: Reach) -> list[str]:
    return [
        unbroken(f"{solved} of {seeds} ({100 * low:.0f}–{100 * high:.0f} %)")
        for solved, seeds, (low, high) in zip(reach.solved, reach.seeds, reach.intervals, strict=True)
    ]


def _longest(reach: Reach) -> str:
    if reach.longest is None:
        return f"not even {reach.lengths[0]}"
    return f"{reach.longest}" + (" or more" if reach.longest == reach.lengths[-1] else "")
