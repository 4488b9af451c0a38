"""What a command is told of its jobs while they train."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.config.untrusted import read_regular
from rnnlstm.jobs.job import Job
from rnnlstm.record.folders import METRICS, seed_folder
from rnnlstm.training.signals import Outcome

if TYPE_CHECKING:
    from rnnlstm.training.progress import Progress

TAIL = 65_536  # bytes at the end of a record in which its last step is looked for
MOST_SEEDS = 8  # of a job, and as many running jobs, are read for the time left


class Listener:
    """Is told what becomes of a command's jobs. Each method does nothing until a subclass overrides it.

    A job's number counts from 0 in the order of the command.
    """

    shown: bool = True  #: whether a job in a process of its own shows its progress

    def planned(self, jobs: int, search: bool) -> None:
        """The configuration is checked: so many jobs follow, or at most so many trials of a search."""

    def note(self, line: str) -> None:
        """A launcher has something to say: what it submitted, why jobs wait."""

    def started(self, number: int, job: Job) -> None:
        """Training of a job starts. With a launcher, this is called just before `ended`."""

    def progress(self, job: Job) -> Progress:
        """Shows the progress of a job that trains in this process."""
        from rnnlstm.training.progress import Progress

        return Progress()

    def watching(self, standing: Standing) -> None:
        """A sweep on a launcher reports its state, a few times a second."""

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        """A job ended, or failed with an exception. Raising that exception here ends the command."""


class Standing:
    """How a sweep stands: jobs that ended, run and wait, and the time left. Of `total` jobs, `before` were finished
    before it began."""

    def __init__(self, total: int, before: int = 0) -> None:
        self.total, self.before, self.ended = total, before, before
        self.stopped = self.not_begun = 0  #: once the sweep has been told to stop
        self.running: dict[int, Job] = {}
        self.waiting: Mapping[str, int] = {}
        self._started = self._looked = time.monotonic()
        self._progress = 0.0  # in jobs

    def look(self, ended: int, running: dict[int, Job], waiting: Mapping[str, int], every: float = 2.0) -> Standing:
        """`every`: seconds between reading records back."""
        self.ended, self.running, self.waiting = ended, running, waiting
        now = time.monotonic()
        if now - self._looked > every:
            self._looked = now
            parts = [_part(job) for _, job in zip(range(MOST_SEEDS), running.values(), strict=False)]
            mean = sum(parts) / len(parts) if parts else 0.0
            self._progress = self.ended - self.before + mean * len(running)
        return self

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before anything has been done."""
        if not self._progress:
            return None
        return (self._looked - self._started) * (self.total - self.before - self._progress) / self._progress


def _part(job: Job) -> float:
    """The share of its updates that a running job has made; one that solves its task ends earlier."""
    steps = [_last_step(seed_folder(job.folder, seed) / METRICS) for seed in job.config.seed_numbers[:MOST_SEEDS]]
    return min(max(steps, default=0) / job.config.train.steps, 1.0)


def _last_step(path: Path) -> int:
    """The step of a record's last whole line; 0 without one."""
    try:
        with read_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
