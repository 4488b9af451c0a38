"""Training the jobs of a command: one after another, in this process or each in its own, or by a launcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rnnlstm.config.errors import DiskError
from rnnlstm.jobs.failures import settle
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.launchers.sweep import Ended, check_launcher, train_elsewhere
from rnnlstm.jobs.process import train_apart, warm_up
from rnnlstm.training.signals import Outcome, StopFlag

if TYPE_CHECKING:  # importing torch takes seconds: only once there is something to train
    from rnnlstm.config.schema import LauncherOptions
    from rnnlstm.jobs.launchers.standing import Standing
    from rnnlstm.training.progress import Progress


def train_jobs(
    jobs: Sequence[Job],
    started: Callable[[int, Job], None],
    ended: Ended,
    progress_for: Callable[[Job], Progress],
    apart: bool,
    watching: Callable[[Standing], None] = lambda _: None,
    several: bool | None = None,
) -> None:
    """Check all jobs whole, then train each; one that fails does not stop the others. Ends early on a signal.

    `apart`: each in a process of its own, if there are several. A job with a `job_timeout` always has its own. With a
    launcher other than serial, jobs run wherever it has them run, and `watching` is shown how the sweep stands.
    `several`: whether the command has more than one, if that isn't seen in `jobs`.
    Raises: ConfigError before anything is trained or written; DiskError; with one job, whatever it raises.
    """
    several = len(jobs) > 1 if several is None else several
    launcher = check_launcher(jobs)
    apart = apart and several
    if launcher.name == "serial" and (apart or any(job.config.job_timeout is not None for job in jobs)):
        warm_up()
    _check_plans(jobs, launcher)
    if launcher.name == "serial":
        _train_in_turn(jobs, started, ended, progress_for, apart, several)
        return

    def ended_elsewhere(number: int, job: Job, ending: Outcome | Exception) -> None:
        if isinstance(ending, Exception) and not several:
            raise ending
        started(number, job)
        ended(number, job, ending)

    train_elsewhere(jobs, launcher, ended_elsewhere, watching)


def check_jobs(jobs: Sequence[Job]) -> None:
    """Raises: ConfigError if a job can't be trained, or the launcher can't be used here."""
    _check_plans(jobs, check_launcher(jobs))


def _check_plans(jobs: Sequence[Job], launcher: LauncherOptions) -> None:
    from rnnlstm.training.plan import make_plan

    for job in jobs:  # another machine may have devices that this one lacks
        make_plan(job.config if launcher.shares_this_machine else replace(job.config, device="auto"))


def _train_in_turn(
    jobs: Sequence[Job],
    started: Callable[[int, Job], None],
    ended: Ended,
    progress_for: Callable[[Job], Progress],
    apart: bool,
    several: bool,
) -> None:
    from rnnlstm.training.loop import train_run
    from rnnlstm.training.plan import make_plan

    with StopFlag() as stop:
        for number, job in enumerate(jobs):
            if stop.signal is not None:
                ended(number, job, Outcome(job.folder, [], stop.signal))
                return
            started(number, job)
            timeout = job.config.job_timeout
            try:
                if apart or timeout is not None:
                    count = f"[{number + 1}/{len(jobs)}] " if len(jobs) > 1 else ""
                    outcome = train_apart(job, stop, timeout, count)
                else:
                    outcome = train_run(make_plan(job.config), job.folder, progress_for(job))
            except DiskError:
                raise
            except Exception as error:
                if several or timeout is not None:
                    settle(job, error)
                if not several:
                    raise
                ended(number, job, error)
                continue
            ended(number, job, outcome)
            if outcome.stopped_by is not None:
                return
