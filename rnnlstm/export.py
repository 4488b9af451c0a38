"""The command that copies runs to an experiment tracker."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Copy the record of runs to an experiment tracker: Weights & Biases, MLflow or Trackio.

    python -m rnnlstm.export wandb|mlflow|trackio RUNS…

Examples
  python -m rnnlstm.export wandb runs                           all runs below a folder; asks wandb's server
  WANDB_MODE=offline python -m rnnlstm.export wandb runs        into ./wandb, for `wandb sync` later
  MLFLOW_TRACKING_URI=sqlite:///mlflow.db python -m rnnlstm.export mlflow runs
  python -m rnnlstm.export trackio runs --project memory

Each seed becomes a run of the tracker: its configuration, every line of metrics.jsonl at its own step, and its
summary. Seeds of one configuration form a group. Runs are only read. Each tracker's own environment variables say
where it writes, and as whom. MLflow skips a seed that was exported before; wandb and Trackio get it under the same
identifier again.
"""

import sys
from collections.abc import Sequence

from rnnlstm.cli.arguments import Parser
from rnnlstm.cli.exits import DONE, run_command

TRACKERS = ("wandb", "mlflow", "trackio")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def parser() -> Parser:
    """The command's arguments."""
    result = Parser("export", __doc__)
    result.add_argument("tracker", choices=TRACKERS, help="which tracker; its package is an extra of the same name")
    result.add_argument("runs", nargs="+", metavar="RUNS", help="folders with runs below them")
    result.add_argument("--project", default="rnnlstm", help="the project, in MLflow the experiment")
    return result


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)

    from rnnlstm.reporting.runs import find_runs
    from rnnlstm.reporting.trackers import export, exported_seeds

    seeds = list(exported_seeds(find_runs(options.runs)))
    for count, (seed, lines) in enumerate(export(options.tracker, options.project, seeds), start=1):
        told = "there already" if lines is None else f"{lines:,} lines"
        print(f"[{count}/{len(seeds)}] {seed.group}/{seed.name}: {told}", flush=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
