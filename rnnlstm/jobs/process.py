"""A job in its own process: a job that exits, is killed, hangs or runs out of memory does not harm the others.

Processes are forked from a server that has only imported torch (multiprocessing's forkserver). A job costs a fork
instead of an import, and inherits no thread pool, random state or open file from another job.
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
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import TYPE_CHECKING, Any

from rnnlstm.config.errors import JobError
from rnnlstm.config.output import guard_output
from rnnlstm.jobs.failures import Failure
from rnnlstm.training.signals import SIGNALS, Outcome, StopFlag

if TYPE_CHECKING:
    from rnnlstm.jobs.job import Job

GRACE = 10.0  #: seconds that a job has to save and exit, after it was told to stop
#: What a job imports, including what torch's optimisers, NumPy and Pillow import only at first use.
PRELOADED = ("rnnlstm.config.plugins", "rnnlstm.training.loop", "torch._dynamo", "numpy.ma", "PIL.PngImagePlugin")


def warm_up() -> None:
    """Start the server, which imports in the background while the caller checks the jobs.

    The server and its children start with signals blocked: Ctrl-C in a terminal reaches every process of the command,
    and would end them with tracebacks. A job unblocks signals when it can handle them.
    """
    forkserver.set_forkserver_preload([*PRELOADED])
    resource_tracker.ensure_running()  # unblocks signals, so it must not start within the next lines
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with _no_main_module():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def own_server() -> Iterator[None]:
    """End the server that `warm_up` started inside: processes of the caller's would be forked from it, with signals
    blocked. A server that was running before is the caller's, and is used."""
    server: Any = forkserver._forkserver
    running, preloaded = server._forkserver_pid is not None, server._preload_modules
    try:
        yield
    finally:
        if not running:
            server._stop()
        server._preload_modules = preloaded


def train_apart(job: Job, stop: StopFlag, timeout: float | None = None, count: str = "") -> Outcome:
    """Train the job in its own process, to which `stop` passes signals on. `count` precedes its progress: `[2/6] `.

    Raises: what training raised, if it is one of `EXPECTED`; JobError for any other failure, for a process that ended
    without a result, and after `timeout` seconds.
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
    answer = _received(process, reader, timeout)
    late = answer is None and process.is_alive()
    if late:  # the job may still save
        process.terminate()
        answer = _received(process, reader, GRACE)
    if late:
        saved = isinstance(answer, Outcome)
        if saved and answer.stopped_by is None:  # type: ignore[union-attr]
            return answer  # type: ignore[return-value]
        how = "saved; the same command resumes it" if saved else f"it hung: no answer in {GRACE:g} s, killed"
        raise JobError(f"not finished after job_timeout={timeout:g} s ({how})")
    process.join(GRACE)  # a thread of the job may still run
    if isinstance(answer, Outcome):
        return answer
    if isinstance(answer, Failure):
        raise answer.error()
    if stop.signal is not None:  # the third signal killed it
        return Outcome(job.folder, [], stop.signal)
    raise JobError(_exit_reason(process.exitcode))


def _received(process: ForkServerProcess, reader: Connection, seconds: float | None) -> Outcome | Failure | None:
    """What the process sends before it ends, or within so many seconds; None if it sends nothing."""
    ready = wait([reader, process.sentinel], seconds)
    try:
        return reader.recv() if reader in ready or reader.poll() else None
    except EOFError:
        process.join(GRACE)
        return None


def _exit_reason(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"its process was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    return f"its process exited with code {code} before the run had ended"


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the program's main module, which a new process would import first.

    A user's script without `if __name__ == "__main__"` would start its sweep again in each job.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _train(job: Job, writer: Connection, timeout: float | None, count: str) -> None:
    """Runs in the new process."""
    guard_output()
    os.setpgid(0, 0)  # a terminal sends Ctrl-C to the waiting process alone, which passes it on
    threading.Thread(target=_follow_parent, daemon=True).start()
    faulthandler.enable()
    if timeout is not None:  # shows where the job hangs
        faulthandler.dump_traceback_later(timeout + 0.9 * GRACE, exit=False)
    try:
        with StopFlag() as stop:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            writer.send(train_here(job, count) if stop.signal is None else Outcome(job.folder, [], stop.signal))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        writer.send(Failure.of(error))
    finally:
        faulthandler.cancel_dump_traceback_later()


def train_here(job: Job, count: str = "") -> Outcome:
    """Train a job that another process composed: import its plugins first."""
    from rich.console import Console

    from rnnlstm.config.plugins import import_plugins
    from rnnlstm.training.loop import train_run
    from rnnlstm.training.plan import make_plan
    from rnnlstm.training.progress import progress_on

    import_plugins(job.config.plugins)
    progress = progress_on(Console(highlight=False), job.config, count)
    return train_run(make_plan(job.config), job.folder, progress)


def _follow_parent() -> None:
    """Save and exit when the waiting process has ended: nothing else would end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        os.kill(os.getpid(), number)
        time.sleep(GRACE)
