"""The command that rewrites TensorBoard's events."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Rewrite the TensorBoard events of runs from their record: after a full disk, a damaged or a deleted file.

    python -m rnnlstm.events RUNS…

Examples
  python -m rnnlstm.events runs                     all runs below a folder
  python -m rnnlstm.events runs/keyword_T100/lstm-1a2b3c4d

The record (metrics.jsonl, flow.jsonl, samples.jsonl) is only read. New events replace the old ones when they are
complete. After an interrupt, the same command does what is left. A run that is still training is skipped and named,
and the exit code is then 73.
"""

import sys
from collections.abc import Sequence

from rnnlstm.cli.arguments import Parser
from rnnlstm.cli.exits import BUSY, DISK_FAILED, DONE, fail, run_command
from rnnlstm.config.errors import BusyError, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def parser() -> Parser:
    """The command's arguments."""
    result = Parser("events", __doc__)
    result.add_argument("runs", nargs="+", metavar="RUNS", help="folders with runs below them")
    return result


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)

    from rnnlstm.record.folders import find_run_folders

    runs = find_run_folders(options.runs)

    from rnnlstm.record.rebuild import rebuild_events
    from rnnlstm.tasks import TASKS  # imports torch, so only after runs were found

    headlines = {name: TASKS[name].metric_name for name in TASKS}
    code = DONE
    for count, (folder, configuration) in enumerate(runs.items(), start=1):
        place = f"[{count}/{len(runs)}] {printable(str(folder))}"
        try:
            done = rebuild_events(folder, configuration, headlines)
        except BusyError as error:
            code = fail(f"{error}; left alone", code or BUSY)
        except OSError as error:
            code = fail(
                f"{error.filename or folder}: events can't be written: {error.strerror or error}", DISK_FAILED
            )
        else:
            print(f"{place}: {done.lines:,} lines of {done.seeds} seed{'s' * (done.seeds != 1)}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
