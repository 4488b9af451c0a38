"""What it costs, beside what it scores."""

from __future__ import annotations

import math

from markupsafe import Markup

from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, chapter, figure, legend, unbroken
from rnnlstm.reporting.html.plot import Axis, Dot, plot
from rnnlstm.reporting.html.scale import number
from rnnlstm.reporting.html.shown import Shown, TaskGroup
from rnnlstm.reporting.tables import metric_text, row, solved_text

INTRO = (
    "A gated network does more at each step: an LSTM of as many units has four times an RNN’s parameters and "
    "multiplications. Whether that is worth it is a question of the score that it buys."
)
CAPTION = (
    "<strong>What to see.</strong> A mark is a seed. Further right: more time for an update (all seeds that train in "
    "lockstep together, on the machine named below; instruments and evaluation left out). The score is that of the "
    "last evaluation. <em>Time to solve</em>: the median of the updates to solve it (Kaplan–Meier’s, as above), "
    "times the time of an update. <em>Kept</em>: bytes for the backward pass, a time step and sequence."
)
LARGEST = 1e300
HEADS = (
    "configuration", "score", "solved (95\u00a0%)", "updates to solve", "time to solve, s", "ms an update",
    "parameters", "multiply-adds", "state", "kept, bytes",
)  # fmt: skip


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    return chapter("cost", "Cost and score", report, INTRO, parts, "No speed has been recorded yet.")


def _part(report: Report, group: TaskGroup) -> Markup | None:
    dots = [
        Dot(f"{s.name}, seed {seed['seed']}: {number(y)} at {number(ms)} ms", s.style, math.log10(ms), y)
        for s in group.shown
        for seed in s.run.seeds
        if (ms := _drawable(seed["ms_per_update"])) and ms > 0 and (y := _drawable(seed["metric"])) is not None
    ]
    if not dots:
        return None
    words = group.metric.replace("_", " ")
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    shares = min(ys) >= 0 and (0.25 < max(ys) <= 1 or max(ys) == 0)
    low, high = (
        (0.0, 1.05) if shares else (min(ys) - 0.05 * (max(ys) - min(ys)), max(ys) + 0.05 * (max(ys) - min(ys)))
    )
    picture = plot(
        f"{group.key}-cost", f"{words} against the time of an update, {group.title}",
        "; ".join(dot.name for dot in dots[:40]),
        Axis("milliseconds an update", (min(xs) - 0.15, max(xs) + 0.15), log=True),
        Axis(words, (low, high) if high > low else None), dots=dots,
    )  # fmt: skip
    numbers = Numbers(f"Cost and score, {group.title}", HEADS, [_row(s) for s in group.shown])
    return legend(group, dots=True) + figure(
        report, f"{group.key}-costs", [Panel(picture, f"{words} and time")], CAPTION, numbers
    )


def _row(s: Shown) -> list[str]:
    r = row(s.run)
    steps, ms = r["median_steps_to_solve"], r["ms_per_update"]
    seconds = steps * ms / 1000 if steps is not None and ms is not None else None
    numbers = (steps, seconds, ms, r["parameters"], r["multiply_adds"], r["state_size"], r["bytes_kept"])
    return [
        s.name,
        unbroken(metric_text(s.run, r)),
        unbroken(solved_text(s.run)),
        *(number(value) for value in numbers),
    ]


def _drawable(value: float | None) -> float | None:
    """A number that axes can be divided for."""
    return float(value) if value is not None and abs(value) < LARGEST else None
