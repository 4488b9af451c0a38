"""The summary table: a row per configuration, a table for each task."""

from __future__ import annotations

import re
import statistics

from markupsafe import Markup

from rnnlstm.reporting.html.markup import element, render
from rnnlstm.reporting.html.parts import Numbers, Report, Section, keyed, table, unbroken
from rnnlstm.reporting.html.scale import number
from rnnlstm.reporting.html.shown import TaskGroup
from rnnlstm.reporting.runs import STATES, Run, counts, reasons
from rnnlstm.reporting.selection import pooled_over
from rnnlstm.reporting.tables import finite, metric_text, row, solved_text, states_text, steps_text

HEADS = (
    "configuration", "solved (95\u00a0%)", "score", "updates to solve", "held-out loss", "seeds", "clipped",
    "median norm", "parameters", "ms an update",
)  # fmt: skip
#: What became of seeds that are not done, for who meets the word first here.
MEANINGS = {
    "running": "still training when this was made",
    "interrupted": "saved and ended before it was done; the same command goes on",
    "stopped": "killed, or crashed without a word; the same command goes on",
    "diverged": "its loss or gradient was no longer a finite number; that is a result",
    "failed": "ended by an error",
    "missing": "begun or asked for, and left nothing to read",
}
#: Rows of all tables together; a page of thousands would help nobody, and `--csv` has them all.
MOST_ROWS = 500


def section(report: Report) -> Section:
    left, tables = MOST_ROWS, []
    for group in report.groups:
        if left > 0:
            tables.append(_table(group, left))
            left -= len(group.runs)
    body = render(
        "summary.html", tables=tables, left_out=max(0, -left), states=_states(report), reasons=reasons(report.runs),
        by=report.found.by, pooled=pooled_over(report.runs),
    )  # fmt: skip
    return Section("results", "Results", body)


def _states(report: Report) -> list[tuple[int, str, str]]:
    """How many seeds are not done, and what that means; nothing if all are."""
    total = dict.fromkeys(STATES, 0)
    for run in report.runs:
        for state, count in counts(run).items():
            total[state] += count
    return [(total[state], state, meaning) for state, meaning in MEANINGS.items() if total[state]]


def _table(group: TaskGroup, most: int) -> Markup:
    styles = {id(s.run): s.style for s in group.shown}
    rows = []
    for run, name in list(zip(group.runs, group.names, strict=True))[:most]:
        style = styles.get(id(run))
        rows.append([keyed(name, style), *_cells(run)])
    return table(Numbers(group.title, HEADS, rows))


def _cells(run: Run) -> list[object]:
    r = row(run)
    losses = finite(run.values("loss"))
    clipped = r["clip_rate"]
    states = ", ".join(filter(None, (f"{r['done']} done" if r["done"] else "", states_text(r))))
    return [
        unbroken(solved_text(run)),
        unbroken(metric_text(run, r)),
        unbroken(steps_text(run)),
        number(statistics.median(losses)) if losses else "—",
        element("span", re.sub(r"(\d) ", "\\1\u00a0", states), class_="brief"),
        "—" if clipped is None else f"{clipped:.0%}".replace("%", "\u00a0%"),
        number(r["median_norm_before_clip"]),
        number(r["parameters"]),
        number(r["ms_per_update"]),
    ]
