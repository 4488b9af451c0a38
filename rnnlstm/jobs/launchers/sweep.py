"""A sweep on a launcher, seen from the command: it has it started, watches the letterbox, and tells what happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rnnlstm.config.errors import CheckpointError, ConfigError, DiskError, JobError, OptionError, writing
from rnnlstm.config.schema import LauncherOptions, SlurmOptions
from rnnlstm.jobs.failures import mark_failed
from rnnlstm.jobs.job import Job, Listener, Standing
from rnnlstm.jobs.launchers.engines import environment, plugin_values, require_engine
from rnnlstm.jobs.launchers.letterbox import Letter, Letterbox
from rnnlstm.jobs.launchers.slurm import Queue
from rnnlstm.jobs.launchers.work import packed
from rnnlstm.training.signals import Outcome, StopFlag

LOOK_EVERY = 0.2  # seconds
GRACE = 60.0  #: seconds that jobs have to save once they have been told to stop


def check_launcher(jobs: Sequence[Job]) -> LauncherOptions:
    """The one launcher of all jobs. Raises: ConfigError if it can't be used here."""
    launcher = jobs[0].config.launcher
    if launcher.name == "serial":
        return launcher
    require_engine(launcher)
    root = str(Path(jobs[0].config.runs_root).expanduser().absolute())
    if any(c in root for c in "$'\\"):
        raise OptionError("runs_root", root, "a folder's name with $, \\ or ' can't be used with a launcher")
    if launcher.name == "slurm" and any(job.config.job_timeout is not None for job in jobs):
        rule = "with launcher=slurm the time limit is launcher.timeout_minutes"
        raise OptionError("job_timeout", jobs[0].config.job_timeout, rule)
    return launcher


@dataclass
class Sweep:
    """The jobs that are still to be told of, by number, and what is known of them."""

    jobs: Sequence[Job]
    listener: Listener
    open: dict[int, Job] = field(default_factory=dict)

    def close(self, number: int, ending: Outcome | Exception) -> None:
        job = self.open.pop(number)
        self.listener.started(number, job)
        self.listener.ended(number, job, ending)


def train_elsewhere(jobs: Sequence[Job], launcher: LauncherOptions, listener: Listener) -> None:
    """Train all jobs on a launcher. Jobs that have finished already are not sent anywhere.

    Raises: ConfigError if nothing could be started; DiskError; KeyboardInterrupt at a second signal.
    """
    left = {number: job for number, job in enumerate(jobs) if not _finished(job)}
    for number, job in enumerate(jobs):
        if number not in left:
            listener.started(number, job)
            listener.ended(number, job, Outcome(job.folder, job.summaries(), trained=False))
    if not left:
        return
    units = _units(left)
    with writing(f"to {jobs[0].config.runs_root}"):
        box = Letterbox.new(Path(jobs[0].config.runs_root).expanduser())
    sweep = Sweep(jobs, listener, dict(left))
    try:
        with StopFlag() as stop, _Bridge(box, launcher, jobs, units) as bridge:
            _watch(sweep, box, bridge, stop, Standing(jobs, left))
    finally:
        if not (launcher.name == "slurm" and bridge.keep):
            box.remove()
    if bridge.disk_error is not None:
        raise bridge.disk_error


