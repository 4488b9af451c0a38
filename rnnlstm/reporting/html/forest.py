"""Intervals one above another beside zero: which differences are clear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rnnlstm.reporting.html.markup import element
from rnnlstm.reporting.html.plot import MARKS
from rnnlstm.reporting.html.scale import Scale
from rnnlstm.reporting.statistics import Bounds

WIDTH, LEFT, RIGHT, ROW, TOP = 340, 14, 14, 38, 24
LONGEST = 46  #: characters of a name


@dataclass(frozen=True)
class Interval:
    """A median, known to lie within bounds, and its interval; ends may be infinite."""

    name: str
    style: int
    median: Bounds
    interval: Bounds


def forest(key: str, title: str, told: str, label: str, rows: Sequence[Interval], better: str) -> Markup:
    """`better` says on which side of zero a row is better: `←` or `→` with words."""
    ends = [end for row in rows for end in (*row.median, *row.interval) if math.isfinite(end)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.15 * (high - low) or 1.0
    x = Scale(low - room, high + room, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(rows)
    marks = []
    for value, words in x.ticks(4):
        at = x.at(value)
        beside = "".join(f"M{at:.1f} {TOP + ROW * k + 18}v{ROW - 18}" for k in range(len(rows)))  # not through names
        marks.append(element("path", class_="grid" if value else "axis", d=beside))
        marks.append(element("text", words, class_="tick", x=at, y=bottom + 18, text_anchor="middle"))
    side = ("start", LEFT) if better.startswith("←") else ("end", WIDTH - RIGHT)
    marks.append(element("text", better, class_="tick", x=side[1], y=TOP - 10, text_anchor=side[0]))
    for k, row in enumerate(rows):
        marks += _row(row, x, TOP + ROW * k)
    marks.append(element("text", label, class_="label", x=WIDTH / 2, y=bottom + 38, text_anchor="middle"))
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", told, id=f"{key}-desc"),
        *marks,
        class_="plot",
        viewBox=f"0 0 {WIDTH} {bottom + 44}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def _row(row: Interval, x: Scale, top: float) -> list[Markup]:
    """The name, and below it the interval; what goes on beyond the frame ends there without a bar."""
    name = row.name if len(row.name) <= LONGEST else f"{row.name[: LONGEST - 1]}…"
    y, ends = top + 27, [x.at(min(max(end, x.low), x.high)) for end in row.interval]
    marks = [
        element("text", name, class_="level-name", x=LEFT, y=top + 14),
        element("path", class_=f"stroke s{row.style}", d=f"M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}"),
    ]
    for end, at in zip(row.interval, ends, strict=True):
        if math.isfinite(end):
            marks.append(element("path", class_=f"stroke s{row.style}", d=f"M{at:.1f} {y - 5:.1f}v10"))
    if row.median[0] == row.median[1] and math.isfinite(row.median[0]):
        place = f"translate({x.at(row.median[0]):.1f} {y:.1f})"
        marks.append(element("path", class_=f"dot s{row.style}", d=MARKS[row.style], transform=place))
    return marks
