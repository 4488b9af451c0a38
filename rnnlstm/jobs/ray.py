"""Jobs as tasks of a Ray cluster: one that is there, or one of this machine for one sweep.

A task has its job train in a process of its own, so that what happens to the job does not end Ray's worker. A task
whose machine is lost is sent once more. Needs a file system that all machines share.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from rnnlstm.config.errors import BusyError, ConfigError, JobError, LostError, writing
from rnnlstm.config.schema import RayOptions, cores
from rnnlstm.jobs.failures import Failure, failure_reason
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.launcher import Ending, Look, Unit, most_threads
from rnnlstm.jobs.sweep_folder import BEGUN, SweepFolder, search_path
from rnnlstm.training.signals import SIGNALS, Outcome, StopFlag

ANSWER_SECONDS = 15.0  # within which somebody at an address must answer
CONNECT_SECONDS = 90.0  # within which a cluster that answered must take the command in; a busy one needs over 15
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
BUSY_SECONDS = 30.0  # for which a job that was sent again waits until its lost turn has let go of the folder
LOOK_EVERY = 1.0  # seconds between looks at whether the sweep was stopped, on a worker


def require_ray() -> None:
    """Raises: ConfigError if Ray is not installed."""
    try:
        importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError("launcher=ray needs pip install 'rnnlstm[ray]'") from None


class Ray:
    """The units of a command as tasks of Ray's, seen from the command. `name` is a search's."""

    pause = 0.5

    def __init__(self, jobs: Sequence[Job], name: str = "") -> None:
        options = jobs[0].config.launcher
        assert isinstance(options, RayOptions)
        self._options, self._threads = options, most_threads(jobs)
        self.folder = SweepFolder.of(jobs, name)
        self._tasks: dict[Any, Unit] = {}  # by Ray's reference to the result
        self._begun: set[int] = set()
        self._again: set[int] = set()  # units that were sent a second time
        self._notes: list[str] = []
        self._stopping = False

    def __enter__(self) -> Self:
        with ExitStack() as held:
            self._connect(held)
            held.enter_context(self.folder.held())
            held.callback(self.folder.remove)
            self._held = held.pop_all()
        import ray

        variables = {
            "PYTHONPATH": search_path(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(self._cpus)),
        }
        self._train = ray.remote(
            num_cpus=self._cpus, num_gpus=self._options.gpus, max_retries=0, runtime_env={"env_vars": variables}
        )(_train_unit)
        self._notes += _no_room(self._cpus, self._options.gpus)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _connect(self, held: ExitStack) -> None:
        """Reach the cluster, or start one; `held` ends that, and takes back what it needed. Raises: ConfigError."""
        variables = _variables(local=self._options.address is None)
        for key in variables:
            held.callback(os.environ.pop, key, None)
        os.environ.update(variables)
        before = {number: signal.getsignal(number) for number in SIGNALS}
        _connect(self._options, self._cpus)
        held.callback(_disconnect)  # only then: Ray's shutdown waits for a connection that is still being tried
        for number, handler in before.items():  # Ray puts a handler of its own in place
            signal.signal(number, handler)
        import ray

        with suppress(AttributeError):  # what Ray's machines tell of each other's end, in many lines
            ray._private.worker.print_to_stdstream = lambda *_, **__: None

    @property
    def _cpus(self) -> int:
        return max(self._options.cpus, self._threads)

    def submit(self, units: Sequence[Unit]) -> None:
        with writing(f"to {self.folder.path}"):
            self.folder.begin(units)
        for unit in units:
            self._send(unit)

    def _send(self, unit: Unit) -> None:
        self._tasks[
            self._train.remote(str(self.folder.path), str(Path.cwd()), unit.number, unit.number in self._again)
        ] = unit

    def leave(self) -> None:
        """Nobody else would watch over the jobs."""

    def look(self, seconds: float) -> Look:
        import ray

        done, _waiting = ray.wait(list(self._tasks), timeout=seconds, num_returns=1) if self._tasks else ([], [])
        if not self._tasks:
            time.sleep(seconds)
        look = Look()
        for number, word in self.folder.news():
            if word == BEGUN:
                self._begun.add(number)
        for reference in done:
            unit = self._tasks.pop(reference)
            try:
                endings = dict(ray.get(reference))
            except ray.exceptions.TaskCancelledError:  # before it began
                continue
            except ray.exceptions.RayTaskError as error:
                look.ended += [(number, self._read(job, error)) for number, job in unit.jobs]
            except ray.exceptions.RayError as error:  # its worker, or its machine, is gone
                reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
                if unit.number not in self._again and not self._stopping:
                    self._again.add(unit.number)
                    self._begun.discard(unit.number)
                    self._notes.append(f"{unit.jobs[0][1].folder}: its worker was lost ({reason}); sent again")
                    self._send(unit)
                else:
                    look.ended += [
                        (number, LostError(f"its worker was lost twice: {reason}")) for number, _ in unit.jobs
                    ]
            else:
                for number, job in unit.jobs:
                    ending = endings.get(number)
                    look.ended.append(
                        (number, ending.error() if isinstance(ending, Failure) else ending or self._read(job))
                    )
        states = {unit.number: unit for unit in self._tasks.values()}
        look.running = [number for unit in states.values() if unit.number in self._begun for number, _ in unit.jobs]
        look.waiting = {"waiting": sum(len(unit.jobs) for unit in states.values() if unit.number not in self._begun)}
        look.notes, self._notes = self._notes, []
        look.settled = not self._tasks
        return look

    def _read(self, job: Job, error: Exception | None = None) -> Ending:
        """How a job has ended from which there is no result."""
        with suppress(Exception):
            if job.finished():
                return Outcome(job.folder, job.summaries())
        stopped = self.folder.asked_to_stop()
        if stopped is not None:
            return Outcome(job.folder, job.summaries(), stopped)
        return JobError(failure_reason(error) if error is not None else "its task ended without a result")

    def stop(self, number: signal.Signals) -> None:
        import ray

        self._stopping = True
        self.folder.ask_to_stop(number)
        for reference, unit in list(self._tasks.items()):
            if unit.number not in self._begun:  # it may never find room
                with suppress(Exception):
                    ray.cancel(reference)


def _connect(options: RayOptions, cpus: int) -> None:
    """Raises: ConfigError if there is no cluster that answers."""
    import logging

    address = options.address
    if address == "auto":
        with suppress(AttributeError, OSError):  # none: Ray searches this machine
            if found := os.environ.get("RAY_ADDRESS") or _noted_address():
                _require_cluster(found, f"auto ({found})")
    elif address is not None:
        _require_cluster(address, address)
    import ray  # takes seconds, so an address where no cluster is has been refused before

    if address is None:
        workers = options.workers or max(1, cores() // cpus)
        values: dict[str, Any] = {"address": "local", "num_cpus": workers * cpus, "include_dashboard": False}
    else:
        values = {"address": address}
    failed: list[BaseException] = []

    def connect(more: int = 2) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **values)
        except BaseException as error:
            if more and "client server failed" in str(error):  # what Ray starts for ray:// now and then isn't ready
                connect(more - 1)
            else:
                failed.append(error)

    with _nothing_on_stderr():
        if address is None:
            connect()
        else:  # it would try for minutes
            thread = threading.Thread(target=connect, daemon=True)
            thread.start()
            thread.join(CONNECT_SECONDS)
            if thread.is_alive():
                failed.append(ConnectionError(f"no Ray cluster answered within {CONNECT_SECONDS:g} s"))
    if failed:
        reason = str(failed[0]).strip().splitlines() or [type(failed[0]).__name__]
        raise ConfigError(f"launcher.address={address or 'null'}: {reason[-1]}")


def _noted_address() -> str | None:
    """Of the cluster that was last started on this machine."""
    import ray

    return ray._private.utils.read_ray_address()


def _disconnect() -> None:
    import ray

    with suppress(Exception):
        ray.shutdown()


@contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """Ray's own libraries write there before they can be told not to."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def _variables(local: bool) -> dict[str, str]:
    """What Ray reads from the environment, where it isn't set."""
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    if local:
        # Ray has its servers listen on every interface, unless it takes this for a machine that no other may join.
        wanted["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    else:
        token = os.environ.get("RAY_AUTH_TOKEN_PATH", str(Path("~/.ray/auth_token").expanduser()))
        if os.environ.get("RAY_AUTH_TOKEN") or Path(token).exists():  # a cluster that wants none minds none
            wanted["RAY_AUTH_MODE"] = "token"
    return {key: value for key, value in wanted.items() if key not in os.environ}


def _require_cluster(address: str, shown: str) -> None:
    """Raises: ConfigError if no gRPC server, as Ray's are, answers at `host:port` or `ray://host:port`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        host, port = address.removeprefix("ray://"), "10001"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            answer = connection.recv(9)  # an HTTP/2 server's first frame holds its settings: type 4
    except TimeoutError:
        raise ConfigError(f"launcher.address={shown}: no Ray cluster answered within {ANSWER_SECONDS:g} s") from None
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"launcher.address={shown}: no Ray cluster answers there: {reason}") from None
    if answer[3:4] != b"\x04" and os.environ.get("RAY_USE_TLS", "0") == "0":
        raise ConfigError(f"launcher.address={shown}: what answers there is no Ray cluster")


def _no_room(cpus: int, gpus: float) -> list[str]:
    """A line if no machine of the cluster has what a job asks for."""
    import ray

    with suppress(Exception):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            return [f"jobs wait: no machine of this cluster has {cpus} cores and {gpus:g} GPUs for one"]
    return []


# On a worker


def _train_unit(folder_path: str, place: str, number: int, again: bool) -> list[tuple[int, Outcome | Failure]]:
    """Train a unit's jobs in turn, each in its own process, until the sweep is stopped."""
    from rnnlstm.jobs.process import train_apart, warm_up

    os.chdir(place)  # where relative paths are the command's
    folder = SweepFolder(Path(folder_path))
    folder.say(BEGUN, number)
    endings: list[tuple[int, Outcome | Failure]] = []
    options = None
    with StopFlag() as stop:
        ended = threading.Event()
        main = threading.main_thread().ident

        def follow() -> None:
            while not ended.wait(LOOK_EVERY):
                if (asked := folder.asked_to_stop()) is not None and main is not None:
                    signal.pthread_kill(main, asked)
                    return

        threading.Thread(target=follow, daemon=True).start()
        try:
            for k, job in folder.unit(number).jobs:
                if stop.signal is not None or folder.asked_to_stop() is not None:
                    break
                options = options or job.config.launcher
                threads = job.config.threads or options.threads
                warm_up(threads)
                config = replace(job.config, threads=threads, overwrite=job.config.overwrite and not again)
                until = time.monotonic() + (BUSY_SECONDS if again else 0)
                while True:
                    ending = train_apart(replace(job, config=config), stop)
                    if not isinstance(ending, BusyError) or time.monotonic() >= until:
                        break
                    time.sleep(LOOK_EVERY)  # its lost turn still saves
                endings.append((k, Failure.of(ending) if isinstance(ending, Exception) else ending))
        finally:
            ended.set()
    return endings
