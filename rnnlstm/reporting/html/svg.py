"""Drawings as inline SVG, coloured by the page's own variables, so that they follow its light and dark theme.

Matplotlib's SVG has colours written into every path, takes several times the bytes, and names nothing for a screen
reader; importing matplotlib would also take longer than making the whole page.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from rnnlstm.record.heatmap import HIGH, LOW, plain_png
from rnnlstm.reporting.charts import MOST_POINTS, Axis, Chart, FlowMap, Level, Line, number, power, round_ticks, share
from rnnlstm.reporting.colours import STYLES
from rnnlstm.reporting.html.parts import element
from rnnlstm.reporting.runs import shortened
from rnnlstm.reporting.statistics import Bounds

SIZE, SMALL = (460, 300), (340, 230)  #: of a drawing beside one other, and of one among many; letters are equal
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 44
TICK = "M0-7V7"


@dataclass(frozen=True)
class Scale:
    """From numbers to places, linear: `low … high` to `start … end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: np.ndarray) -> np.ndarray:
        return self.start + (np.asarray(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def at(self, value: float) -> float:
        """The place of a number; of one outside the range, that of the nearer end."""
        least, most = sorted((self.low, self.high))
        return float(self(np.asarray(min(max(value, least), most))))


def drawing(key: str, title: str, told: str, width: float, height: float, *marks: object, kind: str = "") -> Markup:
    """An `<svg>` with its title and description, whose ids begin with `key`."""
    return element(
        "svg", element("title", title, id=f"{key}-title"), element("desc", told, id=f"{key}-desc"), *marks,
        class_=f"plot {kind}".strip(), viewBox=f"0 0 {width:g} {height:g}", role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )  # fmt: skip


def words(text: str, x: float, y: float, anchor: str = "middle", class_: str = "tick") -> Markup:
    return element("text", text, class_=class_, x=x, y=y, text_anchor=anchor)


def stroke(class_: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("line", class_=class_, x1=x1, x2=x2, y1=y1, y2=y2)


def plot(key: str, chart: Chart, size: tuple[int, int] = SIZE, left: int = LEFT) -> Markup:
    """A chart. `key` makes the ids of this drawing; `left` is the room for the texts of the y axis."""
    (width, height), (x_axis, y_axis) = size, chart.axes()
    x, y = _scales(x_axis, y_axis, width - RIGHT, height - BOTTOM, left)
    lines = [thinned(line) for line in chart.lines]
    inside = [
        element("path", class_=f"band s{s.style} {s.kind}", d=_band(s, x, y)) for s in lines if s.low is not None
    ]
    for s in lines:
        name = element("title", f"{s.name}: {s.note}" if s.note else s.name)
        wide = f"stroke-width:{2.2 * s.width:.1f}px" if s.width != 1 else None
        inside.append(element("path", name, class_=f"line s{s.style} {s.kind}", style=wide, d=_path(s, x, y)))
    marks = []
    for dot in chart.dots:
        place = f"translate({x.at(dot.x):.1f} {y.at(dot.y):.1f})"
        looks, shape = ("stroke", TICK) if dot.tick else ("dot", STYLES[dot.style].mark)
        name = element("title", dot.name)
        marks.append(element("path", name, class_=f"{looks} s{dot.style}", d=shape, transform=place))
    frame = {"x": left, "y": TOP, "width": width - left - RIGHT, "height": height - TOP - BOTTOM}
    clip = element("clipPath", element("rect", **frame), id=f"{key}-clip")
    return drawing(
        key, chart.title, chart.description, width, height, clip, *_axes(x_axis, y_axis, x, y),
        element("g", *inside, clip_path=f"url(#{key}-clip)"), *marks, *_levels(chart.levels, x, y),
        kind="large" if size == SIZE else "",
    )  # fmt: skip


def _scales(x_axis: Axis, y_axis: Axis, right: float, bottom: float, left: float = LEFT) -> tuple[Scale, Scale]:
    assert x_axis.range is not None
    assert y_axis.range is not None
    return Scale(*x_axis.range, left, right), Scale(*y_axis.range, bottom, TOP)


def _axes(x_axis: Axis, y_axis: Axis, x: Scale, y: Scale) -> Iterator[Markup]:
    """Grid lines, ticks and labels."""
    bottom, top, left, right = y.start, y.end, x.start, x.end
    for value, text in y_axis.ticks:
        yield stroke("grid", left, y.at(value), right, y.at(value))
        yield words(text, left - 7, y.at(value) + 4, "end")
    for value, text in x_axis.ticks:
        yield stroke("axis", x.at(value), bottom, x.at(value), bottom + 4)
        yield words(text, x.at(value), bottom + 18)
    yield stroke("axis", left, bottom, right, bottom)
    yield words(x_axis.label, (left + right) / 2, bottom + 38, class_="label")
    turned = f"translate(12 {(top + bottom) / 2:.0f}) rotate(-90)"
    yield element("text", y_axis.label, class_="label", transform=turned, text_anchor="middle")


def thinned(line: Line) -> Line:
    """At most `MOST_POINTS` of the line's points, its ends among them."""
    if len(line.x) <= MOST_POINTS:
        return line
    kept = np.linspace(0, len(line.x) - 1, MOST_POINTS).round().astype(int)
    low, high = (None if part is None else part[kept] for part in (line.low, line.high))
    return replace(line, x=line.x[kept], y=line.y[kept], low=low, high=high)


def _levels(levels: Sequence[Level], x: Scale, y: Scale) -> Iterator[Markup]:
    """Lines with their names above them; below, where the next line is near."""
    inside = sorted((level for level in levels if y.low <= level.value <= y.high), key=lambda level: level.value)
    for k, level in enumerate(inside):
        at = y.at(level.value)
        near = k + 1 < len(inside) and at - y.at(inside[k + 1].value) < 20
        yield stroke("level", x.start, at, x.end, at)
        yield words(level.name, x.end - 4, at + (14 if near else -5), "end", "level-name")


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
    return "".join(
        f"M{_points(xs[p], high[p])}L{_points(xs[p][::-1], low[p][::-1])}Z" for p in _pieces(xs, low, high)
    )


# Intervals one above another beside zero.

FOREST_WIDTH, FOREST_ROW, FOREST_TOP = 340, 38, 24
SIDE = 14  #: of the forest's frame


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
    x = Scale(low - room, high + room, SIDE, FOREST_WIDTH - SIDE)
    bottom = FOREST_TOP + FOREST_ROW * len(rows)
    marks = []
    for value, text in round_ticks(x.low, x.high, count=4):
        at, tops = x.at(value), [FOREST_TOP + FOREST_ROW * k + 18 for k in range(len(rows))]
        beside = "".join(f"M{at:.1f} {top}v{FOREST_ROW - 18}" for top in tops)  # not through names
        marks += [element("path", class_="grid" if value else "axis", d=beside), words(text, at, bottom + 18)]
    anchor, side = ("start", SIDE) if better.startswith("←") else ("end", FOREST_WIDTH - SIDE)
    marks.append(words(better, side, FOREST_TOP - 10, anchor))
    for k, row in enumerate(rows):
        marks += _forest_row(row, x, FOREST_TOP + FOREST_ROW * k)
    marks.append(words(label, FOREST_WIDTH / 2, bottom + 38, class_="label"))
    return drawing(key, title, told, FOREST_WIDTH, bottom + 44, *marks)


def _forest_row(row: Interval, x: Scale, top: float) -> list[Markup]:
    """The name, and below it the interval; an interval that extends beyond the frame ends there without a bar."""
    y, (low, high) = top + 27, (x.at(end) for end in row.interval)
    marks = [
        words(shortened(row.name, 46), SIDE, top + 14, "start", "level-name"),
        element("path", class_=f"stroke s{row.style}", d=f"M{low:.1f} {y:.1f}H{high:.1f}"),
    ]
    for end, at in zip(row.interval, (low, high), strict=True):
        if math.isfinite(end):
            marks.append(element("path", class_=f"stroke s{row.style}", d=f"M{at:.1f} {y - 5:.1f}v10"))
    if row.median[0] == row.median[1] and math.isfinite(row.median[0]):
        place = f"translate({x.at(row.median[0]):.1f} {y:.1f})"
        marks.append(element("path", class_=f"dot s{row.style}", d=STYLES[row.style].mark, transform=place))
    return marks


# Gates: from before training to after it.

Means = Mapping[str, tuple[float, float]]  #: by kind of token: before training and at the last look


def gate_dots(key: str, name: str, style: int, gate: str, means: Means) -> Markup:
    """A row for each kind of token, from the ring (before) to the dot (after)."""
    width, left, row_height = 300, 92, 26
    x, bottom = Scale(0.0, 1.0, left, width - 16), TOP + row_height * len(means)
    marks = []
    for value, text in ((0.0, "0 shut"), (0.5, "0.5"), (1.0, "1 open")):
        at = x.at(value)
        marks.append(stroke("grid", at, TOP, at, bottom))
        marks.append(words(text, at + 6 * (value == 1), bottom + 16, "end" if value == 1 else "middle"))
    for row, (kind, (before, after)) in enumerate(means.items()):
        y, a, b = TOP + row_height * (row + 0.5), x.at(before), x.at(after)
        change = element("title", f"{kind}: from {number(before)} to {number(after)}")
        marks += [words(kind, left - 10, y + 4, "end"), stroke(f"move s{style}", a, y, b, y)]
        marks.append(element("circle", class_=f"ring s{style}", cx=a, cy=y, r=5))
        marks.append(element("circle", change, class_=f"dot s{style}", cx=b, cy=y, r=5.5))
    told = "; ".join(f"{kind} {number(a)} before training, {number(b)} after" for kind, (a, b) in means.items())
    title = f"How open the {gate} gate of {name} is, by kind of token"
    return drawing(key, title, told, width, bottom + 22, *marks, kind="small")


def meter(style: int, value: float) -> Markup:
    """A bar as long as a share, in a cell of a table."""
    filled = element("rect", class_=f"fill s{style}", x=0, y=0, width=100 * min(max(value, 0.0), 1.0), height=10)
    return element(
        "svg", filled, class_="meter", viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true"
    )


# The gradient through time as pictures.

MOST_ROWS, MOST_COLUMNS = 96, 200  #: pixels of a map; beyond, every few are left out
MAP_WIDTH, MAP_HEIGHT, BAR_WIDTH = 340, 180, 460


def draw_map(key: str, flow_map: FlowMap) -> Markup:
    """Steps back from the answer to the left, training down."""
    steps, (S, K) = flow_map.flow.steps, flow_map.flow.by_step.shape
    rows = np.linspace(0, S - 1, min(S, MOST_ROWS)).round().astype(int)
    columns = np.linspace(K - 1, 0, min(K, MOST_COLUMNS)).round().astype(int)
    x_axis = Axis("steps back from the answer", (K - 0.5, -0.5), ticks=round_ticks(0, K - 1))
    labelled = [(row, f"{steps[rows[row]]:,}") for row in sorted({0, len(rows) // 2, len(rows) - 1})]
    y_axis = Axis("update", (len(rows) - 0.5, -0.5), ticks=[(float(row), text) for row, text in labelled])
    x, y = _scales(x_axis, y_axis, MAP_WIDTH - RIGHT, MAP_HEIGHT - BOTTOM)
    told = f"From the answer back to the first step, {share(float(flow_map.flow.last[-1]))} is left at the last look."
    return drawing(
        key, f"Gradient in {flow_map.state} through time and training: {flow_map.shown.name}", told,
        MAP_WIDTH, MAP_HEIGHT,
        *_axes(x_axis, y_axis, x, y),
        *_image(flow_map.flow.by_step[np.ix_(rows, columns)], LEFT, TOP, x.end - LEFT, y.start - TOP),
    )  # fmt: skip


def _image(values: np.ndarray, x: float, y: float, width: float, height: float) -> tuple[Markup, Markup]:
    png = base64.b64encode(plain_png(values)).decode()
    place = {"x": x, "y": y, "width": width, "height": height}
    link = f"data:image/png;base64,{png}"
    return (
        element("image", href=link, preserveAspectRatio="none", class_="map", **place),
        element("rect", class_="frame", **place),
    )


def colour_bar(key: str) -> Markup:
    """The scale of colours of all maps."""
    x = Scale(LOW, HIGH, 30, BAR_WIDTH - 30)
    marks = [words(power(k), x.at(k), 42) for k in range(-8, 5, 2)]
    for at, word, anchor in ((LOW, "vanished", "start"), (0.0, "as strong", "middle"), (HIGH, "exploded", "end")):
        marks.append(words(word, x.at(at), 60, anchor, "label"))
    told = "Dark blue is 10⁻⁸ and less, white 1, dark red 10⁴ and more"
    image = _image(np.linspace(LOW, HIGH, 240)[None], 30, 8, BAR_WIDTH - 60, 16)
    return drawing(f"{key}-bar", "The colours of all maps", told, BAR_WIDTH, 68, *image, *marks, kind="bar")


# A gradient on its way back, with made-up factors: the idea before the measurements.

FACTORS = (
    (0.7, "a plain RNN: each step back costs the same factor"),
    (0.98, "an LSTM’s memory, its forget gate open"),
)
CHAIN = 12  #: steps


def illustration() -> Markup:
    """Two chains of steps, each as dark as the gradient that is left there."""
    x, marks = Scale(0, CHAIN - 1, 398, 22), []
    for row, (factor, name) in enumerate(FACTORS):
        y = 46 + 80 * row
        marks.append(words(f"{name} ({factor:g} a step)", 11, y - 22, "start", "label"))
        for k in reversed(range(CHAIN)):
            left, at = factor**k, x.at(k)
            if k < CHAIN - 1:
                ends = {"x1": at - 11, "x2": x.at(k + 1) + 11, "y1": y, "y2": y}
                marks.append(element("line", class_="link", stroke_opacity=f"{max(0.15, left):.2f}", **ends))
            marks.append(element("circle", class_="paper", cx=at, cy=y, r=11))
            marks.append(element("circle", class_="step", cx=at, cy=y, r=11, fill_opacity=f"{left:.3f}"))
            if k in (0, CHAIN - 1, CHAIN // 2):
                marks.append(words(f"{100 * left:.0f} %", at, y + 27))
    told = "; ".join(
        f"{name}: {100 * f ** (CHAIN - 1):.0f} % left after {CHAIN - 1} steps back" for f, name in FACTORS
    )
    return drawing(
        "way", "Illustration: a gradient on its way back through time", told, 420, 160, *marks, kind="wide"
    )
