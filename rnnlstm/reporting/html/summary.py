"""The summary table: a row per configuration, a table for each task."""

from __future__ import annotations

import statistics

from markupsafe import Markup

from rnnlstm.reporting.html.cost import finite
from rnnlstm.reporting.html.markup import element, render
from rnnlstm.reporting.html.parts import Numbers, Report, Section, table, unbroken
from rnnlstm.reporting.html.scale import number
from rnnlstm.reporting.html.selection import Group
from rnnlstm.reporting.runs import Run
from rnnlstm.reporting.table import metric_text, row, solved_text, states_text

HEADS = (
    "configuration", "score", "solved (95\u00a0%)", "updates to solve", "held-out loss", "clipped", "median norm",
    "parameters", "ms an update", "seeds",
)  # fmt: skip
#: Rows of all tables together; a page of thousands would help nobody, and `--csv` has them all.
MOST_ROWS = 500


def section(report: Report) -> Section:
    left, tables = MOST_ROWS, []
    for group in report.groups:
        if left > 0:
            tables.append(_table(group, left))
            left -= len(group.runs)
    return Section("results", "Results", render("summary.html", tables=tables, left_out=max(0, -left)))


def _table(group: Group, most: int) -> Markup:
    styles = {id(s.run): s.style for s in group.shown}
    rows = []
    for run, name in list(zip(group.runs, group.names, strict=True))[:most]:
        style = styles.get(id(run))
        rows.append([name if style is None else element("span", name, class_=f"key s{style}"), *_cells(run)])
    return table(Numbers(group.title, HEADS, rows))


def _cells(run: Run) -> list[str]:
    r = row(run)
    losses = [value for value in run.values("loss") if abs(value) < 1e300]
    clipped = finite(r["clip_rate"])
    return [
        unbroken(metric_text(run, r)),
        unbroken(solved_text(run)),
        number(finite(r["median_steps_to_solve"])),
        number(statistics.median(losses)) if losses else "—",
        "—" if clipped is None else f"{clipped:.0%}".replace("%", "\u00a0%"),
        number(finite(r["median_norm_before_clip"])),
        number(finite(r["parameters"])),
        number(finite(r["ms_per_update"])),
        states_text(run) or f"{len(run.seeds)} done",
    ]
