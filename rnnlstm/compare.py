"""The command that compares runs."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Compare runs: a table with a row per configuration, its seeds grouped.

    python -m rnnlstm.compare RUNS… [--where KEY=VALUE] [--by KEY…] [--best KEY… [--best-from SEEDS]] [--paired]
                                    [--csv FILE] [--figures FOLDER] [--html FILE [--open]]

Examples
  python -m rnnlstm.compare runs                     all runs below a folder, also while they train
  python -m rnnlstm.compare runs/keyword_T100 --csv table.csv
  python -m rnnlstm.compare runs --where task=adding --where model=rnn,lstm
  python -m rnnlstm.compare runs --by model optimizer.lr       a row for each; other keys are pooled
  python -m rnnlstm.compare runs --best optimizer.lr           the best rate of each network
  python -m rnnlstm.compare runs --best optimizer.lr --best-from 100-102       chosen on seeds that are not reported
  python -m rnnlstm.compare runs --paired --against model=rnn  differences from the RNN, seed by seed
  python -m rnnlstm.compare runs --html report.html --open     everything on one page, to show to others
  python -m rnnlstm.compare runs --figures pictures  learning curves, who solves when, the gradient through time

A metric is the median over the seeds: up to five seeds with every value, from six on with the 95 % bootstrap
interval of the median. Solved has Wilson's interval. Steps to solve is the Kaplan-Meier median, which also uses seeds
that are still running or have not solved the task. The first columns are the keys that differ. Keys that are equal in
all rows are below the table.
"""

import re
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnlstm.cli.arguments import Parser, check_writable
from rnnlstm.cli.exits import DONE, run_command
from rnnlstm.cli.look import look
from rnnlstm.config.errors import ConfigError, show

ROWS = 40  # of the table, unless asked for more
MOST_SEEDS = 10_000  # of --best-from, as in a configuration


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
    add("--best", **several, metavar="KEY", help="a row has the best value: most seeds solved, fewest updates, loss")
    add("--best-from", metavar="SEEDS", help="seeds that choose it, not reported: 100-102 or 7,8")
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


def _seeds(text: str) -> set[int]:
    """`100-102,7` as numbers. Raises: ConfigError."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", part.strip(), re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < first + MOST_SEEDS:
            raise ConfigError(f"--best-from {show(text)}: must be seeds, such as 100-102 or 7,8")
        numbers.update(range(first, last + 1))
    return numbers


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.top < 1:
        raise ConfigError(f"--top {show(options.top)}: must be at least 1")
    if options.open and not options.html:
        raise ConfigError("--open shows the report that --html FILE writes")
    if options.best_from is not None and not options.best:
        raise ConfigError("--best-from names the seeds by which --best KEY chooses")
    chosen_by = None if options.best_from is None else _seeds(options.best_from)
    for file in filter(None, (options.csv, options.html)):
        check_writable(file)
    if options.figures:
        check_writable(options.figures, folder=True)

    from rnnlstm.reporting.selection import compare
    from rnnlstm.reporting.tables import paragraphs, table_console, write_csv

    comparison = compare(options.runs, options.where, options.by, options.best, chosen_by)
    console = table_console(200)
    for part in paragraphs(comparison, options.top, options.paired, options.against, console.width):
        console.print(part, markup=False, soft_wrap=isinstance(part, str) and not console.is_terminal)
    if options.csv:
        write_csv(comparison.rows, options.csv, comparison.best)
        console.print(f"Written: {options.csv}", markup=False, soft_wrap=True)
    if options.figures:
        from rnnlstm.reporting.figures import save_figures

        for path in save_figures(comparison.rows, options.figures, comparison.best):
            console.print(f"Written: {path}", markup=False, soft_wrap=True)
    if options.html:
        from rnnlstm.reporting.html.page import write_page

        write_page(comparison, options.html, options.against)
        console.print(f"Written: {options.html}", markup=False, soft_wrap=True)
        if options.open and not webbrowser.open(Path(options.html).resolve().as_uri()):
            console.print("No browser was found to open it.", markup=False)
    seeds = [seed for run in comparison.rows for seed in run.seeds]
    every = [run.config.get("log.every") for run in comparison.rows]
    intervals = [n for n in every if isinstance(n, int) and n > 0]
    for line in look(options.runs, seeds, min(intervals, default=1)):
        console.print(line, markup=False, soft_wrap=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
