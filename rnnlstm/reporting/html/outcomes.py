"""Who learns it, when they solve it, how far they reach, the differences seed by seed, and what it costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from rnnlstm.reporting import charts
from rnnlstm.reporting.charts import MOST_GROUPS, Axis, Chart, Dot, Line, Reach, Shown, TaskGroup, number
from rnnlstm.reporting.html.parts import (
    Numbers,
    Panel,
    Report,
    Section,
    chapter,
    element,
    figure,
    keyed,
    legend,
    render,
    table,
    unbroken,
)  # fmt: skip
from rnnlstm.reporting.html.svg import Interval, forest, plot
from rnnlstm.reporting.pairing import less_is_better
from rnnlstm.reporting.statistics import Differences, solve_times
from rnnlstm.reporting.tables import (
    common_metric,
    contest_cells,
    differences_text,
    metric_text,
    row,
    solved_text,
    steps_text,
)

# Who learns it.


@chapter(
    "learning",
    "Who learns it",
    "After every few updates each network answers held-out sequences that it never trained on. A line is the "
    "median over its seeds: the same network, started and fed differently. The band shows how far seeds differ.",
    "No evaluation has been recorded yet.",
)
def learning(report: Report, group: TaskGroup) -> Markup | None:
    by_name = charts.learning_charts(group)
    if not by_name:
        return None
    panels = [Panel(plot(f"{group.key}-{key}", chart), chart.y_axis.label) for key, chart in by_name.items()]
    rows = [(f"{s.name}: {chart.y_axis.label}", *_sampled(s)) for chart in by_name.values() for s in chart.lines]
    heads = ("median", "first", "at a quarter", "halfway", "at three quarters", "last")
    numbers = Numbers(f"Medians over training, {group.title}", heads, rows)
    return legend(group) + figure(report, f"{group.key}-learning", panels, charts.learning_caption([group]), numbers)


def _sampled(line: Line) -> list[str]:
    return [number(float(line.y[k])) for k in np.linspace(0, len(line.y) - 1, 5).round().astype(int)]


# When they solve it.


@chapter(
    "solving",
    "When they solve it",
    "Some seeds are stopped, or still training, before they have solved the task. To leave them out would "
    "flatter a network; to count them as never solving it would wrong it. The <em>Kaplan–Meier estimate</em> "
    "counts each for as long as it was followed. In the table, “>” says that a number lies beyond what has "
    "been seen.",
    "",
)
def solving(report: Report, group: TaskGroup) -> Markup:
    panel = Panel(plot(f"{group.key}-solved", charts.solving_chart(group)))
    rows = [
        (keyed(s.name, s.style), unbroken(solved_text(s.run)), unbroken(steps_text(s.run)),
         number(solve_times(s.run).followed))
        for s in group.shown
    ]  # fmt: skip
    heads = ("configuration", "solved (95\u00a0%)", "updates to solve: median", "followed up to update")
    drawn = figure(report, f"{group.key}-solving", [panel], charts.solving_caption([group]), None)
    return legend(group) + drawn + table(Numbers(f"{group.title}: when they solve it", heads, rows))


# How far they reach.


def reach(report: Report) -> Section | None:
    """None where no network was trained at two lengths of a task."""
    tasks = charts.by_reach(charts.reaches(report.runs, report.comparison.best))
    if not tasks:
        return None
    intro = (
        "The same task at several lengths: the longer the sequences, the farther back the answer lies. How far a "
        "network reaches is the longest length at which at least half of its trainings solve the task, as they do at "
        "every shorter one of these."
    )
    parts = [element("p", intro, class_="intro")]
    for k, (task, networks) in enumerate(list(tasks.items())[:MOST_GROUPS], start=1):
        if len(tasks) > 1:
            parts.append(element("h3", task, id=f"reach-{k}"))
        styles = charts.reach_styles(networks)
        shown = [{"name": reach.name, "style": style} for style, reach in zip(styles, networks, strict=False)]
        parts.append(
            render("legend.html", group={"shown": shown, "left_out": len(networks) - len(shown)}, marks=None)
        )
        panel = Panel(plot(f"t{k}-reach-plot", charts.reach_chart(task, networks)))
        parts += [figure(report, f"t{k}-reach", [panel], charts.REACH, None), table(_lengths(task, networks, styles))]
    return Section("reach", "How far they reach", Markup("").join(parts))


def _lengths(task: str, networks: Sequence[Reach], styles: Sequence[int]) -> Numbers:
    lengths = sorted({length for reach in networks for length in reach.lengths})
    rows = []
    for style, reach in itertools.zip_longest(styles, networks):  # the last may be in no figure
        cells = dict(zip(reach.lengths, reach.counts, strict=True))
        rows.append((keyed(reach.name, style), reach.words, *(cells.get(length, "—") for length in lengths)))
    heads = ("network", "reaches", *(f"T = {length}" for length in lengths))
    return Numbers(f"Solved, by length: {task}", heads, rows)


# Seed by seed.

DIFFERENCES = (
    "A mark is the median difference over the common seeds; its line is their range up to five seeds, and the "
    "median’s 95 % bootstrap interval from six on. A line that crosses zero may be chance. A line without a bar at"
    " an end has no known end: seeds that have not solved the task are later by an unknown number of updates. In the "
    "table, p is the exact sign test: with three seeds it can’t fall below 0.25, with six not below 0.03."
)

LOWEST = "which is the configuration with the lowest loss; that choice flatters it a little"
NAMED = "which was named when this page was made"


@chapter(
    "seed-by-seed",
    "Seed by seed",
    lambda report: (
        "A seed decides the data: networks with the same seed were trained and tested on the same sequences. So "
        "they are compared seed by seed, and what makes a seed easy or hard for all drops out. A number is that "
        f"of the row <em>minus</em> the reference, {NAMED if report.against else LOWEST}."
    ),
    "No two configurations have two seeds with the same data in common.",
)
def differences(report: Report, group: TaskGroup) -> Markup | None:
    styles = {id(s.run): s.style for s in group.shown}
    pairs = [contest for contest in report.contests if id(contest.run) in styles]
    if not pairs:
        return None
    reference = pairs[0].title.rpartition("minus ")[2]
    metric = common_metric(pairs).replace("_", " ")
    rows = [(keyed(c.name, styles[id(c.run)]), *map(unbroken, contest_cells(c))) for c in pairs]
    heads = ("configuration", metric, "better in", "updates to solve", "sooner in")
    numbers = table(Numbers(f"{group.title}: differences from {reference}", heads, rows))
    better = "← better" if less_is_better(pairs[0].metric_name) else "better →"
    panels = [
        panel
        for what, words, side, of in (
            ("metric", metric, better, [contest.metric for contest in pairs]),
            ("steps", "updates to solve", "← sooner", [contest.steps for contest in pairs]),
        )
        if (panel := _forest(group, what, words, side, reference, [
            (contest.name, styles[id(contest.run)], differences)
            for contest, differences in zip(pairs, of, strict=True)
        ]))
    ]  # fmt: skip
    if not panels:
        return numbers
    return numbers + figure(report, f"{group.key}-differences", panels, DIFFERENCES, None)


def _forest(
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


# What it costs.

COST = (
    "A mark is a seed. Further right: an update takes longer, all seeds that train in lockstep together, without "
    "instruments and evaluation. The score is that of the last evaluation."
)
LARGEST = 1e300  #: that axes can be divided for
COST_HEADS = (
    "configuration", "score", "solved (95\u00a0%)", "updates to solve", "time to solve, s", "ms an update",
    "parameters", "multiply-adds", "state", "kept, bytes",
)  # fmt: skip


@chapter(
    "cost",
    "Cost and score",
    "A gated network does more at each step: an LSTM of as many units has four times an RNN’s parameters and "
    "multiplications. The score shows what that buys. <em>Time to solve</em> is the median of the updates to "
    "solve it, times the time of an update. <em>Kept</em>: bytes for the backward pass, a time step and sequence.",
    "No speed has been recorded yet.",
)
def cost(report: Report, group: TaskGroup) -> Markup | None:
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
    chart = Chart(
        f"{words} against the time of an update, {group.title}", "; ".join(dot.name for dot in dots[:40]),
        Axis("milliseconds an update", (min(xs) - 0.15, max(xs) + 0.15), log=True),
        Axis(words, (low, high) if high > low else None), dots=dots,
    )  # fmt: skip
    numbers = Numbers(f"Cost and score, {group.title}", COST_HEADS, [_cost_row(s) for s in group.shown])
    panel = Panel(plot(f"{group.key}-cost", chart), f"{words} and time")
    return legend(group, dots=True) + figure(report, f"{group.key}-costs", [panel], COST, numbers)


def _cost_row(s: Shown) -> list[str]:
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
