"""`python -m rnnlstm` names the commands; each is a module of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rnnlstm.cli.exits import BAD_CONFIG, DONE, fail, run_command
from rnnlstm.config.errors import did_you_mean, show

COMMANDS = {
    "train": "train networks, one configuration or a sweep",
    "compare": "compare runs: a table with intervals, figures, a report on one page",
    "gradflow": "measure where the gradient goes, at initialisation or trained",
    "reproduce": "repeat a published experiment, with a verdict",
    "events": "rewrite TensorBoard's events from the record",
    "export": "copy runs to wandb, MLflow or Trackio",
    "benchmark": "measure speed against PyTorch's modules and plain scripts",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def _main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] not in ("-h", "--help"):
        known = arguments[0] in COMMANDS
        hint = "" if known else did_you_mean(arguments[0], COMMANDS)
        command = arguments[0] if known else "COMMAND"
        return fail(f"{show(arguments[0])}: commands are written python -m rnnlstm.{command}{hint}", BAD_CONFIG)
    print("Why a plain RNN forgets and what makes an LSTM remember, by measurement. Each command has --help.\n")
    for name, what in COMMANDS.items():
        print(f"  python -m rnnlstm.{name:<11} {what}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
