"""What is asked of a launcher, which is where jobs run: `local`, `slurm`, `ray`.

A launcher takes jobs, is looked at until each has ended, and can be told to stop them. How a job has ended is read
from its run folder; a launcher adds what no run folder can tell, such as why a process was lost.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rnnlstm.jobs.job import Job
from rnnlstm.training.signals import Outcome

Ending = Outcome | Exception


@dataclass(frozen=True)
class Unit:
    """Numbered jobs that share a run folder, as they differ in their seeds alone. They train in turn, since a folder
    has one writer."""

    number: int  #: of the first job of the command that has this folder, whether that one is left or has finished
    jobs: tuple[tuple[int, Job], ...]


def units_of(jobs: Sequence[Job], first: int, finished: Callable[[Job], bool]) -> list[Unit]:
    """The jobs from the number `first` on that have not finished, as units."""
    folders: dict[Path, list[tuple[int, Job]]] = {}
    for number, job in enumerate(jobs[first:], first):
        folders.setdefault(job.folder, []).append((number, job))
    left = ((unit[0][0], tuple(entry for entry in unit if not finished(entry[1]))) for unit in folders.values())
    return [Unit(number, unit) for number, unit in left if unit]


def most_threads(jobs: Sequence[Job]) -> int:
    """What the jobs ask for with `threads=`, at most; 1 if none does."""
    return max(job.config.threads or 1 for job in jobs)


class Launcher(Protocol):
    """Where jobs run: `local`, `slurm`, `ray`. As a context, it lets go of all it has started: what still runs is
    killed, unless it is a queue's."""

    pause: float  #: seconds that a look may take where nothing happens

    def submit(self, units: Sequence[Unit]) -> None:
        """Take further jobs. Raises: ConfigError if they can't be started."""

    def leave(self) -> list[str] | None:
        """Lines for the user, if the command is to end while its jobs wait and run; None if it waits for them."""

    def look(self, seconds: float) -> Look:
        """What has happened, at the latest after so many seconds."""

    def stop(self, number: signal.Signals) -> None:
        """Begin no job any more, and have those that run save and end."""


@dataclass
class Look:
    """What a launcher sees."""

    running: Collection[int] = ()  #: the jobs that train
    ended: list[tuple[int, Ending]] = field(default_factory=list)  #: since the last look
    waiting: Mapping[str, int] = field(default_factory=dict)  #: how many jobs are `waiting`, `requeued` or `held`
    notes: list[str] = field(default_factory=list)  #: lines for the user
    settled: bool = False  #: after a stop: no job runs any more
