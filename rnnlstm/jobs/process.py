"""A job in its own process: a job that exits, is killed, hangs or runs out of memory does not harm the others.

Processes are forked from a server that has only imported torch (multiprocessing's forkserver). A job costs a fork
instead of an import, and inherits no thread pool, random state or open file from another job.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnlstm.config.errors import JobError
from rnnlstm.config.output import guard_output
from rnnlstm.jobs.failures import Failure
from rnnlstm.training.progress import STARTS, Progress, progress_on
from rnnlstm.training.signals import SIGNALS, Outcome, StopFlag

if TYPE_CHECKING:
    from rnnlstm.jobs.job import Job

LOG = logging.getLogger("rnnlstm")

GRACE = 10.0  #: seconds that a job has to save and exit, after it was told to stop
OMP = "OMP_NUM_THREADS"
#: What a job imports, including what NumPy and Pillow import only at first use.
PRELOADED = ("rnnlstm.config.plugins", "rnnlstm.training.loop", "numpy.ma", "PIL.PngImagePlugin")


def warm_up(threads: int | None = None) -> None:
    """Start the server, which imports in the background while the caller checks the jobs. `threads` is told to
    libraries that ask the environment alone, once.

    The server and its children start with signals blocked: Ctrl-C in a terminal reaches every process of the command,
    and would end them with tracebacks. A job unblocks signals when it can handle them.
    """
    forkserver.set_forkserver_preload([*PRELOADED])
    resource_tracker.ensure_running()  # unblocks signals, so it must not start within the next lines
    given = OMP in os.environ or threads is None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        if not given:
            os.environ[OMP] = str(threads)
        with _no_main_module():
            forkserver.ensure_running()
    finally:
        if not given:
            del os.environ[OMP]
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


class JobProcess:
    """A job that trains in its own process, from `warm_up`'s server.

    `timeout` is the job's time limit in seconds. `count` precedes its progress: `[2/6] `; None: it shows no progress.
    `quiet`: what it would warn of on standard error is in `notes` instead.
    """

    def __init__(self, job: Job, timeout: float | None, count: str | None, quiet: bool = False) -> None:
        self.job, self._timeout = job, timeout
        self.notes: list[str] = []  #: lines for the user, `note: <folder>: …`
        context = multiprocessing.get_context("forkserver")
        self._reader, writer = context.Pipe(duplex=False)
        arguments = (job, writer, timeout, count, quiet, str(Path.cwd()), dict(os.environ))
        self._process = context.Process(target=_train, args=arguments)
        with _no_main_module():
            self._process.start()
        writer.close()
        self._ends = time.monotonic() + timeout if timeout is not None else None
        self._late = self._hung_up = False
        self._stopped: signal.Signals | None = None

    @property
    def handles(self) -> list[Any]:
        """What `multiprocessing.connection.wait` waits for: one of them is ready when `ending` has something new."""
        return [self._reader, self._process.sentinel]

    @property
    def seconds_left(self) -> float | None:
        """Until `ending` has to be asked again, even if no handle is ready; None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    @property
    def told(self) -> bool:
        """Whether a signal was passed on."""
        return self._stopped is not None

    def send(self, number: int) -> None:
        """Pass a signal on."""
        self._stopped = self._stopped or signal.Signals(number)
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, number)

    def ending(self) -> Outcome | Exception | None:
        """How the job has ended; None while it runs. Does not wait. After its time limit the job is told to save, and
        killed if it does not within `GRACE`.

        A failure is what training raised, if it is one of `EXPECTED`, and JobError otherwise: for any other error, a
        process that ended without a result, and a time limit.
        """
        answer = self._answer()
        ended = answer is not None or self._hung_up or not self._process.is_alive()
        if not ended and self.seconds_left == 0.0:
            if self._late:
                self._process.kill()
                ended = True
            else:
                self._process.terminate()
                self._late, self._ends = True, time.monotonic() + GRACE
        if not ended:
            return None
        self._process.join(GRACE)  # a thread of the job may still run
        found = self._result(answer or self._answer())
        self.close()
        return found

    def close(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self._reader.close()

    def _answer(self) -> Outcome | Failure | None:
        """What the process has sent; None if it has sent nothing."""
        try:
            while self._reader.poll():
                if not isinstance(said := self._reader.recv(), str):
                    return said
                self.notes.append(said)
            return None
        except (EOFError, OSError):
            self._hung_up = True
            return None

    def _result(self, answer: Outcome | Failure | None) -> Outcome | Exception:
        if self._late:
            saved = isinstance(answer, Outcome)
            if saved and answer.stopped_by is None:  # type: ignore[union-attr]
                return answer  # type: ignore[return-value]
            how = "saved; the same command resumes it" if saved else f"it hung: no answer in {GRACE:g} s, killed"
            return JobError(f"not finished after job_timeout={self._timeout:g} s ({how})")
        if isinstance(answer, Outcome):
            return answer
        if isinstance(answer, Failure):
            return answer.error()
        if self._stopped is not None:  # it was killed by the third signal, or before it could handle any
            return Outcome(self.job.folder, self.job.summaries(), self._stopped)
        return JobError(_exit_reason(self._process.exitcode))


def train_apart(job: Job, stop: StopFlag) -> Outcome | Exception:
    """Train one job in its own process, to which `stop` passes signals on, and wait for it."""
    process = JobProcess(job, job.config.job_timeout, None)
    with stop.passed_on_to(process.send):
        while (ending := process.ending()) is None:
            wait(process.handles, process.seconds_left)
    return ending


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


class _Notes(logging.Handler):
    """Sends warnings to the command, which has a progress line on the same terminal."""

    def __init__(self, writer: Connection) -> None:
        super().__init__(logging.WARNING)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._writer.send(f"note: {record.getMessage().replace(': note: ', ': ')}")


def _train(
    job: Job,
    writer: Connection,
    timeout: float | None,
    count: str | None,
    quiet: bool,
    place: str,
    variables: dict[str, str],
) -> None:
    """Runs in the new process."""
    os.chdir(place)
    os.environ.update(variables)  # the server may be older than what its starter was given, such as GPUs
    guard_output()
    os.setpgid(0, 0)  # a terminal sends Ctrl-C to the waiting process alone, which passes it on
    threading.Thread(target=_follow_parent, daemon=True).start()
    faulthandler.enable()
    notes = _Notes(writer)
    if quiet:
        LOG.addHandler(notes)
    if timeout is not None:  # shows where the job hangs
        faulthandler.dump_traceback_later(timeout + 0.9 * GRACE, exit=False)
    try:
        with StopFlag() as stop:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            ending = train_here(job, count) if stop.signal is None else Outcome(job.folder, [], stop.signal)
        LOG.removeHandler(notes)
        writer.send(ending)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        writer.send(Failure.of(error))
    finally:
        faulthandler.cancel_dump_traceback_later()


class _SaidOnly(Progress):
    """Says where a run resumes, and shows no progress."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def note(self, line: str) -> None:
        if not line.startswith(STARTS):
            LOG.warning("%s: %s", self._job.folder, line)


def train_here(job: Job, count: str | None = None) -> Outcome:
    """Train a job that another process composed: import its plugins first."""
    from rich.console import Console

    from rnnlstm.config.plugins import import_plugins
    from rnnlstm.training.loop import train_run
    from rnnlstm.training.plan import make_plan

    import_plugins(job.config.plugins)
    progress = _SaidOnly(job) if count is None else progress_on(Console(highlight=False), job.config, count)
    return train_run(make_plan(job.config), job.folder, progress, job.command)


def _follow_parent() -> None:
    """Save and exit when the waiting process has ended: nothing else would end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        os.kill(os.getpid(), number)
        time.sleep(GRACE)
