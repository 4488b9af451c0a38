"""What each chart of a comparison shows, as plain data that two backends draw.

A chart's lines, bands, order, colours, axes and caption are computed here, once. `html/svg.py` draws charts into the
report, `figures.py` draws them with matplotlib into PNG files. Numbers on a logarithmic axis are log10 of what is
written at its ticks.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rnnlstm.config.errors import show
from rnnlstm.record.heatmap import HIGH
from rnnlstm.reporting.colours import network_name, style_numbers
from rnnlstm.reporting.records import LARGEST, QUARTILES_FROM, Flow
from rnnlstm.reporting.runs import UNLABELLED, Run, by_task, labels, task_title
from rnnlstm.reporting.selection import canonical, first_of_each
from rnnlstm.reporting.statistics import SolvedShare, SolveTimes, solve_times, solved_share, wilson

MOST_SHOWN = 8  #: configurations in the charts of one task
MOST_GROUPS = 8  #: tasks (and lengths of them) with charts
MOST_BANDS = 4  #: in the chart of solved shares: of more lines, bands hide one another
MOST_LEVELS = 6  #: baseline and plateaus
MOST_POINTS = 200  #: of a line; beyond, every few are left out
LOWEST = -16.0  #: log10 of the gradient's share that its lines are drawn down to
SHIFT = 0.012  #: decades of length between two networks' marks

LEARNING = (
    "A line is the median over seeds, its band {band}. A line on the dashed baseline has learned nothing from its "
    "input; other dashed lines are plateaus, reached by remembering a part. A line ends early where all its seeds "
    "solved the task or stopped."
)
SOLVING = (
    "A line climbs by a step whenever a seed solves the task (Kaplan–Meier estimate). An upright stroke marks seeds "
    "that were followed no further and had not solved it; a diverged seed stays among the unsolved.{bands}"
)
BANDS = " Bands are 95 % intervals of the share (Wilson’s), from the first solved seed on."
REACH = (
    "A mark is the share of ended trainings that solved the task, with its 95 % interval (Wilson’s). A network that "
    "forgets falls as sequences grow. Marks at one length are moved apart a little."
)
LAGS = (
    "Straight down: each step back costs the same factor, so the network forgets. Flat: the gradient arrives, and "
    "the network can learn from the start of the sequence. Wide pale lines are cell states, c. Medians over seeds."
)
INFLUENCE = (
    "One token of a text is replaced by another of its kind. Left: how many answers change, which is what the "
    "network remembers. Right: the gradient at the same tokens, which is what training can still learn from. A token "
    "with much on the left and next to nothing on the right is held in saturated units, which the gradient "
    "can’t see. Numbers of steps are counted back from the answer. Medians over seeds, at the end."
)
MAPS = (
    "Left is back in time from the answer, down is later in training. White: as strong as at the answer; dark blue: "
    "10⁻⁸ of it or less; red: stronger. All maps have one scale of colours. A row is the median over seeds."
)


def number(value: float | None, form: str = ".3g") -> str:
    """A number as a reader expects it: thousands apart, a true minus, an infinity."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if form == ".3g" and 1000 <= abs(value) < 1e9:
        form = ",.0f"
    return format(value, form).replace("-", "−")


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(exponent: float) -> str:
    """A power of ten: plain near one, else `10⁻⁶`."""
    if -2 <= exponent <= 3 and exponent == int(exponent):
        return number(10.0**exponent)
    return "10" + f"{exponent:g}".translate(SUPERSCRIPT)


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


@dataclass(frozen=True)
class Line:
    """A line, perhaps with a band around it. Gaps where a value isn't finite."""

    name: str
    style: int  #: number in `colours.STYLES`
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    kind: str = ""  #: `wide` (a cell state), `interval` or `after` (clipping)
    note: str = ""  #: what a legend says after the name
    width: float = 1.0  #: of the line, as a multiple of the usual one


@dataclass(frozen=True)
class Level:
    """A named horizontal line."""

    name: str
    value: float


