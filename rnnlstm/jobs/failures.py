"""What happens after a job failed: a failure is data that processes send each other, and becomes the run's status."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnnlstm.config.errors import BusyError, CheckpointError, ConfigError, DiskError, JobError, LostError, writing
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
        if self.kind in (JobError.__name__, LostError.__name__):
            return (JobError if self.kind == JobError.__name__ else LostError)(self.message, self.log)
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
    """Give the job's unfinished seeds the status `failed`, or `interrupted` if it is lost: its process may have ended
    before it could.

    Raises: DiskError.
    """
    if isinstance(error, ConfigError | BusyError):  # another run has the folder
        return
    config = job.config
    reason, log = failure_reason(error), failure_log(error)
    status = "interrupted" if isinstance(error, LostError) else "failed"
    with writing(f"results in {job.folder}"):
        record_failure(job.folder, config.tree, config.seed_numbers, reason, log, status)
