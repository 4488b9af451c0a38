"""The argument parser of the commands that aren't composed by Hydra: a mistake is one line and exit code 2."""

from __future__ import annotations

import argparse

from rnnlstm.options import ConfigError


class Parser(argparse.ArgumentParser):
    """For `python -m rnnlstm.<command>`; its help is the module's docstring, as it is written there."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m rnnlstm.{command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"{message}; see --help")
