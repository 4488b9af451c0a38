"""In short: what was asked, who solved it, and how far the gradient reached, in sentences made from the records."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass

from markupsafe import Markup

from rnnlstm.composition import config_folder
from rnnlstm.reporting.html.gradient import STATES, share
from rnnlstm.reporting.html.markup import element, render
from rnnlstm.reporting.html.parts import Report, Section
from rnnlstm.reporting.html.scale import Scale, number
from rnnlstm.reporting.html.selection import Shown
from rnnlstm.reporting.table import median_steps_to_solve

#: Factors of the illustration, and its steps. They are made up, and said to be.
FACTORS = (
    (0.7, "a plain RNN: each step back costs the same factor"),
    (0.98, "an LSTM’s memory, its forget gate open"),
)
STEPS = 12
#: Powers of ten by which gradients must differ to say that they tell networks apart.
APART = 2.0
STUCK = 0.9  #: of the baseline's loss, and above: as good as not looking


@dataclass(frozen=True)
class Finding:
    """One configuration in a sentence: how many seeds solved the task, and what was left of the gradient."""

    shown: Shown
    solved: int
    seeds: int
    updates: str
    metric: str
    loss: float | None
    baseline: float | None
    reach: float | None  #: log10 of the gradient left at the first step
    reach_text: str
    state: str
    lag: int

    @property
    def stuck(self) -> bool:
        return bool(
            not self.solved and self.loss is not None and self.baseline and self.loss >= STUCK * self.baseline
        )


def section(report: Report) -> Section:
    parts = []
    for group in report.drawn:
        findings = [_finding(report, s) for s in group.shown]
        parts.append((group, _question(group.task), findings, _conclusion(findings)))
    body = render("overview.html", parts=parts, illustration=_illustration(), several=len(report.groups) > 1)
    return Section("in-short", "In short", body)


def _question(task: str) -> str:
    """What the task asks, from the first line of its YAML file; nothing for a user's own."""
    path = config_folder() / "task" / f"{task}.yaml"
    if not re.fullmatch(r"\w+", task, re.ASCII) or not path.is_file():
        return ""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _finding(report: Report, s: Shown) -> Finding:
    run, steps = s.run, median_steps_to_solve(s.run)
    metric, losses, baselines = run.values("metric"), run.values("loss"), run.values("baseline")
    reach, state, lag = None, "", 0
    for name, flow in report.records.flow(run).items():
        last = float(flow.last[-1])
        if last == last and (reach is None or last > reach):
            reach, state, lag = last, STATES.get(name, name), len(flow.last) - 1
    return Finding(
        s, run.solved, len(run.seeds), "" if steps is None else number(float(steps)),
        number(statistics.median(metric)) if metric else "", statistics.median(losses) if losses else None,
        baselines[0] if baselines else None, reach, "" if reach is None else share(reach), state, lag,
    )  # fmt: skip


def _conclusion(findings: list[Finding]) -> str:
    """What the records say together; nothing if they don't hold solved and stuck networks beside each other."""
    solved = [f.reach for f in findings if 2 * f.solved > f.seeds and f.reach is not None]
    stuck = [f.reach for f in findings if f.stuck and f.reach is not None]
    if not solved or not stuck:
        return ""
    if min(solved) - max(stuck) >= APART:
        return (
            "Here the gradient tells them apart: where it reaches back to the start, the network learned to "
            "remember; where it had vanished on the way, the network stayed at what can be had without looking."
        )
    return (
        "Here the gradient’s reach alone does not tell the networks that learned from those that did not: look at "
        "its course over training, and at the gates."
    )


def _illustration() -> Markup:
    """Two chains of steps, each as dark as the gradient that is left there."""
    x = Scale(STEPS - 1, 0, 40, 640)
    marks = []
    for row, (factor, words) in enumerate(FACTORS):
        y = 62 + 96 * row
        marks.append(element("text", f"{words} ({factor:g} a step)", class_="label", x=24, y=y - 30))
        for k in reversed(range(STEPS)):
            left = factor**k
            if k < STEPS - 1:
                at = {"x1": x.at(k) - 15, "x2": x.at(k + 1) + 15, "y1": y, "y2": y}
                marks.append(element("line", class_="link", stroke_opacity=max(0.15, left).__round__(2), **at))
            marks.append(element("circle", class_="paper", cx=x.at(k), cy=y, r=14))
            marks.append(
                element("circle", class_=f"step s{1 - row}", cx=x.at(k), cy=y, r=14, fill_opacity=f"{left:.3f}")
            )
            if k in (0, STEPS - 1, STEPS // 2):
                marks.append(
                    element("text", f"{100 * left:.0f} %", class_="tick", x=x.at(k), y=y + 32, text_anchor="middle")
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
        viewBox="0 0 680 196",
        role="img",
        aria_labelledby="way-title way-desc",
    )
