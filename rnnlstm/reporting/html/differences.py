"""Seed by seed: differences between networks that were trained and tested on the same data."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from rnnlstm.reporting.html.forest import Interval, forest
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, chapter, figure, keyed, table, unbroken
from rnnlstm.reporting.html.shown import TaskGroup
from rnnlstm.reporting.pairing import Contest, contests, less_is_better
from rnnlstm.reporting.statistics import Differences
from rnnlstm.reporting.tables import differences_text, score_text

INTRO = (
    "A seed decides the data: networks with the same seed were trained and tested on the very same sequences. So "
    "they are compared seed by seed, and what makes a seed easy or hard for all drops out. A number is that of the "
    "row <em>minus</em> the reference, {reference}."
)
LOWEST = "which is the configuration with the lowest loss; since it was chosen for that, it is flattered a little"
NAMED = "which was named when this page was made"
CAPTION = (
    "<strong>What to see.</strong> A mark is the median difference over the seeds in common, its line the range "
    "under five seeds and the median’s 95 % bootstrap interval from five on. From five seeds on, a line that stays "
    "on one side of zero is a clear difference; under five it says little. One that crosses zero may be chance. "
    "Lines without a bar at an end go on: of seeds that have not solved the task it is only known that they are "
    "later. In the table, <em>better in</em> and <em>sooner in</em> count seeds, and p is the exact sign test: how "
    "likely so uneven a split would be if both were as good. With three seeds it can’t fall below 0.25, with five "
    "not below 0.06, with six not below 0.03."
)
MISSING = "No two configurations have two seeds with the same data in common."


def section(report: Report) -> Section:
    least = 1 if report.against else 2
    found = [c for c in contests(report.runs, report.against) if len(c.steps.bounds) >= least]
    intro = INTRO.format(reference=NAMED if report.against else LOWEST)
    parts = [_part(report, group, found) for group in report.drawn]
    return chapter("seed-by-seed", "Seed by seed", report, intro, parts, MISSING)


def _part(report: Report, group: TaskGroup, found: Sequence[Contest]) -> Markup | None:
    styles = {id(s.run): s.style for s in group.shown}
    pairs = [contest for contest in found if id(contest.run) in styles]
    if not pairs:
        return None
    reference = pairs[0].title.rpartition("minus ")[2]
    names = {contest.metric_name or "score" for contest in pairs}
    metric = names.pop().replace("_", " ") if len(names) == 1 else "score"
    rows = [
        (
            keyed(contest.name, styles[id(contest.run)]),
            unbroken(differences_text(contest.metric, ".3g")),
            score_text(contest.better, contest.worse, contest.metric),
            unbroken(differences_text(contest.steps, ",.0f")),
            score_text(contest.steps.below, contest.steps.above, contest.steps),
        )
        for contest in pairs
    ]
    heads = ("configuration", metric, "better in", "updates to solve", "sooner in")
    numbers = table(Numbers(f"{group.title}: differences from {reference}", heads, rows))
    better = "← better" if less_is_better(pairs[0].metric_name) else "better →"
    panels = [
        panel
        for what, words, side, of in (
            ("metric", metric, better, [contest.metric for contest in pairs]),
            ("steps", "updates to solve", "← sooner", [contest.steps for contest in pairs]),
        )
        if (panel := _panel(group, what, words, side, reference, [
            (contest.name, styles[id(contest.run)], differences)
            for contest, differences in zip(pairs, of, strict=True)
        ]))
    ]  # fmt: skip
    if not panels:
        return numbers
    return numbers + figure(report, f"{group.key}-differences", panels, CAPTION, None)


def _panel(
    group: TaskGroup, what: str, words: str, side: str, reference: str, rows: Sequence[tuple[str, int, Differences]]
) -> Panel | None:
    """The differences that say anything."""
    drawn = [(n, style, d) for n, style, d in rows if d.bounds and d.open < len(d.bounds)]
    if not drawn:
        return None
    form = ".3g" if what == "metric" else ",.0f"
    picture = forest(
        f"{group.key}-forest-{what}",
        f"{words}: differences from {reference}, {group.title}",
        "; ".join(f"{name}: {differences_text(d, form)}" for name, _, d in drawn),
        f"{words}, minus the reference’s",
        [Interval(name, style, d.median(), d.interval()) for name, style, d in drawn],
        side,
    )
    return Panel(picture, words)
