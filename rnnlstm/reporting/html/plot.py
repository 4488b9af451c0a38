"""Plots as inline SVG, coloured by the page's own variables, so that they follow its light and dark theme.

Own drawing, in place of matplotlib's SVG: that has its colours written into every path, needs several times the
bytes, and names nothing for a screen reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from rnnlstm.reporting.html.markup import element
from rnnlstm.reporting.html.scale import Scale, spread

SIZE, SMALL = (460, 300), (340, 230)  #: of a drawing beside one other, and of one among many; letters are equal
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 44
#: Shapes of dots by style, around 0: configurations are told apart by more than colour.
MARKS = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z",
    "M-4.6-4.6h9.2v9.2h-9.2Z",
    "M0-6.2L5.8 4.4H-5.8Z",
    "M0-6.4L6.4 0L0 6.4L-6.4 0Z",
    "M0 6.2L5.8-4.4H-5.8Z",
    "M-1.8-5.5h3.6v3.7h3.7v3.6h-3.7v3.7h-3.6v-3.7h-3.7v-3.6h3.7Z",
    "M0-6L5.2-3V3L0 6L-5.2 3V-3Z",
    "M-6-2.5H6V2.5H-6Z",
)
TICK = "M0-7V7"
MOST_POINTS = 200  #: of a line; beyond, every few are left out


@dataclass(frozen=True)
class Line:
    """A line, perhaps with a band around it. Gaps where a value isn't finite."""

    name: str
    style: int  #: number of its colour and dashes
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    kind: str = ""  #: a further class for its looks


@dataclass(frozen=True)
class Level:
    """A named horizontal line."""

    name: str
    value: float


@dataclass(frozen=True)
class Dot:
    name: str
    style: int
    x: float
    y: float
    tick: bool = False  #: a short upright stroke in place of a shape


@dataclass(frozen=True)
class Axis:
    label: str
    range: tuple[float, float] | None = None  #: None: that of the data
    log: bool = False  #: the data are log10 of what is written at the ticks
    ticks: Sequence[tuple[float, str]] = ()  #: places and texts, in place of round numbers


def plot(
    key: str,
    title: str,
    description: str,
    x_axis: Axis,
    y_axis: Axis,
    lines: Sequence[Line] = (),
    levels: Sequence[Level] = (),
    dots: Sequence[Dot] = (),
    size: tuple[int, int] = SIZE,
) -> Markup:
    """One pair of axes. `key` makes the ids of this drawing; `title` and `description` are for those who hear it."""
    lines, (width, height) = [thinned(line) for line in lines], size
    xs = [line.x for line in lines] + [np.array([dot.x for dot in dots])]
    ys = [part for line in lines for part in (line.y, line.low, line.high) if part is not None]
    ys += [np.array([dot.y for dot in dots]), np.array([level.value for level in levels])]
    x = Scale(*(x_axis.range or _range(xs)), LEFT, width - RIGHT, x_axis.log)
    y = Scale(*(y_axis.range or _range(ys)), height - BOTTOM, TOP, y_axis.log)
    inside: list[Markup] = []
    inside += [element("path", class_=f"band s{s.style}", d=_band(s, x, y)) for s in lines if s.low is not None]
    for line in lines:
        path = element(
            "path", element("title", line.name), class_=f"line s{line.style} {line.kind}", d=_path(line, x, y)
        )
        inside.append(path)
    marks = []
    for dot in dots:
        place = f"translate({x.at(dot.x):.1f} {y.at(dot.y):.1f})"
        named = element("title", dot.name)
        looks, shape = ("stroke", TICK) if dot.tick else ("dot", MARKS[dot.style])
        marks.append(element("path", named, class_=f"{looks} s{dot.style}", d=shape, transform=place))
    frame = {"x": LEFT, "y": TOP, "width": width - LEFT - RIGHT, "height": height - TOP - BOTTOM}
    clip = element("clipPath", element("rect", **frame), id=f"{key}-clip")
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        clip,
        *axes(x, y, x_axis.label, y_axis.label, x_axis.ticks),
        element("g", *inside, clip_path=f"url(#{key}-clip)"),
        *marks,
        *_levels(levels, x, y),
        class_="plot large" if size == SIZE else "plot",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def axes(
    x: Scale, y: Scale, x_label: str, y_label: str, x_ticks: Sequence[tuple[float, str]] = ()
) -> Iterator[Markup]:
    """Grid lines, ticks and labels."""
    bottom, top, left, right = y.start, y.end, x.start, x.end
    for value, text in y.ticks():
        yield element("line", class_="grid", x1=left, x2=right, y1=y.at(value), y2=y.at(value))
        yield element("text", text, class_="tick", x=left - 7, y=y.at(value) + 4, text_anchor="end")
    for value, text in x_ticks or x.ticks():
        yield element("line", class_="axis", x1=x.at(value), x2=x.at(value), y1=bottom, y2=bottom + 4)
        yield element("text", text, class_="tick", x=x.at(value), y=bottom + 18, text_anchor="middle")
    yield element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom)
    yield element("text", x_label, class_="label", x=(left + right) / 2, y=bottom + 38, text_anchor="middle")
    turned = f"translate(12 {(top + bottom) / 2:.0f}) rotate(-90)"
    yield element("text", y_label, class_="label", transform=turned, text_anchor="middle")


def thinned(line: Line) -> Line:
    """At most `MOST_POINTS` of the line's points, its ends among them."""
    if len(line.x) <= MOST_POINTS:
        return line
    kept = np.linspace(0, len(line.x) - 1, MOST_POINTS).round().astype(int)
    low, high = (None if part is None else part[kept] for part in (line.low, line.high))
    return Line(line.name, line.style, line.x[kept], line.y[kept], low, high, line.kind)


def _levels(levels: Sequence[Level], x: Scale, y: Scale) -> Iterator[Markup]:
    """Lines with their names above them; below, where the next line is near."""
    inside = sorted((level for level in levels if y.low <= level.value <= y.high), key=lambda level: level.value)
    for k, level in enumerate(inside):
        at = y.at(level.value)
        near = k + 1 < len(inside) and at - y.at(inside[k + 1].value) < 20
        yield element("line", class_="level", x1=x.start, x2=x.end, y1=at, y2=at)
        yield element(
            "text", level.name, class_="level-name", x=x.end - 4, y=at + (14 if near else -5), text_anchor="end"
        )


def _range(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([*parts, np.empty(0)])
    values = values[np.isfinite(values)]
    return spread(float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


def _pieces(*parts: np.ndarray) -> Iterator[slice]:
    """Stretches on which all parts are finite."""
    finite = np.all([np.isfinite(part) for part in parts], axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(int)))
    yield from (slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _points(xs: np.ndarray, ys: np.ndarray) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(xs, ys, strict=True))


def _far(values: np.ndarray) -> np.ndarray:
    """Places that are outside the frame anyway need no more digits than this."""
    return np.clip(values, -2000, 2000)


def _path(line: Line, x: Scale, y: Scale) -> str:
    xs, ys = x(line.x), _far(y(line.y))
    return "".join(f"M{_points(xs[p], ys[p])}" + ("h.1" if p.stop - p.start == 1 else "") for p in _pieces(xs, ys))


def _band(line: Line, x: Scale, y: Scale) -> str:
    assert line.low is not None
    assert line.high is not None
    xs, low, high = x(line.x), _far(y(line.low)), _far(y(line.high))
    parts = []
    for p in _pieces(xs, low, high):
        parts.append(f"M{_points(xs[p], high[p])}L{_points(xs[p][::-1], low[p][::-1])}Z")
    return "".join(parts)
