"""What becomes of jobs in Slurm's queue, as far as can be known without accounting: a cancelled one has left it.

submitit asks `sacct` whether a job still lives; where there is none it waits for ever.
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

SUBMITTED = re.compile(r"(\d+)(?:_(\d+))?_submitted\.pkl", re.ASCII)  # a file of submitit's for each job
LOOK_EVERY = 3.0  # seconds between questions to Slurm
#: Seconds after which a job that has left the queue will send no letter any more; shared folders show files late.
PATIENCE = 10.0


class Queue:
    """The jobs of a sweep in Slurm's queue, by their place in the sweep."""

    def __init__(self, folder: Path, batch: int) -> None:
        self._folder, self._batch = folder, batch
        self._looked = 0.0
        self._absent: dict[int, float] = {}  # since when a job has not been in the queue

    def jobs(self) -> dict[int, str]:
        """Slurm's number of each job that has been submitted."""
        found = {}
        for path in self._folder.glob("*/*_submitted.pkl"):
            if match := SUBMITTED.fullmatch(path.name):
                place = int(path.parent.name) * self._batch + int(match[2] or 0)
                found[place] = path.name.removesuffix("_submitted.pkl")
        return found

    def gone(self) -> set[int]:
        """Jobs that have left the queue for good, and long enough ago that their letter would be here."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            jobs = self.jobs()
            if jobs and (queued := _queued(jobs.values())) is not None:
                absent = [place for place, number in jobs.items() if number not in queued]
                self._absent = {place: self._absent.get(place, now) for place in absent}
        return {place for place, since in self._absent.items() if now - since >= PATIENCE}

    def cancel(self) -> None:
        """Those that wait go, those that run are told to stop (TERM) and killed after Slurm's KillWait."""
        arrays = {number.partition("_")[0] for number in self.jobs().values()}
        if arrays:
            _ask("scancel", *sorted(arrays))

    def log(self, place: int) -> str:
        """Where a job's output is."""
        number = self.jobs().get(place)
        return str(self._folder / str(place // self._batch) / f"{number}_0_log.err") if number else ""


def _queued(numbers: object) -> set[str] | None:
    """Which jobs are in the queue in any state but ended; None if Slurm can't be asked now."""
    arrays = sorted({str(number).partition("_")[0] for number in numbers})  # type: ignore[attr-defined]
    done = _ask("squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(arrays)}")
    if done is None:
        return None
    if done.returncode == 0:
        return set(done.stdout.split())
    return set() if "Invalid job id" in done.stderr else None  # forgotten by Slurm


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
