"""Trains the jobs of a command, wherever they run: in this process, or on a launcher, which it looks at until each
job has ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rnnlstm.config.errors import CheckpointError, DiskError, OptionError
from rnnlstm.jobs.failures import mark_failed
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.launcher import Ending, Launcher, Look, Unit, units_of
from rnnlstm.jobs.listener import Listener, Standing
from rnnlstm.training.signals import Outcome, StopFlag

if TYPE_CHECKING:
    from rnnlstm.config.schema import LauncherOptions

GRACE = 60.0  #: seconds that jobs have to save once they have been told to stop


def no_more() -> Sequence[Job]:
    return ()


def train_jobs(
    jobs: Sequence[Job],
    listener: Listener,
    apart: bool,
    more: Callable[[], Sequence[Job]] = no_more,
    most: int = 0,
    name: str = "",
) -> None:
    """Check all jobs, then train each of them. A failed job does not stop the others; a signal does.

    `apart`: each has its own process, as a job with a `job_timeout` always has; launchers other than serial have that
    in any case. `more` is asked for further jobs, with the next numbers, whenever one has ended; there are `most` at
    most, and `name` tells the command's jobs from those of others. Raises: ConfigError before anything is trained or
    written; DiskError; KeyboardInterrupt after a signal before any job had begun, or a second one; what `listener`
    raises.
    """
    options = jobs[0].config.launcher
    apart = apart or options.name != "serial" or any(job.config.job_timeout is not None for job in jobs)
    if apart and options.shares_this_machine:
        from rnnlstm.jobs.process import warm_up

        warm_up(options.threads)
    check_jobs(jobs)
    with StopFlag() as stop:
        if not apart:
            _train_here(jobs, listener, stop, more)
            return
        sweep = Sweep(jobs, listener, stop, max(most, len(jobs)))
        with _launcher(options, jobs, name, sweep, stop) as launcher:
            sweep.run(launcher, more)


def check_jobs(jobs: Sequence[Job]) -> None:
    """Raises: ConfigError if a job can't be trained, or the launcher can't be used here."""
    from rnnlstm.record.files import room_for_files
    from rnnlstm.training.plan import make_plan
    from rnnlstm.training.resume import seeds_left
    from rnnlstm.training.weights import starting_weights

    options = jobs[0].config.launcher
    if options.name == "slurm":
        from rnnlstm.jobs.slurm import check_slurm

        check_slurm(jobs)
    elif options.name == "ray":
        from rnnlstm.jobs.ray import require_ray

        require_ray()
    here = options.shares_this_machine
    for job in jobs:
        # Another machine may have devices that this one lacks.
        config = job.config if here else replace(job.config, device="auto")
        with _whose_key(job, jobs):
            plan = make_plan(config)
        if here:
            starting_weights(plan, job.config.seed_numbers)
            with room_for_files(seeds_left(job.config, job.folder)):
                pass


@contextmanager
def _whose_key(job: Job, jobs: Sequence[Job]) -> Iterator[None]:
    """Where a sweep has several models, or tasks, an error in one of their keys says whose, and how it is written."""
    try:
        yield
    except OptionError as error:
        group, dot, _ = error.key.partition(".")
        if not dot or group not in ("task", "model"):
            raise
        names = [each.config.tree[group]["name"] for each in (job, *jobs)]
        if len(set(names)) == 1:
            raise
        how = f"so with {group}={names[0]}; keys of one {group} go into a group: -- {group}=… {error.key}=…"
        raise OptionError(error.key, error.value, f"{error.rule} ({how})") from None


class Sweep:
    """The jobs of a command that train elsewhere, and what is known of them."""

    def __init__(self, jobs: Sequence[Job], listener: Listener, stop: StopFlag, most: int) -> None:
        self._jobs, self._listener, self._stop = list(jobs), listener, stop
        self.in_turn = jobs[0].config.launcher.name == "serial"  #: one at a time, which shows its own progress
        self.most, self.shown = most, listener.shown
        self._open: dict[int, Job] = {}  # jobs that have not ended
        self._seen: set[int] = set()  # running at some time
        self._disk_error: DiskError | None = None
        self._stopped = 0  # jobs
        self._standing = Standing(most)

    def run(self, launcher: Launcher, more: Callable[[], Sequence[Job]]) -> None:
        """Returns when all jobs have ended, or a stop has been waited for."""
        self._submit(launcher, 0)
        if self._open and (lines := launcher.leave()) is not None:
            for line in lines:
                self._listener.note(line)
            return
        told: float | None = None
        while self._open:
            look = launcher.look(launcher.pause)
            for line in look.notes:
                self._listener.note(line)
            for number, ending in look.ended:
                self._close(number, ending)
            self._running(look)
            stop = self._stop.signal or (signal.SIGTERM if self._disk_error else None)
            if stop is None and look.ended and (further := more()):
                self._jobs += further
                self._submit(launcher, len(self._jobs) - len(further))
            if stop is not None and told is None:
                told = time.monotonic()
                launcher.stop(stop)
            elif told is not None and (look.settled or time.monotonic() - told > GRACE):
                break
        self._end()

    def _submit(self, launcher: Launcher, first: int) -> None:
        """Send the jobs from a number on that have not finished before."""
        if self.in_turn:  # those that have finished, too, when it is their turn
            left = [Unit(number, ((number, job),)) for number, job in enumerate(self._jobs[first:], first)]
        else:
            left = units_of(self._jobs, first, _finished)
        sent = {number for unit in left for number, _ in unit.jobs}
        for number in range(first, len(self._jobs)):
            job = self._open[number] = self._jobs[number]
            if number not in sent:
                self._standing.before += 1
                self._close(number, Outcome(job.folder, job.summaries(), trained=False))
        if left and self._stop.signal is None:
            launcher.submit(left)

    def _running(self, look: Look) -> None:
        if self.in_turn:
            for number in sorted(set(look.running) - self._seen):
                self._listener.started(number, self._jobs[number])
        self._seen.update(look.running)
        running = {number: self._open[number] for number in look.running if number in self._open}
        ended = len(self._jobs) - len(self._open) - self._stopped
        if not self.in_turn:
            self._listener.watching(self._standing.look(ended, running, look.waiting))

    def _close(self, number: int, ending: Ending) -> None:
        job = self._open.pop(number)
        if number not in self._seen or not self.in_turn:
            self._listener.started(number, job)
        if isinstance(ending, DiskError):
            self._disk_error = self._disk_error or ending
            if self.in_turn:
                return
        elif isinstance(ending, Exception):
            mark_failed(job, ending)
        elif ending.stopped_by is not None:
            self._stopped += 1
        self._listener.ended(number, job, ending)

    def _end(self) -> None:
        """After the last look: tell of jobs that were stopped and did not say so."""
        stop = self._stop.signal
        for number, job in list(self._open.items()):
            if stop is not None and number in self._seen:
                self._close(number, Outcome(job.folder, job.summaries(), stop))
        self._standing.not_begun, self._standing.stopped = len(self._open), self._stopped
        self._running(Look())
        if self._disk_error is not None:
            raise self._disk_error
        if stop is not None and not self._stopped:
            raise KeyboardInterrupt(stop)


def _finished(job: Job) -> bool:
    """Damage that leaves it open is the job's to tell."""
    try:
        return not job.config.overwrite and job.finished()
    except CheckpointError:
        return False