class _Bridge:
    """The bridge's process, as a context; and how it stands with units of jobs that have sent no letter."""

    def __init__(
        self, box: Letterbox, launcher: LauncherOptions, jobs: Sequence[Job], units: list[list[tuple[int, Job]]]
    ) -> None:
        self.box, self.launcher, self.units = box, launcher, units
        self.keep = False  # what Slurm has written
        self._patience = GRACE
        self.disk_error: DiskError | None = None
        batch = launcher.array_size if isinstance(launcher, SlurmOptions) else len(units)
        self.queue = Queue(box.folder / "slurm", batch) if launcher.name == "slurm" else None
        asked = max((job.config.threads or 0) for unit in units for _, job in unit)
        threads = asked or launcher.threads or 1
        self._request = {
            "letterbox": str(box.folder),
            "launcher": launcher.name,
            "values": plugin_values(launcher, threads, box.folder, len(units)),
            "units": [packed(unit) for unit in units],
            "batch": batch,
            "work": {
                "letterbox": str(box.folder),
                "apart": launcher.name != "slurm",
                "threads": launcher.threads or 1,
                "path": [str(Path(entry).absolute()) for entry in sys.path],
            },
        }

    def __enter__(self) -> Self:
        quiet = self.launcher.name != "local"  # where the jobs' own warnings come through, and nothing else
        self._log = (self.box.folder / "launcher.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rnnlstm.jobs.launchers.bridge"],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log if quiet else None,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the command alone, which has the jobs told
            env={**os.environ, **environment(self.launcher, os.environ)},
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(self._request) + "\n")
            self._process.stdin.flush()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with suppress(subprocess.TimeoutExpired):  # once told of, a job still has to end
            if kind is None:
                self._process.wait(self._patience)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._log.close()

    def stop(self, number: signal.Signals) -> None:
        self._patience = 5
        self.box.ask_to_stop(number)
        if self.queue is not None:
            self.queue.cancel()

    def lost(self) -> set[int]:
        """Numbers of jobs from which no letter will come any more."""
        if self._process.poll() is not None:
            return {number for unit in self.units for number, _ in unit}
        if self.queue is None:
            return set()
        return {number for place in self.queue.gone() for number, _ in self.units[place]}

    def dies(self) -> bool:
        """Whether its process has ended, or does within a moment: its jobs may have noticed before it is gone."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LOOK_EVERY)
        return self._process.returncode is not None

    def reason(self, number: int) -> str:
        """Why a job was lost."""
        letter = self.box.letter("launcher")
        if letter is not None and letter.failure is not None:
            return f"{letter.failure.kind}: {letter.failure.message}"
        if self.queue is None:
            return "its worker ended without a word"
        self.keep, self._patience = True, 5  # submitit would wait for it for ever
        (place,) = (p for p, unit in enumerate(self.units) for n, _ in unit if n == number)
        return f"its Slurm job was cancelled, or ended without a word (see {self.queue.log(place)})"


def _watch(sweep: Sweep, box: Letterbox, bridge: _Bridge, stop: StopFlag, standing: Standing) -> None:
    told: float | None = None
    while sweep.open:
        lost = bridge.lost()  # asked before the letters, so that none is overlooked
        for name in sorted(box.posted(), key=lambda name: (len(name), name)):
            if name.isdecimal() and int(name) in sweep.open and (letter := box.letter(name)) is not None:
                _read(sweep, int(name), letter, bridge, stop)
        begun = {int(name) for name in box.begun()}
        if lost and not begun and told is None and len(lost & set(sweep.open)) == len(sweep.jobs):
            reason = bridge.reason(min(lost))
            raise ConfigError(f"launcher={bridge.launcher.name}: nothing could be started: {reason}")
        for number in sorted(lost & set(sweep.open)):
            _lose(sweep, number, bridge, stop, number in begun)
        if told is None and (stop.signal is not None or bridge.disk_error is not None):
            told = time.monotonic()
            bridge.stop(stop.signal or signal.SIGTERM)
        if told is not None and time.monotonic() - told > GRACE:
            for number in sorted(sweep.open):
                _lose(sweep, number, bridge, stop, number in begun)
        sweep.listener.watching(standing.look(sweep.open, begun))
        if sweep.open:
            time.sleep(LOOK_EVERY)


def _read(sweep: Sweep, number: int, letter: Letter, bridge: _Bridge, stop: StopFlag) -> None:
    if letter.failure is None:
        job = sweep.open[number]
        stopped = signal.Signals[letter.stopped_by] if letter.stopped_by else None
        if stopped and stop.signal is None and bridge.dies():  # then it was by that, and not by anyone's wish
            _lose(sweep, number, bridge, stop, begun=True)
            return
        stopped = stopped and (stop.signal or stopped)  # Slurm makes a TERM of every signal
        sweep.close(number, Outcome(job.folder, job.summaries(), stopped, letter.trained))
        return
    error = letter.failure.error()
    if isinstance(error, DiskError):
        bridge.disk_error = bridge.disk_error or error
    sweep.close(number, error)


def _lose(sweep: Sweep, number: int, bridge: _Bridge, stop: StopFlag, begun: bool) -> None:
    """A job that will send no letter: its status is what its folder says, or else `failed`."""
    job = sweep.open[number]
    if stop.signal is not None:
        if begun:
            sweep.close(number, Outcome(job.folder, job.summaries(), stop.signal))
        else:
            del sweep.open[number]
        return
    error = JobError(bridge.reason(number))
    if not any(summary.get("status") == "interrupted" for summary in job.summaries()):
        mark_failed(job, error)
    sweep.close(number, error)


def _finished(job: Job) -> bool:
    """Damage that leaves it open is the job's to tell."""
    try:
        return not job.config.overwrite and job.finished()
    except CheckpointError:
        return False


def _units(jobs: dict[int, Job]) -> list[list[tuple[int, Job]]]:
    """Jobs that share a run folder, which differ in their seeds alone, stay together: one writer for a folder."""
    units: dict[Path, list[tuple[int, Job]]] = {}
    for number, job in jobs.items():
        units.setdefault(job.folder, []).append((number, job))
    return list(units.values())
