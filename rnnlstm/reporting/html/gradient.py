"""How far back the gradient reaches: its strength by distance from the answer, and as maps, on one scale."""

from __future__ import annotations

import base64

import numpy as np
from markupsafe import Markup

from rnnlstm.record.heatmap import HIGH, LOW, plain_png
from rnnlstm.reporting.html.markup import element
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, chapter, figure, legend
from rnnlstm.reporting.html.plot import LEFT, RIGHT, TOP, Axis, Line, plot
from rnnlstm.reporting.html.records import Flow
from rnnlstm.reporting.html.scale import Scale, number, power
from rnnlstm.reporting.html.selection import Group, Shown

INTRO = (
    "A network learns to remember only if the error at the answer says something about the steps before it. What it "
    "says is the gradient. Backpropagation carries it back through time, one step after another, and at each step "
    "it is multiplied by the step’s own factor. Factors below one, taken many times, leave nothing: it "
    "<em>vanishes</em>. Factors above one make it <em>explode</em>. Below is its norm in h, and in an LSTM also in "
    "its memory, the cell state c, as a share of its norm at the answer itself."
)
BY_LAG = (
    "<strong>What to see.</strong> Straight down: each step back costs the same factor, which is how a plain RNN "
    "forgets. Flat: the gradient arrives, and the network can learn from what stood at the start. The wide pale "
    "lines are cell states, c. The scale is logarithmic. Left: before the first update. Right: at each seed’s last "
    "look, where a trained network stands. Medians over seeds."
)
MAPS = (
    "<strong>What to see.</strong> The answer is at the right edge; going left is going back in time, going down is "
    "training on. White: as strong as at the answer. Dark blue: less than a hundred-millionth is left. Red: "
    "stronger than at the answer. All maps have the same colours, whatever their networks: scaled to itself, a "
    "vanished gradient would look like one that arrives. A row is the median over the seeds that were still "
    "training."
)
LOWEST = -16.0  #: powers of ten that the lines are drawn down to
MOST_ROWS, MOST_COLUMNS = 96, 200  #: pixels of a map; beyond, every few are left out
MAP_WIDTH, MAP_HEIGHT = 340, 180
BAR_WIDTH = 460
STATES = {"hidden": "h", "cell": "c"}


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    missing = "The gradient through time was not recorded (probe=off, or the run has just begun)."
    return chapter("gradient", "How far back the gradient reaches", report, INTRO, parts, missing)


def _part(report: Report, group: Group) -> Markup | None:
    flows = [(s, state, flow) for s in group.shown for state, flow in report.records.flow(s.run).items()]
    if not flows:
        return None
    lowest = min(float(_drawn(v).min()) for _, _, flow in flows for v in (flow.first, flow.last))
    y_axis = Axis("share of the gradient left", (np.floor(min(-4.0, lowest)), _top(flows)), log=True)
    panels = [
        Panel(_lines(f"{group.key}-lags-{when}", f"{words}, {group.title}", flows, when, y_axis), words)
        for when, words in (("first", "before training"), ("last", "at the last look"))
    ]
    rows = [
        (f"{s.name}: {STATES.get(state, state)}, {words}", *_sampled(getattr(flow, when)))
        for s, state, flow in flows
        for when, words in (("first", "before training"), ("last", "last look"))
    ]
    heads = (
        "share of the gradient left",
        "a quarter back",
        "halfway back",
        "three quarters back",
        "at the first step",
    )
    by_lag = figure(f"{group.key}-lags", panels, Markup(BY_LAG), Numbers(f"Gradient, {group.title}", heads, rows))
    plain_first = sorted(flows, key=lambda found: len(report.records.flow(found[0].run)))  # an RNN beside an LSTM
    panels = [
        Panel(_map(f"{group.key}-map-{s.style}-{k}", s, state, flow), f"{s.name}: {STATES.get(state, state)}", s)
        for k, (s, state, flow) in enumerate(plain_first)
    ]
    maps = figure(f"{group.key}-maps", panels, Markup(MAPS), None, foot=_colour_bar(group.key))
    return legend(group) + by_lag + maps


def share(log10: float) -> str:
    """A share in words: 34 %, 1/2,400, 10⁻¹¹; above one, how many times."""
    if np.isnan(log10):
        return "unknown"
    if log10 > 0.3:
        return f"{number(10.0 ** min(log10, 300))} times as much"
    if log10 >= -2:
        return f"{10**log10:.0%}".replace("%", " %")
    if log10 >= -6:
        return f"1/{float(f'{10**-log10:.2g}'):,.0f}"
    return "nothing" if np.isinf(log10) else power(round(log10))


def _drawn(values: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(values, nan=0.0, neginf=LOWEST, posinf=HIGH), LOWEST, None)


def _top(flows: list[tuple[Shown, str, Flow]]) -> float:
    highest = max(float(_drawn(v).max()) for _, _, flow in flows for v in (flow.first, flow.last))
    return float(min(12.0, np.ceil(max(0.5, highest))))


