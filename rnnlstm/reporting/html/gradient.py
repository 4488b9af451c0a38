"""How far back the gradient reaches: its strength by distance from the answer, and as maps, on one scale."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from rnnlstm.record.heatmap import HIGH
from rnnlstm.reporting.flow import Flow
from rnnlstm.reporting.html.gradient_maps import STATES, colour_bar, draw_map
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, chapter, figure, legend
from rnnlstm.reporting.html.plot import Axis, Line, plot
from rnnlstm.reporting.html.scale import share
from rnnlstm.reporting.html.shown import Shown, TaskGroup

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


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    missing = "The gradient through time was not recorded (probe=off, or the run has just begun)."
    return chapter("gradient", "How far back the gradient reaches", report, INTRO, parts, missing)


def _part(report: Report, group: TaskGroup) -> Markup | None:
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
    by_lag = figure(report, f"{group.key}-lags", panels, BY_LAG, Numbers(f"Gradient, {group.title}", heads, rows))
    plain_first = sorted(flows, key=lambda found: len(report.records.flow(found[0].run)))  # an RNN beside an LSTM
    panels = [
        Panel(draw_map(f"{group.key}-map-{s.style}-{k}", s, state, flow), f"{s.name}: {STATES.get(state, state)}", s)
        for k, (s, state, flow) in enumerate(plain_first)
    ]
    maps = figure(report, f"{group.key}-maps", panels, MAPS, None, foot=colour_bar(group.key))
    return legend(group) + by_lag + maps


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


def _sampled(values: np.ndarray) -> list[str]:
    K = len(values) - 1
    return [share(float(values[k])) for k in (K // 4, K // 2, 3 * K // 4, K)]
