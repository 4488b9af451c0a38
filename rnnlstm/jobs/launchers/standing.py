"""How a whole sweep stands, read off its run folders: done, running, failed, and how long it will still take."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rnnlstm.jobs.job import Job
from rnnlstm.record.folders import METRICS, seed_folder

TAIL = 65_536  # bytes at the end of a record in which its last step is looked for


class Standing:
    """`total` jobs, of which some were finished before the sweep began. Looked at a few times a second."""

    def __init__(self, jobs: Sequence[Job], sent: Mapping[int, Job]) -> None:
        self.total, self._jobs, self._sent = len(jobs), jobs, len(sent)
        self.ended = self.total - self._sent
        self.running = 0
        self._started, self._looked = time.monotonic(), 0.0
        self._progress = 0.0  # in jobs, of those that were sent

    def look(self, open: Collection[int], begun: set[int]) -> Standing:
        self.ended = self.total - len(open)
        running = [number for number in begun if number in open]
        self.running = len(running)
        now = time.monotonic()
        if now - self._looked > 2:  # records are read back for this
            self._looked = now
            parts = [self._part(self._jobs[number]) for number in running]
            self._progress = self._sent - len(open) + sum(parts)
        return self

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before anything has been done."""
        if not self._progress:
            return None
        return (self._looked - self._started) * (self._sent - self._progress) / self._progress

    @staticmethod
    def _part(job: Job) -> float:
        """The share of its updates that a running job has made; one that solves its task ends earlier."""
        steps = [_last_step(seed_folder(job.folder, seed) / METRICS) for seed in job.config.seed_numbers[:8]]
        return min(max(steps, default=0) / job.config.train.steps, 1.0)


def _last_step(path: Path) -> int:
    """The step of a record's last whole line; 0 without one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
