"""How a command ends: exit codes, expected failures as one line each, and signals."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from rnnlstm.config import __version__
from rnnlstm.config.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    DiskError,
    JobError,
    enough_memory,
    printable,
    require_posix,
)
from rnnlstm.config.output import guard_output
from rnnlstm.training.signals import SIGNALS

DONE = 0
JOB_FAILED = 1  #: a job of a sweep failed, or an internal error
BAD_CONFIG = 2  #: one line, nothing on disk
BAD_CHECKPOINT = 3
BUSY = 73  #: the run folder is in use by another process
DISK_FAILED = 74
INTERRUPTED = 130
TERMINATED = 143
VERSION = "--version"


def run_command(command: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Run a command with these arguments and return its exit code.

    Without arguments the command owns the process: it takes those of the process and decides what a signal does.
    Outside training, which saves first, a signal ends the process at once with 130 or 143 and one line. Raising an
    exception instead would be unsafe: native modules abort if one is raised while they are imported, and libraries
    catch it or print it.

    Output that can't be written stops nothing: the command does everything else and exits with 74. If only the reader
    has gone, as in `… | head`, the exit code is the same as if it had read everything.
    `--version` is answered here, for every command.
    """
    if arguments is not None:
        return guarded(lambda: _run(command, arguments))
    for number in SIGNALS:
        signal.signal(number, _exit_now)
    output = guard_output()
    try:
        code = guarded(lambda: _run(command, sys.argv[1:]))
    except SystemExit as end:  # argparse has printed the help
        code = int(end.code or DONE)
    sys.stdout.flush()
    if output is not None and output.lost:
        code = code or DISK_FAILED
        fail(f"can't write to standard output: {output.lost}", code)
    for number in SIGNALS:  # the exit code is decided, and Python only tidies up
        signal.signal(number, signal.SIG_IGN)
    return code


def _run(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    if VERSION in arguments:
        print(f"rnnlstm {__version__}")
        return DONE
    return command(arguments)


def guarded(command: Callable[[], int]) -> int:
    """Run a command; its expected failures become one line on standard error and an exit code.

    An unexpected failure keeps its traceback: it is a bug, and Python exits with 1.
    """
    try:
        require_posix()
        with enough_memory():
            return command()
    except ConfigError as error:
        return fail(str(error), BAD_CONFIG)
    except CheckpointError as error:
        return fail(str(error), BAD_CHECKPOINT)
    except BusyError as error:
        return fail(str(error), BUSY)
    except DiskError as error:
        return fail(str(error), DISK_FAILED)
    except JobError as error:
        sys.stderr.write(error.log)
        return fail(str(error), JOB_FAILED)
    except KeyboardInterrupt as error:
        return fail("interrupted", code_of(error.args[0] if error.args else signal.SIGINT))


def fail(message: str, code: int) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    return code


def code_of(stopped_by: int) -> int:
    """The exit code of a command that a signal stopped."""
    return INTERRUPTED if stopped_by == signal.SIGINT else TERMINATED


def _exit_now(number: int, frame: FrameType | None) -> None:
    """End this process from within a signal handler."""
    code = code_of(number)
    for again in SIGNALS:
        signal.signal(again, lambda *_: os._exit(code))
    with suppress(Exception):  # the signal may have interrupted a write
        sys.stdout.flush()
    with suppress(OSError):
        os.write(2, b"error: interrupted\n")
    with suppress(Exception):
        atexit._run_exitfuncs()  # temporary folders
    os._exit(code)
