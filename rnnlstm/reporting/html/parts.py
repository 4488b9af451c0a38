"""What sections are made of: the report's data, figures with a caption and their numbers as a table, legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from rnnlstm.reporting.html.markup import element, render
from rnnlstm.reporting.html.plot import MARKS
from rnnlstm.reporting.html.records import Records
from rnnlstm.reporting.html.shown import MOST_GROUPS, Shown, TaskGroup, grouped
from rnnlstm.reporting.runs import Run
from rnnlstm.reporting.selection import Comparison


@dataclass(frozen=True)
class Report:
    """Everything that a section may draw on."""

    found: Comparison
    groups: list[TaskGroup]
    against: Sequence[str] = ()  #: conditions of the row that others are compared with
    records: Records = field(default_factory=Records)
    explained: dict[str, str] = field(default_factory=dict)  #: captions, and the first figure that has each

    @classmethod
    def of(cls, found: Comparison, against: Sequence[str] = ()) -> Report:
        return cls(found, grouped(found.rows), against)

    @property
    def runs(self) -> Sequence[Run]:
        """The rows: runs, or groups of them."""
        return self.found.rows

    @property
    def drawn(self) -> list[TaskGroup]:
        """The groups that have figures."""
        return self.groups[:MOST_GROUPS]

    def caption(self, words: str, key: str) -> Markup:
        """What to see in the figure `key`, or where an earlier one of its kind says so."""
        first = self.explained.setdefault(words, key)
        if first == key:
            return Markup(words)
        return Markup('<strong>What to see</strong>: as in <a href="#{}">the first of these figures</a>.').format(
            first
        )


@dataclass(frozen=True)
class Section:
    """A chapter of the page. `key` is its anchor."""

    key: str
    title: str
    body: Markup


@dataclass(frozen=True)
class Numbers:
    """A table: the first cell of a row is its head."""

    caption: str
    heads: Sequence[object]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Panel:
    """A drawing in a figure of several; `shown` is the configuration that it belongs to, if it is one's alone."""

    picture: Markup
    title: str = ""
    shown: Shown | None = None


def table(numbers: Numbers) -> Markup:
    """The table in a frame of its own, which scrolls where the page is narrow."""
    return render("table.html", numbers=numbers)


def keyed(name: str, style: int | None) -> Markup | str:
    """A name beside its colour in the figures, if it has one."""
    return name if style is None else element("span", name, class_=f"key s{style}")


def unbroken(words: str) -> str:
    """Words in a cell of a table, with numbers kept together with what belongs to them."""
    return words.replace(" %", "\u00a0%").replace(" … ", "\u00a0…\u00a0")


def figure(
    report: Report, key: str, panels: Sequence[Panel], caption: str, numbers: Numbers | None, foot: object = ""
) -> Markup:
    """Drawings, a caption that says what to see, and the numbers for those who would rather read them."""
    shown = numbers if numbers is not None and numbers.rows else None
    words = report.caption(caption, key)
    return render("figure.html", key=key, panels=panels, caption=words, numbers=shown, foot=foot, table=table)


def legend(group: TaskGroup, dots: bool = False) -> Markup:
    """Names, colours, dashes or the shapes of dots of the configurations in a group's figures, and how many are in
    the table alone."""
    return render("legend.html", group=group, marks=MARKS if dots else None)


def chapter(
    key: str, title: str, report: Report, intro: str, parts: Sequence[Markup | None], missing: str
) -> Section:
    """A section with a part for each group in the figures; groups without such a record get the line `missing`."""
    shown = list(zip(report.drawn, parts, strict=True))
    body = render(
        "chapter.html", key=key, intro=Markup(intro), parts=shown, missing=missing, several=len(report.groups) > 1,
        left_out=len(report.groups) - len(report.drawn),
    )  # fmt: skip
    return Section(key, title, body)