@dataclass(frozen=True)
class Dot:
    """A mark at a place; `tick`: a short upright stroke in place of the network's mark."""

    name: str
    style: int
    x: float
    y: float
    tick: bool = False


@dataclass(frozen=True)
class Axis:
    """A label, and the range and the ticks where they are not those of the data."""

    label: str
    range: tuple[float, float] | None = None
    log: bool = False
    ticks: Sequence[tuple[float, str]] = ()

    def over(self, parts: Sequence[np.ndarray]) -> Axis:
        """With its range, and ticks at round numbers: about five."""
        values = np.concatenate([*parts, np.empty(0)])
        values = values[np.isfinite(values)]
        low, high = self.range or ((float(values.min()), float(values.max())) if len(values) else (0.0, 1.0))
        if not high > low:
            low, high = low - 0.5 * abs(low) - 0.5, high + 0.5 * abs(high) + 0.5
        return Axis(self.label, (low, high), self.log, self.ticks or round_ticks(low, high, self.log))


@dataclass(frozen=True)
class Chart:
    """One pair of axes. `title` and `description` say the whole, for those who hear it."""

    title: str
    description: str
    x_axis: Axis
    y_axis: Axis
    lines: Sequence[Line] = ()
    levels: Sequence[Level] = ()
    dots: Sequence[Dot] = ()

    def axes(self) -> tuple[Axis, Axis]:
        """Both axes with their ranges and ticks."""
        xs = [line.x for line in self.lines] + [np.array([dot.x for dot in self.dots])]
        ys = [part for line in self.lines for part in (line.y, line.low, line.high) if part is not None]
        ys += [np.array([dot.y for dot in self.dots]), np.array([level.value for level in self.levels])]
        return self.x_axis.over(xs), self.y_axis.over(ys)