def _lines(key: str, title: str, flows: list[tuple[Shown, str, Flow]], when: str, y_axis: Axis) -> Markup:
    lines = []
    for s, state, flow in flows:
        values = getattr(flow, when)
        shown = np.where(np.isnan(values), np.nan, _drawn(values))
        kind = "" if state == "hidden" else "wide"
        lines.append(Line(f"{s.name}: {STATES.get(state, state)}", s.style, np.arange(len(shown)), shown, kind=kind))
    ends = (f"{line.name}: {share(float(line.y[-1]))} {len(line.y) - 1} steps back" for line in lines)
    return plot(
        key,
        f"Gradient by distance from the answer, {title}",
        "; ".join(ends),
        Axis("steps back from the answer"),
        y_axis,
        lines,
    )


def _map(key: str, s: Shown, state: str, flow: Flow) -> Markup:
    S, K = flow.by_step.shape
    rows = np.linspace(0, S - 1, min(S, MOST_ROWS)).round().astype(int)
    columns = np.linspace(K - 1, 0, min(K, MOST_COLUMNS)).round().astype(int)
    png = base64.b64encode(plain_png(flow.by_step[np.ix_(rows, columns)])).decode()
    bottom = MAP_HEIGHT - 44
    x = Scale(K - 0.5, -0.5, LEFT, MAP_WIDTH - RIGHT)
    place = {"x": LEFT, "y": TOP, "width": MAP_WIDTH - LEFT - RIGHT, "height": bottom - TOP}
    name = STATES.get(state, state)
    described = f"From the answer back to the first step, {share(float(flow.last[-1]))} is left at the last look."
    ticks = [
        element(
            "text",
            f"{flow.steps[k]:,}",
            class_="tick",
            x=LEFT - 7,
            y=TOP + (bottom - TOP) * (row + 0.5) / len(rows) + 4,
            text_anchor="end",
        )
        for row, k in _edges(rows)
    ]
    marks = [
        part
        for lag, text in Scale(0, K - 1, 0, 1).ticks()
        for part in (
            element("line", class_="axis", x1=x.at(lag), x2=x.at(lag), y1=bottom, y2=bottom + 4),
            element("text", text, class_="tick", x=x.at(lag), y=bottom + 18, text_anchor="middle"),
        )
    ]
    return element(
        "svg",
        element("title", f"Gradient in {name} through time and training: {s.name}", id=f"{key}-title"),
        element("desc", described, id=f"{key}-desc"),
        element("image", href=f"data:image/png;base64,{png}", preserveAspectRatio="none", class_="map", **place),
        element("rect", class_="frame", **place),
        *ticks,
        *marks,
        element(
            "text",
            "steps back from the answer",
            class_="label",
            x=(LEFT + MAP_WIDTH - RIGHT) / 2,
            y=bottom + 38,
            text_anchor="middle",
        ),
        element(
            "text",
            "update",
            class_="label",
            transform=f"translate(13 {(TOP + bottom) / 2:.0f}) rotate(-90)",
            text_anchor="middle",
        ),
        class_="plot",
        viewBox=f"0 0 {MAP_WIDTH} {MAP_HEIGHT}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def _edges(rows: np.ndarray) -> list[tuple[int, int]]:
    """Rows of the picture that get a label: the first, the middle one and the last."""
    return [(row, int(rows[row])) for row in sorted({0, len(rows) // 2, len(rows) - 1})]


def _colour_bar(key: str) -> Markup:
    png = base64.b64encode(plain_png(np.linspace(LOW, HIGH, 240)[None])).decode()
    x = Scale(LOW, HIGH, 30, BAR_WIDTH - 30)
    ticks = [element("text", power(k), class_="tick", x=x.at(k), y=42, text_anchor="middle") for k in range(-8, 5, 2)]
    place = {"x": 30, "y": 8, "width": BAR_WIDTH - 60, "height": 16}
    words = ((LOW, "vanished", "start"), (0.0, "as strong", "middle"), (HIGH, "exploded", "end"))
    return element(
        "svg",
        element(
            "title",
            "The colours of all maps: dark blue 10⁻⁸ and less, white 1, dark red 10⁴ and more",
            id=f"{key}-bar",
        ),
        element("image", href=f"data:image/png;base64,{png}", preserveAspectRatio="none", **place),
        element("rect", class_="frame", **place),
        *ticks,
        *(element("text", word, class_="label", x=x.at(at), y=60, text_anchor=anchor) for at, word, anchor in words),
        class_="plot bar",
        viewBox=f"0 0 {BAR_WIDTH} 68",
        role="img",
        aria_labelledby=f"{key}-bar",
    )


def _sampled(values: np.ndarray) -> list[str]:
    K = len(values) - 1
    return [share(float(values[k])) for k in (K // 4, K // 2, 3 * K // 4, K)]
