"""When they solve it: the share of seeds that have, by update, with those that were not followed to the end."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from rnnlstm.reporting.html.parts import (
    Numbers,
    Panel,
    Report,
    Section,
    chapter,
    figure,
    keyed,
    legend,
    table,
    unbroken,
)
from rnnlstm.reporting.html.plot import MOST_POINTS, Axis, Dot, Level, Line, plot
from rnnlstm.reporting.html.scale import number
from rnnlstm.reporting.html.shown import Shown, TaskGroup
from rnnlstm.reporting.statistics import MOST_BANDS, SolvedShare, SolveTimes, solve_times, solved_share
from rnnlstm.reporting.tables import solved_text, steps_text

INTRO = (
    "How soon a network solves its task is a number of its own, and one that is not known of every seed: some are "
    "stopped, or still training, before they have. To leave these out would flatter a network; to count them as "
    "never solving it would do it wrong. The <em>Kaplan–Meier estimate</em> counts each for as long as it was "
    "followed."
)
CAPTION = (
    "<strong>What to see.</strong> A line climbs by a step whenever a seed solves the task; further left is sooner, "
    "and the top is all of them. Where it crosses the dashed line, half have solved it: the median. Upright strokes: "
    "seeds that were followed no further and had not solved it by then. A diverged seed will never solve it, so it "
    "stays among the unsolved to the end. {bands} The table has the median with the range of the seeds under five of "
    "them, and its 95 % bootstrap interval from five on; “>” says that it lies beyond what has been seen."
)
BANDS = "Bands, from the first solved one on: 95 % interval of the share (Wilson’s)."
HEADS = ("configuration", "solved (95\u00a0%)", "updates to solve: median", "followed up to update")


def section(report: Report) -> Section:
    return chapter(
        "solving", "When they solve it", report, INTRO, [_part(report, group) for group in report.drawn], ""
    )


def _part(report: Report, group: TaskGroup) -> Markup:
    times = [solve_times(s.run) for s in group.shown]
    end = max((t.followed for t in times), default=0.0) or 1.0
    shares = [solved_share(t, end) for t in times]
    bands = len(shares) <= MOST_BANDS
    lines = [_steps(s, c, bands) for s, c in zip(group.shown, shares, strict=True)]
    ticks = [
        Dot(f"{s.name}: followed up to update {number(float(step))}", s.style, float(step), float(share), tick=True)
        for s, c in zip(group.shown, shares, strict=True)
        for step, share in zip(c.ended, c.ended_share, strict=True)
    ]
    words = list(zip(group.shown, times, shares, strict=True))
    picture = plot(
        f"{group.key}-solved", f"Share of seeds that have solved it, by update, {group.title}",
        "; ".join(f"{s.name}: {_told(t, c)}" for s, t, c in words),
        Axis("update", (0.0, 1.02 * end)), Axis("share that has solved it", (-0.04, 1.04)), lines,
        [Level("half of the seeds", 0.5)], ticks,
    )  # fmt: skip
    rows = [
        (keyed(s.name, s.style), unbroken(solved_text(s.run)), unbroken(steps_text(s.run)), number(t.followed))
        for s, t, _ in words
    ]
    caption = CAPTION.format(bands=BANDS if bands else "")
    return Markup("").join([
        legend(group), figure(report, f"{group.key}-solving", [Panel(picture)], caption, None),
        table(Numbers(f"{group.title}: when they solve it", HEADS, rows)),
    ])  # fmt: skip


def _steps(s: Shown, curve: SolvedShare, band: bool) -> Line:
    """A line that holds each value until the next step: two points for each. Thinned here, so that it stays one of
    steps."""
    kept = np.linspace(0, len(curve.steps) - 1, min(len(curve.steps), MOST_POINTS // 2)).round().astype(int)
    y, low, high = (np.repeat(part[kept], 2)[:-1] for part in (curve.share, curve.low, curve.high))
    x, begun = np.repeat(curve.steps[kept], 2)[1:], y > 0
    low, high = (np.where(begun, part, np.nan) for part in (low, high))  # before, bands would only hide one another
    return Line(s.name, s.style, x, y, low if band else None, high if band else None)


def _told(times: SolveTimes, curve: SolvedShare) -> str:
    count = f"{int(times.solved.sum())} of {len(times.steps)} solved it"
    if not times.solved.any():
        return f"{count}, followed up to update {number(times.followed)}"
    first = number(float(times.steps[times.solved][0]))
    return f"{count}, the first at update {first}; share at the end {number(float(curve.share[-1]))}"
