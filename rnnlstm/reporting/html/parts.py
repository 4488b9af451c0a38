"""What sections are made of: markup, the report's data, figures with a caption and their numbers as a table, legends.

Text gets into the page in one way, and that way escapes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from rnnlstm.reporting.charts import MOST_GROUPS, Shown, TaskGroup, grouped
from rnnlstm.reporting.colours import STYLES
from rnnlstm.reporting.pairing import Contest, contests
from rnnlstm.reporting.runs import Run
from rnnlstm.reporting.selection import Comparison

HERE = Path(__file__).parent


def text(value: object) -> Markup:
    """`value` as text in a page. Names, answers and the like come from files that anyone may have written: marks
    are escaped, and what can't be seen, or would turn the direction of writing, is shown as its escape."""
    if isinstance(value, Markup):
        return value
    return escape("".join(c if c.isprintable() or c in "\n\u00a0" else ascii(c)[1:-1] for c in str(value)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`<name attribute="…">children</name>`. Of an attribute's name, `_` is written `-`, and one at its end dropped;
    numbers are rounded to a tenth; None leaves it out."""
    parts = [Markup("<"), Markup(name)]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
            parts.append(Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), text(shown)))
    return Markup("").join([*parts, Markup(">"), *map(text, children), Markup(f"</{name}>")])


@functools.cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=text,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template of this package, filled in."""
    return Markup(_templates().get_template(template).render(**values))


def stylesheet() -> str:
    """`style.css` with the networks' colours, dashes and themes from `colours.STYLES`."""
    numbered = list(enumerate(STYLES))
    rules = []
    for k, style in numbered:
        dashes = f" stroke-dasharray: {' '.join(map(str, style.dashes))};" if style.dashes else ""
        rules.append(f".s{k} {{ --c: var(--c{k});{dashes} }}")
    filled = {
        "on white": " ".join(f"--c{k}: {style.on_white};" for k, style in numbered),
        "on dark": " ".join(f"--c{k}: {style.on_dark};" for k, style in numbered),
        "styles": "\n".join(rules),
    }
    css = (HERE / "style.css").read_text(encoding="utf-8")
    for name, words in filled.items():
        css = css.replace(f"/* networks: {name} */", words)
    return css


@dataclass(frozen=True)
class Report:
    """A comparison, its rows by task and length, and which captions the page has already."""

    comparison: Comparison
    groups: list[TaskGroup]
    against: Sequence[str] = ()  #: conditions of the row that others are compared with
    explained: dict[str, str] = field(default_factory=dict)  #: captions, and the first figure that has each

    @classmethod
    def of(cls, comparison: Comparison, against: Sequence[str] = ()) -> Report:
        return cls(comparison, grouped(comparison.rows), against)

    @property
    def runs(self) -> Sequence[Run]:
        """The rows: runs, or groups of them."""
        return self.comparison.rows

    @property
    def drawn(self) -> list[TaskGroup]:
        """The groups that have figures."""
        return self.groups[:MOST_GROUPS]

    @cached_property
    def contests(self) -> list[Contest]:
        """Rows against their reference. Those with a single seed in common are left out where none was named."""
        least = 1 if self.against else 2
        return [c for c in contests(self.runs, self.against) if len(c.steps.bounds) >= least]

    def caption(self, words: str, key: str) -> Markup:
        """What to see in the figure `key`, or where an earlier one of its kind says so."""
        first = self.explained.setdefault(words, key)
        if first == key:
            return Markup("<strong>What to see.</strong> {}").format(words)
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
    return render("legend.html", group=group, marks=[style.mark for style in STYLES] if dots else None)


#: What a chapter says of one group; None if the group has no such record.
Part = Callable[[Report, TaskGroup], Markup | None]


def chapter(
    key: str, title: str, intro: str | Callable[[Report], str], missing: str
) -> Callable[[Part], Callable[[Report], Section]]:
    """Makes a chapter of a function that writes one group’s part. A group without one gets the line `missing`."""

    def of(part: Part) -> Callable[[Report], Section]:
        def section(report: Report) -> Section:
            body = render(
                "chapter.html",
                key=key,
                intro=Markup(intro if isinstance(intro, str) else intro(report)),
                parts=[(group, part(report, group)) for group in report.drawn],
                missing=missing,
                several=len(report.groups) > 1,
                left_out=len(report.groups) - len(report.drawn),
            )
            return Section(key, title, body)

        return section

    return of
