"""Command-line arguments of the commands without configuration keys. A mistake is one line and exit code 2."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path

from rnnlstm.config.errors import ConfigError, show, writing


class Parser(argparse.ArgumentParser):
    """The parser of `python -m rnnlstm.<command>`. Its help is the module's docstring, unchanged."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m rnnlstm.{command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--version", action="store_true", help="print the version and stop")  # by `run_command`

    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"{message}; see --help")


def check_writable(path: str, folder: bool = False) -> None:
    """Check that a file, or a `folder` that may not exist yet, can be written, before work would be lost.

    Raises: DiskError.
    """
    place = Path(path)
    with writing(show(path)):
        if "\0" in path:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if place.exists() and place.is_dir() != folder:
            number = errno.ENOTDIR if folder else errno.EISDIR
            raise OSError(number, os.strerror(number))
        there = place
        while not there.exists() and (there == place or folder):
            there = there.absolute().parent
        if there != place and not there.is_dir():
            number = errno.ENOTDIR if there.exists() else errno.ENOENT
            raise OSError(number, os.strerror(number))
        if place.is_file() and not str(place.absolute()).startswith("/dev/"):  # it is replaced
            if not os.access(place, os.W_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            there = place.resolve().parent
        if not os.access(there, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
