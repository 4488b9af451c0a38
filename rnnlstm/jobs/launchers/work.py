"""What a launcher carries to where jobs run: a few jobs that share a run folder, trained one after another."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import JobError
from rnnlstm.config.schema import read_config
from rnnlstm.jobs.failures import mark_failed
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.launchers.letterbox import Letter, Letterbox
from rnnlstm.jobs.process import train_apart, train_here, warm_up
from rnnlstm.training.signals import Outcome, StopFlag

LOOK_EVERY = 0.5  # seconds


def packed(jobs: Sequence[tuple[int, Job]]) -> str:
    """Numbered jobs as one word of letters, digits, - and _, which no command line or grammar minds."""
    plain = [[number, dict(job.config.tree), str(job.folder.absolute())] for number, job in jobs]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _unpacked(word: str) -> list[tuple[int, Job]]:
    """Raises: ConfigError."""
    plain = json.loads(base64.urlsafe_b64decode(word + "=" * (-len(word) % 4)))
    return [(number, Job(read_config(tree), Path(folder))) for number, tree, folder in plain]


@dataclass(frozen=True)
class Work:
    """Hydra's task function. It never raises: one job's failure would hide the others'.

    `apart`: each job in a process of its own, so that what happens to it can't break a pool of workers. A Slurm job
    is a process of its own already, the one that Slurm's signals go to.
    """

    letterbox: str
    apart: bool
    threads: int
    path: tuple[str, ...]  #: where the command looks for modules

    def __call__(self, config: Any) -> None:
        sys.path += [entry for entry in self.path if entry not in sys.path]
        box = Letterbox(Path(self.letterbox))
        for number, job in _unpacked(config.jobs):
            if box.asked_to_stop() is None and box.letter(str(number)) is None:
                self._do(box, str(number), job)

    def _do(self, box: Letterbox, name: str, job: Job) -> None:
        again = name in box.begun()  # requeued
        config = replace(job.config, overwrite=job.config.overwrite and not again)
        job = Job(replace(config, threads=config.threads or self.threads), job.folder)
        try:
            box.begin(name)
            ending = self._apart(box, job) if self.apart else train_here(job)
            if ending.stopped_by is not None and not self.apart and box.asked_to_stop() is None:
                _leave_to_slurm(job, ending.stopped_by)
                return
            letter = Letter.of(ending)
        except Exception as error:
            with suppress(Exception):
                mark_failed(job, error)
            letter = Letter.of(error)
        with suppress(OSError):  # then the run folder alone tells
            box.post(name, letter)

    def _apart(self, box: Letterbox, job: Job) -> Outcome:
        multiprocessing.set_start_method("forkserver", force=True)  # joblib's own is unknown in a new process
        warm_up()
        with StopFlag() as stop, _following(box):
            return train_apart(job, stop, job.config.job_timeout)


def _leave_to_slurm(job: Job, stopped_by: signal.Signals) -> None:
    """The job is saved. USR2 goes on to submitit, which has it queued again and ends this process; or raises, if it
    has been queued too often. After TERM Slurm ends it; whether for ever is seen in its queue.

    Raises: JobError.
    """
    if stopped_by != signal.SIGUSR2:
        return
    try:
        os.kill(os.getpid(), stopped_by)  # to the handler that was there before training
    except Exception:
        limit = job.config.launcher
        often = f"launcher.timeout_minutes={getattr(limit, 'timeout_minutes', '?')}"
        often += f" and launcher.max_requeues={getattr(limit, 'max_requeues', '?')}"
        raise JobError(f"not finished within {often} (saved; the same command resumes it)") from None


@contextmanager
def _following(box: Letterbox) -> Iterator[None]:
    """Within this, the job is told to stop once the box says so, or once the process that started us has gone."""
    ended, parent, me = threading.Event(), os.getppid(), threading.main_thread().ident

    def follow() -> None:
        while not ended.wait(LOOK_EVERY):
            told = box.asked_to_stop() or (signal.SIGTERM if os.getppid() != parent else None)
            if told is not None and me is not None:
                signal.pthread_kill(me, told)
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
