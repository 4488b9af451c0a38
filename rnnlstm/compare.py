"""The command that compares runs."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Compare runs: a table with a row per configuration, its seeds grouped.

    python -m rnnlstm.compare RUNS… [--where KEY=VALUE] [--by KEY…] [--paired] [--csv FILE] [--figures FOLDER]
                                    [--html FILE [--open]]

Examples
  python -m rnnlstm.compare runs                     all runs below a folder, also while they train
  python -m rnnlstm.compare runs/keyword_T100 --csv table.csv
  python -m rnnlstm.compare runs --where task=adding --where model=rnn,lstm
  python -m rnnlstm.compare runs --by model optimizer.lr       a row for each; other keys are pooled
  python -m rnnlstm.compare runs --paired --against model=rnn  differences from the RNN, seed by seed
  python -m rnnlstm.compare runs --html report.html --open     everything on one page, to show to others
  python -m rnnlstm.compare runs --figures pictures  learning curves, who solves when, the gradient through time

A metric is the median over the seeds: up to five seeds with every value, from six on with the 95 % bootstrap
interval of the median. Solved has Wilson's interval. Steps to solve is the Kaplan-Meier median, which also uses seeds
that are still running or have not solved the task. The first columns are the keys that differ. Keys that are equal in
all rows are below the table.
"""

import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnlstm.cli.arguments import Parser, check_writable
from rnnlstm.cli.exits import DONE, run_command
from rnnlstm.config.errors import ConfigError, show

ROWS = 40  # of the table, unless asked for more


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def parser() -> Parser:
    """The command's arguments."""
    result = Parser("compare", __doc__)
    add = result.add_argument
    add("runs", nargs="+", metavar="RUNS", help="folders with runs below them")
    add(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs that have this value, or one of several: model=rnn,lstm; may be given again",
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add("--by", **several, metavar="KEY", help="a row for each value, pooled over other keys")
    add("--paired", action="store_true", help="differences over shared seeds, also with more than 8 rows")
    add(
        "--against",
        **several,
        metavar="KEY=VALUE",
        help="the row that others are compared with, instead of the one with the lowest loss; implies --paired",
    )
    add("--top", type=int, default=ROWS, metavar="N", help=f"rows of the tables at most ({ROWS})")
    add("--csv", metavar="FILE", help="write the table here as CSV, whole")
    add("--figures", metavar="FOLDER", help="write pictures there")
    add("--html", metavar="FILE", help="write a report on the same rows here: one page that needs nothing else")
    add("--open", action="store_true", help="show that report in the browser")
    return result


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.top < 1:
        raise ConfigError(f"--top {show(options.top)}: must be at least 1")
    if options.open and not options.html:
        raise ConfigError("--open shows the report that --html FILE writes")
    for file in filter(None, (options.csv, options.html)):
        check_writable(file)
    if options.figures:
        check_writable(options.figures, folder=True)

    from rnnlstm.reporting.selection import compare
    from rnnlstm.reporting.tables import paragraphs, table_console, write_csv

    comparison = compare(options.runs, options.where, options.by)
    console = table_console(200)
    for part in paragraphs(comparison, options.top, options.paired, options.against, console.width):
        console.print(part, markup=False, soft_wrap=isinstance(part, str))
    if options.csv:
        write_csv(comparison.rows, options.csv)
        console.print(f"Written: {options.csv}", markup=False, soft_wrap=True)
    if options.figures:
        from rnnlstm.reporting.figures import save_figures

        for path in save_figures(comparison.rows, options.figures):
            console.print(f"Written: {path}", markup=False, soft_wrap=True)
    if options.html:
        from rnnlstm.reporting.html.page import write_page

        write_page(comparison, options.html, options.against)
        console.print(f"Written: {options.html}", markup=False, soft_wrap=True)
        if options.open and not webbrowser.open(Path(options.html).resolve().as_uri()):
            console.print("No browser was found to open it.", markup=False)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
