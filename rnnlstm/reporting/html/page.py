"""The whole page: its sections in order, put together and written in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from rnnlstm.exits import DiskError
from rnnlstm.record.environment import package_version
from rnnlstm.record.files import write_whole
from rnnlstm.reporting.html import clipping, cost, examples, gates, gradient, learning, overview, reproduce, summary
from rnnlstm.reporting.html.markup import HERE, render
from rnnlstm.reporting.html.parts import Report, Section
from rnnlstm.reporting.runs import Run

#: The chapters, as they are read. A new one is a module with a function `section`, and its place here.
SECTIONS: tuple[Callable[[Report], Section], ...] = (
    overview.section,
    summary.section,
    learning.section,
    gradient.section,
    gates.section,
    clipping.section,
    examples.section,
    cost.section,
    reproduce.section,
)


def page(runs: Sequence[Run]) -> str:
    """The report on `runs` as HTML that needs nothing else: no script, no network."""
    report = Report.of(runs)
    tasks = list(dict.fromkeys(group.title for group in report.groups))
    written = render(
        "page.html",
        title=f"{'; '.join(tasks[:3])}{' …' if len(tasks) > 3 else ''}",
        sections=[section(report) for section in SECTIONS],
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        version=package_version("rnnlstm"),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        configurations=len(runs),
        seeds=sum(len(run.seeds) for run in runs),
        running=sum(seed.get("status") == "running" for run in runs for seed in run.seeds),
    )
    return str(written)


def write_page(runs: Sequence[Run], path: str) -> Path:
    """The report in the file `path`, whole or not at all. Raises: DiskError."""
    data = page(runs).encode("utf-8", "replace")
    try:
        target = Path(path).expanduser()
        write_whole(target, data)
        return target
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of nobody
        raise DiskError(f"can't write {path}: {getattr(error, 'strerror', None) or error}") from None
