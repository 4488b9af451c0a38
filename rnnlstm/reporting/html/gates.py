"""What the gates do: how open each is while a kind of token is read, before training and after it."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from rnnlstm.reporting.html.markup import element
from rnnlstm.reporting.html.parts import Numbers, Panel, Report, Section, chapter, figure
from rnnlstm.reporting.html.scale import Scale, number
from rnnlstm.reporting.html.shown import Shown, TaskGroup

INTRO = (
    "A plain RNN treats every input alike. A gate is a factor between 0 (shut) and 1 (open) that the network "
    "computes anew at each step, so that it can tell inputs apart. The <em>forget gate</em> decides how much of the "
    "memory stays, and is the gradient’s factor along the cell state: at 0.5 memory halves at each step, near 1 it "
    "is kept. The <em>input gate</em> decides what is written into it, the <em>output gate</em> what of it is "
    "shown."
)
CAPTION = (
    "<strong>What to see.</strong> Open ring: before training; filled dot: at the last look; each the mean over "
    "units and the probe’s sequences, the median over seeds. A gate that moves apart for different kinds of token "
    "has learned to tell them apart; one that moves alike for all has only found a better constant. {layers}"
)
MOST_GATES, MOST_KINDS = 6, 12  # a record may hold any number
WIDTH, LEFT, RIGHT, ROW, TOP = 300, 92, 16, 26, 12
Means = dict[str, tuple[float, float]]  # by kind of token: before training and at the last look


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    missing = "No gates were recorded: these networks have none, or ran with probe=off."
    return chapter("gates", "What the gates do", report, INTRO, parts, missing)


def _part(report: Report, group: TaskGroup) -> Markup | None:
    panels, rows, any_layers = [], [], False
    for s in group.shown:
        gates, layered = _gates(report, s)
        any_layers |= layered and bool(gates)
        for k, (gate, means) in enumerate(gates.items()):
            panels.append(
                Panel(_dots(f"{group.key}-gate-{s.style}-{k}", s, gate, means), f"{s.name}: {gate} gate", s)
            )
            rows += [(f"{s.name}: {gate}, {kind}", number(a), number(b)) for kind, (a, b) in means.items()]
    if not panels:
        return None
    numbers = Numbers(f"Gates by kind of token, {group.title}", ("gate, token", "before training", "last look"), rows)
    caption = CAPTION.format(layers="The first layer is shown." if any_layers else "")
    return figure(report, f"{group.key}-gates", panels, caption, numbers)


def _gates(report: Report, s: Shown) -> tuple[dict[str, Means], bool]:
    """Every gate's means, of the first layer where there are several."""
    tags = report.records.tags(s.run, "gate/")
    layered = any("/layer_" in tag for tag in tags)
    suffix = "/layer_0" if layered else ""
    names = [tag[len("gate/") : -len(f"_mean{suffix}")] for tag in tags if tag.endswith(f"_mean{suffix}")]
    means = {name: dict(_means(report, s, name, suffix)) for name in names[:MOST_GATES]}
    return {name: by_kind for name, by_kind in means.items() if by_kind}, layered


def _means(report: Report, s: Shown, gate: str, suffix: str) -> Iterator[tuple[str, tuple[float, float]]]:
    if (all_tokens := report.records.ends(s.run, f"gate/{gate}_mean{suffix}")) is not None:
        yield "every step", all_tokens
    beginning = f"gate_by_kind/{gate}_"
    for tag in report.records.tags(s.run, beginning)[:MOST_KINDS]:
        found = report.records.ends(s.run, tag)
        if found is not None and tag.endswith(suffix):
            yield tag[len(beginning) : len(tag) - len(suffix)].replace("_", " "), found


def _dots(key: str, s: Shown, gate: str, means: Means) -> Markup:
    """A row for each kind of token, from the ring (before) to the dot (after)."""
    x = Scale(0.0, 1.0, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(means)
    marks = []
    for value, text in ((0.0, "0 shut"), (0.5, "0.5"), (1.0, "1 open")):
        at, anchor = x.at(value), "end" if value == 1 else "middle"
        marks.append(element("line", class_="grid", x1=at, x2=at, y1=TOP, y2=bottom))
        marks.append(element("text", text, class_="tick", x=at + 6 * (value == 1), y=bottom + 16, text_anchor=anchor))
    for row, (kind, (before, after)) in enumerate(means.items()):
        y = TOP + ROW * (row + 0.5)
        a, b = x.at(min(max(before, 0.0), 1.0)), x.at(min(max(after, 0.0), 1.0))
        told = f"{kind}: from {number(before)} to {number(after)}"
        marks.append(element("text", kind, class_="tick", x=LEFT - 10, y=y + 4, text_anchor="end"))
        marks.append(element("line", class_=f"move s{s.style}", x1=a, x2=b, y1=y, y2=y))
        marks.append(element("circle", class_=f"ring s{s.style}", cx=a, cy=y, r=5))
        marks.append(element("circle", element("title", told), class_=f"dot s{s.style}", cx=b, cy=y, r=5.5))
    told = "; ".join(f"{kind} {number(a)} before training, {number(b)} after" for kind, (a, b) in means.items())
    return element(
        "svg",
        element("title", f"How open the {gate} gate of {s.name} is, by kind of token", id=f"{key}-title"),
        element("desc", told, id=f"{key}-desc"),
        *marks,
        class_="plot small",
        viewBox=f"0 0 {WIDTH} {bottom + 22}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )
