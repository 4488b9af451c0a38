"""Compare runs: a table with a row per configuration, its seeds grouped.

    python -m rnnlstm.compare RUNS… [--csv FILE] [--figures FOLDER] [--html FILE [--open]]

Examples
  python -m rnnlstm.compare runs                     all runs below a folder, also while they are going
  python -m rnnlstm.compare runs/keyword_T100 --csv table.csv
  python -m rnnlstm.compare runs --figures pictures  learning curves, and the gradient through time
  python -m rnnlstm.compare runs --html report.html --open    the whole story as one page, to show to others

A metric is the median over the seeds: under five seeds with every value, from five on with the 95 % bootstrap
interval of the median. Solved comes with Wilson's interval. What differs between the configurations stands first,
what is equal in all stands below the table.
"""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Sequence

from rnnlstm.arguments import Parser
from rnnlstm.exits import DONE, guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    parser = Parser("compare", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUNS", help="folders with runs below them")
    parser.add_argument("--csv", metavar="FILE", help="write the table here as CSV")
    parser.add_argument("--figures", metavar="FOLDER", help="write pictures of the learning curves there")
    parser.add_argument("--html", metavar="FILE", help="write a report here: one page that needs nothing else")
    parser.add_argument("--open", action="store_true", help="show that report in the browser")
    options = parser.parse_args(arguments)
    if options.open and not options.html:
        parser.error("--open shows the report that --html FILE writes")

    from rich.console import Console

    from rnnlstm.reporting.runs import find_runs
    from rnnlstm.reporting.table import equal_keys, table, write_csv

    runs = find_runs(options.runs)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table(runs))
    if equal := equal_keys(runs):
        console.print(f"Equal in all: {equal}", markup=False, soft_wrap=True)
    if options.csv:
        write_csv(runs, options.csv)
        console.print(f"Written: {options.csv}", markup=False, soft_wrap=True)
    if options.figures:
        from rnnlstm.reporting.figures import save_figures

        for path in save_figures(runs, options.figures):
            console.print(f"Written: {path}", markup=False, soft_wrap=True)
    if options.html:
        from rnnlstm.reporting.html.page import write_page

        written = write_page(runs, options.html)
        console.print(f"Written: {options.html}", markup=False, soft_wrap=True)
        if options.open and not webbrowser.open(written.resolve().as_uri()):
            console.print("No browser was found to open it.", markup=False)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
