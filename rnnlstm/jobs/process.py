"""A job in a process of its own: one that exits, is killed, hangs or runs out of memory ends alone.

Processes are forked from a server that has imported torch once, and nothing else (multiprocessing's forkserver): a
job costs a fork instead of an import, and finds no thread pool, random state or half-closed file of another job.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import TYPE_CHECKING

from rnnlstm.config.errors import JobError
from rnnlstm.jobs.failures import Failure
from rnnlstm.training.signals import Outcome, StopFlag

if TYPE_CHECKING:
    from rnnlstm.jobs.job import Job

GRACE = 10.0  #: seconds that a job has to save and go, once it has been told to
#: What a job imports, also what torch's optimisers, NumPy and Pillow import only when they are first used.
PRELOADED = ("rnnlstm.config.plugins", "rnnlstm.training.loop", "torch._dynamo", "numpy.ma", "PIL.PngImagePlugin")


def warm_up() -> None:
    """Start the server, which imports in the background while the caller composes and checks."""
    forkserver.set_forkserver_preload([*PRELOADED])
    with _no_main_module():
        forkserver.ensure_running()


def train_apart(job: Job, stop: StopFlag, timeout: float | None = None, count: str = "") -> Outcome:
    """Train the job in a process, to which `stop` passes signals on; `count` stands before its progress: `[2/6] `.

    Raises: what training raised, if it is one of `EXPECTED`; else JobError, also for a process that ended without
    a word, or after `timeout` seconds.
    """
    context = multiprocessing.get_context("forkserver")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(job, writer, timeout, count))
    with _no_main_module():
        process.start()
    writer.close()
    try:
        with stop.passed_on_to(process.pid):
            return _result(job, process, reader, stop, timeout)
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()
        reader.close()


def _result(
    job: Job, process: ForkServerProcess, reader: Connection, stop: StopFlag, timeout: float | None
) -> Outcome:
    found = _received(process, reader, timeout)
    late = found is None and process.is_alive()
    if late:  # it may still save
        process.terminate()
        found = _received(process, reader, GRACE)
    if late:
        saved = isinstance(found, Outcome)
        if saved and found.stopped_by is None:  # type: ignore[union-attr]
            return found  # type: ignore[return-value]
        how = "saved; the same command goes on" if saved else f"it hung: no answer in {GRACE:g} s, killed"
        raise JobError(f"not finished after job_timeout={timeout:g} s ({how})")
    process.join(GRACE)  # a thread that the job left may keep it
    if isinstance(found, Outcome):
        return found
    if isinstance(found, Failure):
        raise found.error()
    if stop.signal is not None:  # before it could listen to signals, or as it was told so three times
        return Outcome(job.folder, [], stop.signal)
    raise JobError(_last_words(process.exitcode))


def _received(process: ForkServerProcess, reader: Connection, seconds: float | None) -> Outcome | Failure | None:
    """What the process sends before it ends, or within so many seconds; None if nothing comes."""
    ready = wait([reader, process.sentinel], seconds)
    try:
        return reader.recv() if reader in ready or reader.poll() else None
    except EOFError:
        process.join(GRACE)
        return None


def _last_words(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"its process was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"its process exited with code {code} before the run had ended"


@contextmanager
def _no_main_module() -> Iterator[None]:
    """A new process would first import the program's main module, to find its classes. Here nothing is in it, and a
    user's script that isn't guarded by `if __name__ == "__main__"` would start its sweep again in each job."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _train(job: Job, writer: Connection, timeout: float | None, count: str) -> None:
    """In the new process."""
    os.setpgid(0, 0)  # Ctrl-C goes to the waiting process alone, which passes it on
    threading.Thread(target=_follow_parent, daemon=True).start()
    faulthandler.enable()
    if timeout is not None:  # where does it hang?
        faulthandler.dump_traceback_later(timeout + 0.9 * GRACE, exit=False)
    try:
        writer.send(train_here(job, count))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        writer.send(Failure.of(error))
    finally:
        faulthandler.cancel_dump_traceback_later()


def train_here(job: Job, count: str = "") -> Outcome:
    """Train a job that was composed in another process: here its plugins have still to be imported."""
    from rich.console import Console

    from rnnlstm.config.plugins import import_plugins
    from rnnlstm.training.loop import train_run
    from rnnlstm.training.plan import make_plan
    from rnnlstm.training.progress import progress_on

    import_plugins(job.config.plugins)
    progress = progress_on(Console(highlight=False), job.config, count)
    return train_run(make_plan(job.config), job.folder, progress)


def _follow_parent() -> None:
    """Once the waiting process has gone, however it went: save and go, or nobody would ever end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        os.kill(os.getpid(), number)
        time.sleep(GRACE)
