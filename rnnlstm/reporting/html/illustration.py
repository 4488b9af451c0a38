"""A gradient on its way back, with made-up factors: the idea before the measurements."""

from __future__ import annotations

from markupsafe import Markup

from rnnlstm.reporting.html.markup import element
from rnnlstm.reporting.html.scale import Scale

#: Factors of the illustration, and its steps. They are made up, and said to be.
FACTORS = (
    (0.7, "a plain RNN: each step back costs the same factor"),
    (0.98, "an LSTM’s memory, its forget gate open"),
)
STEPS = 12


def illustration() -> Markup:
    """Two chains of steps, each as dark as the gradient that is left there."""
    x = Scale(STEPS - 1, 0, 22, 398)
    marks = []
    for row, (factor, words) in enumerate(FACTORS):
        y = 46 + 80 * row
        marks.append(element("text", f"{words} ({factor:g} a step)", class_="label", x=11, y=y - 22))
        for k in reversed(range(STEPS)):
            left = factor**k
            if k < STEPS - 1:
                at = {"x1": x.at(k) - 11, "x2": x.at(k + 1) + 11, "y1": y, "y2": y}
                marks.append(element("line", class_="link", stroke_opacity=f"{max(0.15, left):.2f}", **at))
            marks.append(element("circle", class_="paper", cx=x.at(k), cy=y, r=11))
            marks.append(element("circle", class_="step", cx=x.at(k), cy=y, r=11, fill_opacity=f"{left:.3f}"))
            if k in (0, STEPS - 1, STEPS // 2):
                marks.append(
                    element("text", f"{100 * left:.0f} %", class_="tick", x=x.at(k), y=y + 27, text_anchor="middle")
                )
    told = "; ".join(
        f"{words}: {100 * factor ** (STEPS - 1):.0f} % left after {STEPS - 1} steps back" for factor, words in FACTORS
    )
    return element(
        "svg",
        element("title", "Illustration: a gradient on its way back through time", id="way-title"),
        element("desc", told, id="way-desc"),
        *marks,
        class_="plot wide",
        viewBox="0 0 420 160",
        role="img",
        aria_labelledby="way-title way-desc",
    )