def round_ticks(low: float, high: float, log: bool = False, count: int = 5) -> list[tuple[float, str]]:
    """Round values within a range, with their texts."""
    if log:
        decades = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        if len(decades) < 3:  # between them, 2 and 5
            every = itertools.product(range(decades.start - 1, decades.stop), (1, 2, 5))
            ticks = [(k + math.log10(m), number(m * 10.0**k)) for k, m in every]
            return [(value, text) for value, text in ticks if low <= value <= high]
        stride = max(1, math.ceil(len(decades) / count))
        return [(float(k), power(k)) for k in decades if k % stride == 0]
    least = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(least))
    step = magnitude * next(m for m in (1, 2, 2.5, 5, 10) if m * magnitude >= least * (1 - 1e-9))
    values = [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return [(value, number(value)) for value in values]


# Which configurations the charts of a comparison show.


@dataclass(frozen=True)
class Shown:
    """A configuration in charts: its name there, and the number of its style."""

    run: Run
    name: str
    style: int


@dataclass(frozen=True)
class TaskGroup:
    """The rows of one task and length."""

    key: str  #: for ids: `g1`
    title: str
    task: str
    runs: list[Run]
    names: list[str]  #: of the runs
    shown: list[Shown]

    @property
    def left_out(self) -> int:
        return len(self.runs) - len(self.shown)

    @property
    def metric(self) -> str:
        """The headline metric's name, or an empty text."""
        names = (seed["metric_name"] for run in self.runs for seed in run.seeds)
        return next((name for name in names if name), "")


def grouped(runs: Sequence[Run]) -> list[TaskGroup]:
    """The rows by task and length, in their order; charts show a bounded number of each, every model among them."""
    groups = []
    for count, ((task, length), members) in enumerate(by_task(runs).items(), start=1):
        names = labels(members)
        # The best of each model first: runs come in the order of their loss.
        chosen = first_of_each([show(run.config.get("model.name")) for run in members], MOST_SHOWN)
        networks = [network_name(members[k].config) for k in chosen]
        styles = style_numbers([names[k] for k in chosen], networks)
        shown = [Shown(members[k], names[k], style) for k, style in zip(chosen, styles, strict=True)]
        groups.append(TaskGroup(f"g{count}", task_title(task, length), str(task), members, names, shown))
    return groups


# Learning curves.


def learning_caption(groups: Sequence[TaskGroup]) -> str:
    few = all(len(s.run.seeds) < QUARTILES_FROM for group in groups for s in group.shown)
    return LEARNING.format(band="the range" if few else "the middle half (the range under five)")


def learning_charts(group: TaskGroup) -> dict[str, Chart]:
    """The headline metric, and the held-out loss with the task's baseline and plateaus, where they are recorded."""
    charts = {}
    for name, tag in (("metric", group.metric), ("loss", "loss")):
        curves = [(s, c) for s in group.shown if (c := s.run.curve(f"eval/{tag}")) is not None]
        if not tag or not curves:
            continue
        lines = []
        for s, curve in curves:
            low, median, high = curve.band()
            lines.append(Line(s.name, s.style, curve.steps, median, *((low, high) if len(curve.values) > 1 else ())))
        levels = _levels(group) if name == "loss" else []
        label = tag.replace("_", " ") if name == "metric" else "held-out loss"
        told = "; ".join(f"{line.name}: from {number(line.y[0])} to {number(line.y[-1])}" for line in lines)
        charts[name] = Chart(
            f"{label} over training, {group.title}", told, Axis("update"), Axis(label, _y_range(lines, levels)),
            lines, levels,
        )  # fmt: skip
    return charts


def _levels(group: TaskGroup) -> list[Level]:
    """The task's baseline and plateaus, as the first run that recorded them has them."""
    run = next((s.run for s in group.shown if s.run.tags("baseline/")), None)
    if run is None:
        return []
    levels = []
    for tag in run.tags("baseline/")[:MOST_LEVELS]:
        if (ends := run.ends(tag)) is not None:
            name = "baseline: no input seen" if tag == "baseline/loss" else tag.partition("/")[2].replace("_", " ")
            levels.append(Level(name, ends[1]))
    return levels


def _y_range(lines: Sequence[Line], levels: Sequence[Level]) -> tuple[float, float] | None:
    """0 … 1 for shares; a loss from 0 to at most twice its baseline, unless it ends higher: an untrained network's
    may be far above it."""
    values = np.concatenate([line.y if line.high is None else line.high for line in lines])
    lows = np.concatenate([line.y if line.low is None else line.low for line in lines])
    finite = values[np.isfinite(values)]
    if not len(finite) or np.nanmin(np.where(np.isfinite(lows), lows, math.inf)) < 0:
        return None
    top = float(finite.max())
    if levels:
        highest = max(level.value for level in levels)
        ends = [float(line.y[np.isfinite(line.y)][-1]) for line in lines if np.isfinite(line.y).any()]
        return 0.0, max(min(top, 2 * highest), 1.15 * highest, *(1.1 * end for end in ends))
    return (0.0, 1.0) if 0.25 < top <= 1 else (0.0, 1.05 * top or 1.0)


# When they solve it.


def solving_caption(groups: Sequence[TaskGroup]) -> str:
    return SOLVING.format(bands=BANDS if any(len(group.shown) <= MOST_BANDS for group in groups) else "")


def solving_chart(group: TaskGroup) -> Chart:
    """The share of seeds that have solved the task, by update; strokes where seeds are followed no further."""
    times = [solve_times(s.run) for s in group.shown]
    end = max((t.followed for t in times), default=0.0) or 1.0
    curves = [(s, t, solved_share(t, end)) for s, t in zip(group.shown, times, strict=True)]
    ticks = [
        Dot(f"{s.name}: followed up to update {number(float(step))}", s.style, float(step), float(at), tick=True)
        for s, _, curve in curves
        for step, at in zip(curve.ended, curve.ended_share, strict=True)
    ]
    lines = [step_line(s, t, curve, len(curves) <= MOST_BANDS) for s, t, curve in curves]
    # Lines become thinner one by one, so that one which runs along another can be seen.
    step = min(0.4, 1.6 / len(lines))
    lines = [replace(line, width=1 + step * (len(lines) - 1 - k)) for k, line in enumerate(lines)]
    return Chart(
        f"Share of seeds that have solved it, by update, {group.title}",
        "; ".join(f"{s.name}: {_told(t, curve)}" for s, t, curve in curves),
        Axis("update", (0.0, 1.02 * end)), Axis("share that has solved it", (-0.04, 1.04)), lines,
        [Level("half of the seeds", 0.5)], ticks,
    )  # fmt: skip


def step_line(s: Shown, times: SolveTimes, curve: SolvedShare, band: bool) -> Line:
    """A line that holds each value until the next step: two points for each. Thinned here, so that it stays one of
    steps."""
    kept = np.linspace(0, len(curve.steps) - 1, min(len(curve.steps), MOST_POINTS // 2)).round().astype(int)
    y, low, high = (np.repeat(part[kept], 2)[:-1] for part in (curve.share, curve.low, curve.high))
    x, begun = np.repeat(curve.steps[kept], 2)[1:], y > 0
    low, high = (np.where(begun, part, np.nan) for part in (low, high))  # before, bands would only hide one another
    return Line(s.name, s.style, x, y, low if band else None, high if band else None, note=_solved_of(times))


def _solved_of(times: SolveTimes) -> str:
    return f"{int(times.solved.sum())} of {len(times.steps)}"


def _told(times: SolveTimes, curve: SolvedShare) -> str:
    if not times.solved.any():
        return f"{_solved_of(times)} solved it, followed up to update {number(times.followed)}"
    first, last = number(float(times.steps[times.solved][0])), number(float(curve.share[-1]))
    return f"{_solved_of(times)} solved it, the first at update {first}; share at the end {last}"


# How far they reach.


@dataclass(frozen=True)
class Reach:
    """One network on one task. It counts finished seeds alone: solved, done or diverged."""

    task: str
    name: str
    lengths: list[int]
    solved: list[int]  #: seeds, by length
    seeds: list[int]
    network: str = ""  #: its name in `colours.NETWORKS`

    @property
    def shares(self) -> list[float]:
        return [s / n for s, n in zip(self.solved, self.seeds, strict=True)]

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Wilson's, 95 %, by length."""
        return [wilson(s, n) for s, n in zip(self.solved, self.seeds, strict=True)]

    @property
    def longest(self) -> int | None:
        """The longest length at which at least half of the seeds solve the task, as at all shorter ones."""
        within = itertools.takewhile(lambda pair: pair[1] >= 0.5, zip(self.lengths, self.shares, strict=True))
        return max((length for length, _ in within), default=None)

    @property
    def words(self) -> str:
        if self.longest is None:
            return f"not even {self.lengths[0]}"
        return f"{self.longest}" + (" or more" if self.longest == self.lengths[-1] else "")

    @property
    def counts(self) -> list[str]:
        """`2 of 3 (21–94 %)`, by length; with spaces that do not break."""
        cells = zip(self.solved, self.seeds, self.intervals, strict=True)
        return [f"{k} of {n} ({100 * low:.0f}–{100 * high:.0f}\u00a0%)" for k, n, (low, high) in cells]


def reaches(runs: Sequence[Run], chosen: Collection[str] = ()) -> list[Reach]:
    """Of every network that was trained at two lengths of a task or more, in the runs' order. Keys that were `chosen`
    for each length, such as the best rate, don't make another network of it."""
    runs = [replace(run, config={k: v for k, v in run.config.items() if k not in chosen}) for run in runs]
    networks: dict[tuple[str, ...], dict[int, list[Run]]] = {}
    for run in runs:
        length = run.config.get("task.length")
        if isinstance(length, int) and length > 0:
            # All of the configuration but the length, and for how long it may be trained.
            kept = {key: value for key, value in run.config.items() if key not in UNLABELLED or key == "task.name"}
            network = tuple(f"{key}={canonical(value)}" for key, value in sorted(kept.items()))
            networks.setdefault(network, {}).setdefault(length, []).append(run)
    several = [by_length for by_length in networks.values() if len(by_length) > 1]
    firsts = [next(iter(by_length.values()))[0] for by_length in several]
    reached = []
    for name, first, by_length in zip(labels(firsts), firsts, several, strict=True):
        counts = {length: _ended(members) for length, members in sorted(by_length.items())}
        counts = {length: (solved, seeds) for length, (solved, seeds) in counts.items() if seeds}
        if counts:
            task = str(first.config.get("task.name") or "several tasks")
            solved, seeds = zip(*counts.values(), strict=True)
            reached.append(Reach(task, name, list(counts), list(solved), list(seeds), network_name(first.config)))
    return reached


def _ended(members: Sequence[Run]) -> tuple[int, int]:
    """Seeds that solved the task, and finished seeds."""
    ended = [s for run in members for s in run.seeds if s["solved"] or s["status"] in ("done", "diverged")]
    return sum(bool(s["solved"]) for s in ended), len(ended)


def by_reach(networks: Sequence[Reach]) -> dict[str, list[Reach]]:
    """Of each task, the networks that reach farthest first."""
    tasks: dict[str, list[Reach]] = {}
    for reach in networks:
        tasks.setdefault(reach.task, []).append(reach)
    for members in tasks.values():
        members.sort(key=lambda reach: (-(reach.longest or 0), -sum(reach.shares)))
    return tasks


def reach_styles(networks: Sequence[Reach]) -> list[int]:
    """The styles of the networks that the chart shows, the first."""
    drawn = networks[:MOST_SHOWN]
    return style_numbers([reach.name for reach in drawn], [reach.network for reach in drawn])


def reach_chart(task: str, networks: Sequence[Reach]) -> Chart:
    """The share of seeds that solve the task, by length, with 95 % intervals."""
    styles = reach_styles(networks)
    lengths = sorted({length for reach in networks[: len(styles)] for length in reach.lengths})
    lines, dots = [], []
    for k, (style, reach) in enumerate(zip(styles, networks, strict=False)):
        x = np.log10(reach.lengths) + SHIFT * (k - (len(styles) - 1) / 2)  # intervals at one length would overlap
        lines.append(Line(reach.name, style, x, np.array(reach.shares), note=reach.words))
        for at, part, ends, words in zip(x, reach.shares, reach.intervals, reach.counts, strict=True):
            lines.append(Line(reach.name, style, np.array([at, at]), np.array(ends), kind="interval"))
            dots.append(Dot(f"{reach.name}: {words}", style, float(at), part))
    ends = (math.log10(lengths[0]) - 0.06, math.log10(lengths[-1]) + 0.06)
    apart, ticks = (ends[1] - ends[0]) / 14, list[tuple[float, str]]()
    for length in lengths:
        if not ticks or math.log10(length) - ticks[-1][0] >= apart:
            ticks.append((math.log10(length), str(length)))
    return Chart(
        f"Share of trainings that solve the task, by length, {task}",
        "; ".join(f"{reach.name}: {reach.words}" for reach in networks[: len(styles)]),
        Axis("length T", ends, ticks=ticks), Axis("share that solves it", (-0.04, 1.04)), lines,
        [Level("half of them", 0.5)], dots,
    )  # fmt: skip


# The gradient through time.

STATES = {"hidden": "h", "cell": "c"}
WHEN = {"first": "before training", "last": "at the last look"}


@dataclass(frozen=True)
class FlowMap:
    """The gradient in one state through time (across) and training (down), log10 of its ratio to lag 0."""

    shown: Shown
    state: str  #: its letter
    flow: Flow

    @property
    def name(self) -> str:
        return f"{self.shown.name}: {self.state}"


def flow_maps(group: TaskGroup) -> list[FlowMap]:
    """Every state that was recorded of the configurations shown."""
    return [FlowMap(s, STATES.get(state, state), flow) for s in group.shown for state, flow in s.run.flows.items()]


def lag_charts(group: TaskGroup, maps: Sequence[FlowMap]) -> dict[str, Chart]:
    """The gradient by its distance from the answer, before training and at each seed's last look, on one scale."""
    lines = {when: [_lag_line(m, getattr(m.flow, when)) for m in maps] for when in WHEN}
    values = np.concatenate([line.y[np.isfinite(line.y)] for when in WHEN for line in lines[when]] + [np.zeros(1)])
    ends = float(np.floor(min(-4.0, values.min()))), float(min(12.0, np.ceil(max(0.5, values.max()))))
    y_axis = Axis("share of the gradient left", ends, log=True)
    return {
        words: Chart(
            f"Gradient by distance from the answer, {words}, {group.title}",
            "; ".join(f"{s.name}: {share(float(s.y[-1]))} {len(s.y) - 1} steps back" for s in lines[when]),
            Axis("steps back from the answer"), y_axis, lines[when],
        )
        for when, words in WHEN.items()
    }  # fmt: skip


def _lag_line(m: FlowMap, values: np.ndarray) -> Line:
    drawn = np.clip(np.nan_to_num(values, nan=np.nan, neginf=LOWEST, posinf=HIGH), LOWEST, None)
    return Line(m.name, m.shown.style, np.arange(len(drawn)), drawn, kind="" if m.state == "h" else "wide")


# What the answer depends on: remembered, and still learnable.

PLACE = re.compile(r"counterfactual/changed_(.{1,60})_lag_(0|10{0,8})", re.ASCII)
MOST_PLACES = 12


def influence_charts(group: TaskGroup) -> list[Chart]:
    """Two charts with a row for each kind of token and distance: how many answers change when it is replaced, and the
    gradient there against the strongest, as log10. Empty without a record of it."""
    tags = dict.fromkeys(tag for s in group.shown for tag in s.run.tags("counterfactual/changed_"))
    places = [(tag, found) for tag in tags if (found := PLACE.fullmatch(tag))][:MOST_PLACES]
    rows = [
        (tag.partition("changed_")[2], f"{found[1].replace('_', ' ')}, {_steps(int(found[2]))}")
        for tag, found in places
    ]
    if not rows:
        return []
    changed = {s.name: [_last(s, f"counterfactual/changed_{place}") for place, _ in rows] for s in group.shown}
    reached = {s.name: [_last(s, f"counterfactual/gradient_{place}") for place, _ in rows] for s in group.shown}
    for name, norms in reached.items():
        strongest = max((v for v in norms if math.isfinite(v)), default=math.nan)
        reached[name] = [_log_share(v, strongest) for v in norms]
    classes = any(s.run.tags("counterfactual/divergence_") for s in group.shown)
    top = len(rows) - 1.0  # the first row's place
    y_axis = Axis("", (-0.5, top + 0.5), ticks=[(top - k, name) for k, (_, name) in enumerate(rows)])
    x_axes = (
        Axis("share of answers that change", (-0.03, 1.03)) if classes else Axis("mean change of the answer"),
        Axis("gradient there, against the strongest", (LOWEST - 0.3, 0.3), log=True),
    )
    charts = []
    for title, x_axis, values in zip(("Remembered", "Learnable"), x_axes, (changed, reached), strict=True):
        dots = [
            Dot(f"{s.name}: {name}: {share(value) if x_axis.log else number(value)}", s.style, value, top - k)
            for s in group.shown
            for k, ((_, name), value) in enumerate(zip(rows, values[s.name], strict=True))
            if math.isfinite(value)
        ]
        charts.append(Chart(f"{title}, {group.title}", "; ".join(d.name for d in dots), x_axis, y_axis, dots=dots))
    return charts


def _steps(k: int) -> str:
    return f"{k}–{10 * k - 1} back" if k else "at the answer"


def _last(s: Shown, tag: str) -> float:
    ends = s.run.ends(tag)
    return ends[1] if ends is not None and abs(ends[1]) <= LARGEST else math.nan


def _log_share(value: float, strongest: float) -> float:
    if math.isnan(value) or not strongest > 0:
        return math.nan
    return max(math.log10(value / strongest), LOWEST) if value > 0 else LOWEST
