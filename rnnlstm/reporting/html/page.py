"""The whole page: its sections in order, put together and written in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from rnnlstm.config.errors import writing
from rnnlstm.record.environment import package_version
from rnnlstm.record.files import write_output
from rnnlstm.reporting.html.mechanisms import clipping, gates, gradient
from rnnlstm.reporting.html.outcomes import cost, differences, learning, reach, solving
from rnnlstm.reporting.html.overview import answers, in_short, results
from rnnlstm.reporting.html.parts import Report, Section, render, stylesheet
from rnnlstm.reporting.html.reproduce import reproduce
from rnnlstm.reporting.runs import counts
from rnnlstm.reporting.selection import Comparison

#: The chapters in their order. None from one of them: the page lacks that chapter.
SECTIONS: tuple[Callable[[Report], Section | None], ...] = (
    in_short, results, learning, solving, reach, differences, gradient, gates, clipping, answers, cost, reproduce,
)  # fmt: skip


def page(comparison: Comparison, against: Sequence[str] = ()) -> str:
    """The report on a comparison as HTML that needs nothing else: no script, no network.

    Raises: ConfigError for `against` that names no row.
    """
    report, runs = Report.of(comparison, against), comparison.rows
    tasks = list(dict.fromkeys(group.title for group in report.groups))
    written = render(
        "page.html",
        title=f"{'; '.join(tasks[:3])}{' …' if len(tasks) > 3 else ''}",
        sections=[section for make in SECTIONS if (section := make(report)) is not None],
        style=Markup(stylesheet()),
        version=package_version("rnnlstm"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        rows=len(runs),
        by=comparison.by,
        where=comparison.where,
        notes=comparison.notes,
        configurations=sum(run.configurations for run in runs),
        seeds=sum(len(run.seeds) for run in runs),
        running=sum(counts(run)["running"] for run in runs),
    )
    return str(written)


def write_page(comparison: Comparison, path: str, against: Sequence[str] = ()) -> None:
    """The report in the file `path`, whole or not at all. Raises: DiskError; ConfigError as `page`."""
    data = page(comparison, against).encode("utf-8", "replace")
    with writing(path):
        write_output(Path(path), data)