def _launcher(
    options: LauncherOptions, jobs: Sequence[Job], name: str, sweep: Sweep, stop: StopFlag
) -> AbstractContextManager[Launcher]:
    if options.name == "slurm":
        from rnnlstm.jobs.slurm import Slurm

        return Slurm(jobs, name)
    if options.name == "ray":
        from rnnlstm.jobs.ray import Ray

        return Ray(jobs, name)
    from rnnlstm.jobs.local import Local

    return Local(jobs, stop, sweep.most if sweep.in_turn and sweep.shown else None)


def _train_here(jobs: Sequence[Job], listener: Listener, stop: StopFlag, more: Callable[[], Sequence[Job]]) -> None:
    """One job after another in this process."""
    from rnnlstm.training.loop import train_run
    from rnnlstm.training.plan import make_plan

    left = list(jobs)
    for number, job in enumerate(left):  # grows meanwhile
        if stop.signal is not None:
            raise KeyboardInterrupt(stop.signal)
        listener.started(number, job)
        ending: Ending
        try:
            ending = train_run(make_plan(job.config), job.folder, listener.progress(job), job.command)
        except DiskError:
            raise
        except Exception as error:
            if len(left) > 1:
                mark_failed(job, error)
            ending = error
        listener.ended(number, job, ending)
        if isinstance(ending, Outcome) and ending.stopped_by is not None:
            return
        left += more()
    if stop.signal is not None:  # it came while the last job ended
        raise KeyboardInterrupt(stop.signal)
