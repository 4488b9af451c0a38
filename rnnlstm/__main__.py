"""`python -m rnnlstm` names the commands; each is a module of its own."""

from __future__ import annotations

import sys

from rnnlstm.cli.exits import BAD_CONFIG, DONE, fail, guarded
from rnnlstm.config.errors import did_you_mean, show

COMMANDS = {
    "train": "train networks, one configuration or a sweep",
    "compare": "compare runs: a table with intervals, figures, a report on one page",
    "gradflow": "measure where the gradient goes, at initialisation or trained",
    "reproduce": "a paper's table again, with a verdict",
    "events": "write TensorBoard's events anew from the record",
    "benchmark": "measure speed against PyTorch's modules and plain scripts",
}


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
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
    sys.exit(guarded(lambda: main(sys.argv[1:])))
