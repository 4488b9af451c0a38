"""The whole page: its sections in order, put together and written in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from rnnlstm.config.errors import DiskError, show
from rnnlstm.record.environment import package_version
from rnnlstm.record.files import write_whole
from rnnlstm.reporting.html import (
    clipping,
    cost,
    differences,
    examples,
    gates,
    gradient,
    learning,
    overview,
    reach,
    reproduce,
    solving,
    summary,
)  # fmt: skip
from rnnlstm.reporting.html.markup import HERE, render
from rnnlstm.reporting.html.parts import Report, Section
from rnnlstm.reporting.runs import counts
from rnnlstm.reporting.selection import Comparison

#: The chapters, as they are read. A new one: a module with a function `section`, and its place here. None: no chapter
SECTIONS: tuple[Callable[[Report], Section | None], ...] = (
    overview.section,
    summary.section,
    learning.section,
    solving.section,
    reach.section,
    differences.section,
    gradient.section,
    gates.section,
    clipping.section,
    examples.section,
    cost.section,
    reproduce.section,
)


def page(found: Comparison, against: Sequence[str] = ()) -> str:
    """The report on a comparison as HTML that needs nothing else: no script, no network.

    Raises: ConfigError for `against` that names no row.
    """
    report, runs = Report.of(found, against), found.rows
    tasks = list(dict.fromkeys(group.title for group in report.groups))
    written = render(
        "page.html",
        title=f"{'; '.join(tasks[:3])}{' …' if len(tasks) > 3 else ''}",
        sections=[section for make in SECTIONS if (section := make(report)) is not None],
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        version=package_version("rnnlstm"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        rows=len(runs),
        by=found.by,
        where=found.where,
        configurations=sum(len(run.members) for run in runs),
        seeds=sum(len(run.seeds) for run in runs),
        running=sum(counts(run)["running"] for run in runs),
    )
    return str(written)


def write_page(found: Comparison, path: str, against: Sequence[str] = ()) -> None:
    """The report in the file `path`, whole or not at all. Raises: DiskError; ConfigError as `page`."""
    data = page(found, against).encode("utf-8", "replace")
    try:
        write_whole(Path(path), data)
    except OSError as error:
        raise DiskError(f"can't write {show(path)}: {error.strerror}") from None
