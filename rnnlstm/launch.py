"""Training the jobs of a command one after another, in this process or each in its own."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rnnlstm.exits import BusyError, DiskError, JobError
from rnnlstm.job_process import EXPECTED, train_apart, warm_up
from rnnlstm.jobs import Job
from rnnlstm.options import ConfigError
from rnnlstm.record.endings import record_failure
from rnnlstm.training.stopping import StopFlag

if TYPE_CHECKING:  # importing torch takes seconds: only once there is something to train
    from rnnlstm.training.progress import Progress
    from rnnlstm.training.run import Outcome

Ended = Callable[[int, Job, "Outcome | Exception"], None]


def train_jobs(
    jobs: Sequence[Job],
    started: Callable[[int, Job], None],
    ended: Ended,
    progress_for: Callable[[Job], Progress],
    apart: bool,
) -> None:
    """Check all jobs whole, then train each; one that fails does not stop the others. Ends early on a signal.

    `apart`: each in a process of its own, if there are several. A job with a `job_timeout` always has its own.
    Raises: ConfigError before anything is trained or written; DiskError; with one job, whatever it raises.
    """
    apart = apart and len(jobs) > 1
    if apart or any(job.config.job_timeout is not None for job in jobs):
        warm_up()
    from rnnlstm.training.plan import make_plan
    from rnnlstm.training.run import Outcome, train_run

    for job in jobs:
        make_plan(job.config)
    with StopFlag() as stop:
        for number, job in enumerate(jobs):
            if stop.signal is not None:
                ended(number, job, Outcome(job.folder, [], stop.signal))
                return
            started(number, job)
            timeout = job.config.job_timeout
            try:
                if apart or timeout is not None:
                    outcome = train_apart(job, stop, timeout)
                else:
                    outcome = train_run(make_plan(job.config), job.folder, progress_for(job))
            except DiskError:
                raise
            except Exception as error:
                if len(jobs) > 1 or timeout is not None:
                    _settle(job, error)
                if len(jobs) == 1:
                    raise
                ended(number, job, error)
                continue
            ended(number, job, outcome)
            if outcome.stopped_by is not None:
                return


def failure_log(error: Exception) -> str:
    """A failure's traceback; empty for what needs none."""
    if isinstance(error, JobError):
        return error.log
    return "" if isinstance(error, EXPECTED) else "".join(traceback.format_exception(error))


def failure_reason(error: Exception) -> str:
    return str(error) if isinstance(error, (JobError, *EXPECTED)) else f"{type(error).__name__}: {error}"


def _settle(job: Job, error: Exception) -> None:
    """A status for a failed job: it may not have come to write one. Raises: DiskError."""
    if isinstance(error, ConfigError | BusyError):  # the folder is someone else's
        return
    config = job.config
    try:
        record_failure(job.folder, config.tree, config.seed_numbers, failure_reason(error), failure_log(error))
    except OSError as problem:
        raise DiskError(f"can't write results in {job.folder}: {problem.strerror or problem}") from problem
