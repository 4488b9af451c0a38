"""How a job has failed, as plain data that any process can send and any other understand; and a status for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnlstm.config.errors import BusyError, CheckpointError, ConfigError, DiskError, JobError
from rnnlstm.record.summary import record_failure

if TYPE_CHECKING:
    from rnnlstm.jobs.job import Job

#: Failures that mean the same in the process that waits.
EXPECTED: tuple[type[Exception], ...] = (ConfigError, CheckpointError, BusyError, DiskError)


@dataclass(frozen=True)
class Failure:
    """An exception by its kind, its message and its traceback; the last is empty for what needs none."""

    kind: str
    message: str
    log: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        return cls(type(error).__name__, str(error), failure_log(error))

    def error(self) -> Exception:
        for kind in EXPECTED:
            if kind.__name__ == self.kind:
                return kind(self.message)
        if self.kind == JobError.__name__:
            return JobError(self.message, self.log)
        return JobError(f"{self.kind}: {self.message}", self.log)


def failure_log(error: Exception) -> str:
    """A failure's traceback; empty for what needs none."""
    if isinstance(error, JobError):
        return error.log
    return "" if isinstance(error, EXPECTED) else "".join(traceback.format_exception(error))


def failure_reason(error: Exception) -> str:
    return str(error) if isinstance(error, (JobError, *EXPECTED)) else f"{type(error).__name__}: {error}"


def settle(job: Job, error: Exception) -> None:
    """A status for a failed job: it may not have come to write one. Raises: DiskError."""
    if isinstance(error, ConfigError | BusyError):  # the folder is someone else's
        return
    config = job.config
    try:
        record_failure(job.folder, config.tree, config.seed_numbers, failure_reason(error), failure_log(error))
    except OSError as problem:
        raise DiskError(f"can't write results in {job.folder}: {problem.strerror or problem}") from problem


# Under Slurm, a run that was told to stop before its end asks to be started again; it goes on where it stopped.


def requeue(stopped_by: signal.Signals) -> None:
    """Ask Slurm for another turn of this batch job, if it is one and a signal of Slurm's (USR2, TERM) stopped it.

    Where submitit started the job, it asks itself.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal() or "SUBMITIT_EXECUTOR" in os.environ or stopped_by == signal.SIGINT:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    how = f"could not be requeued: {problem}" if problem else "requeued; it goes on where it stopped"
    print(f"Slurm job {job} {how}", file=sys.stderr)
