"""What happens after a job failed or was stopped.

A failure is data that processes send each other, a failed job gets the status `failed`, and a job that Slurm stopped
is requeued.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnlstm.config.errors import BusyError, CheckpointError, ConfigError, DiskError, JobError, writing
from rnnlstm.record.summary import record_failure

if TYPE_CHECKING:
    from rnnlstm.jobs.job import Job

#: Failures that keep their type when another process reports them.
EXPECTED: tuple[type[Exception], ...] = (ConfigError, CheckpointError, BusyError, DiskError)


@dataclass(frozen=True)
class Failure:
    """An exception as text. `log` is its traceback, and empty for an expected failure."""

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
    """The traceback of a failure; empty for an expected one."""
    if isinstance(error, JobError):
        return error.log
    return "" if isinstance(error, EXPECTED) else "".join(traceback.format_exception(error))


def failure_reason(error: Exception) -> str:
    """A failure in one line."""
    return str(error) if isinstance(error, (JobError, *EXPECTED)) else f"{type(error).__name__}: {error}"


def mark_failed(job: Job, error: Exception) -> None:
    """Give the job's unfinished seeds the status `failed`: its process may have ended before it could.

    Raises: DiskError.
    """
    if isinstance(error, ConfigError | BusyError):  # another run has the folder
        return
    config = job.config
    with writing(f"results in {job.folder}"):
        record_failure(job.folder, config.tree, config.seed_numbers, failure_reason(error), failure_log(error))


def requeue(stopped_by: signal.Signals) -> None:
    """Ask Slurm to run this batch job again, if Slurm stopped it (by USR2 or TERM). The run then resumes.

    Does nothing outside Slurm, or where submitit started the job: submitit requeues by itself.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal() or "SUBMITIT_EXECUTOR" in os.environ or stopped_by == signal.SIGINT:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    how = f"could not be requeued: {problem}" if problem else "requeued; it will resume from its checkpoint"
    print(f"Slurm job {job} {how}", file=sys.stderr)
