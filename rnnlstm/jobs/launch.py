"""Trains the jobs of a command: one after another in this process, each in its own process, or by a launcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rnnlstm.config.errors import DiskError
from rnnlstm.jobs.failures import mark_failed
from rnnlstm.jobs.job import Job, Listener
from rnnlstm.jobs.launchers.sweep import check_launcher, train_elsewhere
from rnnlstm.jobs.process import train_apart, warm_up
from rnnlstm.training.signals import Outcome, StopFlag

if TYPE_CHECKING:
    from rnnlstm.config.schema import LauncherOptions


def train_jobs(jobs: Sequence[Job], listener: Listener, apart: bool) -> None:
    """Check all jobs, then train each of them. A failed job does not stop the others; a signal does.

    `apart`: each has its own process, as a job with a `job_timeout` always has. A launcher other than serial decides
    by itself where its jobs run. Raises: ConfigError before anything is trained or written; DiskError;
    KeyboardInterrupt; what `listener` raises.
    """
    launcher = check_launcher(jobs)
    if launcher.name == "serial" and (apart or any(job.config.job_timeout is not None for job in jobs)):
        warm_up()
    _check_plans(jobs, launcher)
    if launcher.name == "serial":
        _train_in_turn(jobs, listener, apart)
    else:
        train_elsewhere(jobs, launcher, listener)


def check_jobs(jobs: Sequence[Job]) -> None:
    """Raises: ConfigError if a job can't be trained, or the launcher can't be used here."""
    _check_plans(jobs, check_launcher(jobs))


def _check_plans(jobs: Sequence[Job], launcher: LauncherOptions) -> None:
    from rnnlstm.record.files import room_for_files
    from rnnlstm.training.plan import make_plan
    from rnnlstm.training.resume import seeds_left

    for job in jobs:
        if launcher.shares_this_machine:
            make_plan(job.config)
            with room_for_files(seeds_left(job.config, job.folder)):
                pass
        else:  # another machine may have devices that this one lacks
            make_plan(replace(job.config, device="auto"))


def _train_in_turn(jobs: Sequence[Job], listener: Listener, apart: bool) -> None:
    from rnnlstm.training.loop import train_run
    from rnnlstm.training.plan import make_plan

    with StopFlag() as stop:
        for number, job in enumerate(jobs):
            if stop.signal is not None:
                listener.ended(number, job, Outcome(job.folder, [], stop.signal))
                return
            listener.started(number, job)
            timeout = job.config.job_timeout
            own_process = apart or timeout is not None
            try:
                if own_process:
                    count = f"[{number + 1}/{len(jobs)}] " if len(jobs) > 1 else ""
                    outcome = train_apart(job, stop, timeout, count)
                else:
                    outcome = train_run(make_plan(job.config), job.folder, listener.progress(job))
            except DiskError:
                raise
            except Exception as error:
                if own_process or len(jobs) > 1:
                    mark_failed(job, error)
                listener.ended(number, job, error)
                continue
            listener.ended(number, job, outcome)
            if outcome.stopped_by is not None:
                return
    if stop.signal is not None:  # it came while the last job ended
        raise KeyboardInterrupt(stop.signal)
