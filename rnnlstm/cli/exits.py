"""Exit codes, and the one place where an exception becomes a line and a code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rnnlstm.config.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    DiskError,
    JobError,
    printable,
    require_posix,
)

DONE = 0
JOB_FAILED = 1  #: a job of a sweep failed, or an internal error
BAD_CONFIG = 2  #: one line, nothing on disk
BAD_CHECKPOINT = 3
BUSY = 73  #: the run folder is in use by another process
DISK_FAILED = 74
INTERRUPTED = 130
TERMINATED = 143


def guarded(command: Callable[[], int]) -> int:
    """Run a command; its expected failures become one line on standard error and an exit code.

    A failure that nobody expected keeps its traceback: it is a bug, and Python exits with 1.
    """
    try:
        require_posix()
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
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, as in `… | head`
        sys.stderr.close()
        return DONE


def fail(message: str, code: int) -> int:
    print(f"error: {printable(message)}", file=sys.stderr)
    return code
