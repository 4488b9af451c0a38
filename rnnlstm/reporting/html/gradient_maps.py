"""The gradient through time as pictures: time across, training down, all on one scale of colours."""

from __future__ import annotations

import base64

import numpy as np
from markupsafe import Markup

from rnnlstm.record.heatmap import HIGH, LOW, plain_png
from rnnlstm.reporting.flow import Flow
from rnnlstm.reporting.html.markup import element
from rnnlstm.reporting.html.plot import LEFT, RIGHT, TOP
from rnnlstm.reporting.html.scale import Scale, power, share
from rnnlstm.reporting.html.shown import Shown

MOST_ROWS, MOST_COLUMNS = 96, 200  #: pixels of a map; beyond, every few are left out
MAP_WIDTH, MAP_HEIGHT = 340, 180
BAR_WIDTH = 460
STATES = {"hidden": "h", "cell": "c"}


def draw_map(key: str, s: Shown, state: str, flow: Flow) -> Markup:
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


def colour_bar(key: str) -> Markup:
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
