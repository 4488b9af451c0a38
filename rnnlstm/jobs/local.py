"""Jobs on this machine, each in its own process: one at a time with launcher=serial, several with launcher=local."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Self

from rnnlstm.config.schema import LocalOptions, cores
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.launcher import Look, Unit, most_threads
from rnnlstm.jobs.process import JobProcess
from rnnlstm.training.signals import StopFlag


class Local:
    """`total`: with launcher=serial, how many jobs there will be at most. Each job then shows its own progress."""

    pause = 0.2

    def __init__(self, jobs: Sequence[Job], stop: StopFlag, total: int | None) -> None:
        self._stop, self._total = stop, total
        self._waiting: deque[Unit] = deque()
        self._running: dict[int, tuple[JobProcess, Unit]] = {}  # with what is left of the unit
        self._stopping = False
        options = jobs[0].config.launcher
        self._threads, self._workers = options.threads, 1
        if isinstance(options, LocalOptions):
            self._workers = options.workers or max(1, cores() // most_threads(jobs))

    def __enter__(self) -> Self:
        self._left = ExitStack()
        self._left.enter_context(self._stop.passed_on_to(self._send))
        return self

    def __exit__(self, *_: object) -> None:
        for process, _unit in self._running.values():
            process.close()
        self._left.close()

    def submit(self, units: Sequence[Unit]) -> None:
        self._waiting += units

    def leave(self) -> None:
        """Nobody else would watch over the jobs."""

    def look(self, seconds: float) -> Look:
        if self._start():  # told at once: a job may soon write on the same terminal
            seconds = 0.0
        processes = [process for process, _ in self._running.values()]
        limits = [process.seconds_left for process in processes if process.seconds_left is not None]
        wait([handle for process in processes for handle in process.handles], min([seconds, *limits]))
        look = Look()
        for number, (process, unit) in list(self._running.items()):
            ending = process.ending()
            look.notes += process.notes
            process.notes.clear()
            if ending is not None:
                look.ended.append((number, ending))
                del self._running[number]
                if unit.jobs:
                    self._waiting.appendleft(unit)
        look.running = list(self._running)
        look.settled = self._stopping and not self._running
        return look

    def stop(self, number: signal.Signals) -> None:
        if not self._stopping:  # it isn't by a signal, which was passed on when it came
            self._send(number)

    def _start(self) -> bool:
        """Whether a job was started."""
        waiting = len(self._waiting)
        while self._waiting and len(self._running) < self._workers and not self._stopping:
            unit = self._waiting.popleft()
            (number, job), *others = unit.jobs
            job = replace(job, config=replace(job.config, threads=job.config.threads or self._threads))
            several = self._total is not None and self._total > 1
            count = f"[{number + 1}/{self._total}] " if several else None if self._total is None else ""
            process = JobProcess(job, job.config.job_timeout, count, quiet=count is None)
            self._running[number] = process, replace(unit, jobs=tuple(others))
            if self._stopping and not process.told:  # the signal came while the process was started
                process.send(self._stop.signal or signal.SIGTERM)
        return len(self._waiting) < waiting

    def _send(self, number: int) -> None:
        self._stopping = True
        for process, _unit in list(self._running.values()):
            process.send(number)
