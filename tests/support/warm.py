"""Commands in processes of their own that need not import PyTorch first.

A server imports what a command imports and waits. Each command is a fork of it: a real process, with a process id, an
exit code, signals, pipes and a folder of its own. That saves two seconds of computing for each command. What tests
how a command starts (imports, the first signals, encodings, options of Python) starts Python itself instead.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import pickle
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from rnnlstm.jobs.process import PRELOADED

#: What the server imports: what a command that trains imports, and what a comparison does.
IMPORTED = (
    "hydra", "yaml", "rich.console", "rnnlstm.cli.progress", "rnnlstm.jobs.train", "rnnlstm.jobs.local",
    "rnnlstm.reporting.selection", "rnnlstm.reporting.tables", *PRELOADED,
)  # fmt: skip

STARTED: list[Command] = []  #: of this process


class Command:
    """`python -m MODULE ARGUMENT …` as a fork of the server, with as much of `subprocess.Popen` as tests use.
    The module "-c" runs its first argument as code, as Python does.

    `file_size`: its files can't become larger than so many bytes (RLIMIT_FSIZE).
    """

    def __init__(self, module, arguments, cwd=None, env=None, file_size=None):
        self.args, self.returncode = [module, *arguments], None
        request = (self.args, str(Path(cwd or ".").resolve()), dict(os.environ if env is None else env), file_size)
        self._ending, status = os.pipe()
        out, err = os.pipe(), os.pipe()
        place = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with place[0], place[1]:
            socket.send_fds(server(), [b"x"], [place[1].fileno(), out[1], err[1], status])
            for end in (out[1], err[1], status):
                os.close(end)
            place[1].close()
            place[0].sendall(pickle.dumps(request))
            place[0].shutdown(socket.SHUT_WR)
            self.pid = int(place[0].recv(64))
        STARTED.append(self)
        self.stdout, self.stderr = os.fdopen(out[0], encoding="utf-8"), os.fdopen(err[0], encoding="utf-8")

    def poll(self):
        return self._wait(0)

    def wait(self, timeout=None):
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _wait(self, timeout):
        if self.returncode is None and select.select([self._ending], [], [], timeout)[0]:
            self.returncode = int(os.read(self._ending, 64) or -signal.SIGKILL)
            os.close(self._ending)
        return self.returncode

    def communicate(self, timeout=None):
        """What it writes to standard output and standard error until both are closed."""
        written = {}

        def read(file):
            written[file] = file.read()
            file.close()

        readers = [threading.Thread(target=read, args=(file,), daemon=True) for file in (self.stdout, self.stderr)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                self.kill()
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(timeout)
        return written[self.stdout], written[self.stderr]

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(module, *arguments, timeout=120, **how):
    """As `subprocess.run` with `capture_output` and `text`."""
    process = Command(module, arguments, **how)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@functools.cache
def server():
    """A socket that takes commands; started once in each process that runs tests. The server ends with the socket."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # other threads do not survive a fork
    line = [sys.executable, __file__, str(its.fileno())]
    process = subprocess.Popen(line, pass_fds=[its.fileno()], env=environment, stdin=subprocess.DEVNULL)
    its.close()

    def end():
        for command in STARTED:  # what a test that failed has left
            command.kill()
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(place: socket.socket) -> None:
    """Returns in a process that is to become a command, and never in the server."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal of the tests
    while True:
        message, handles, *_ = socket.recv_fds(place, 1, 4)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that waited for earlier commands
                pass
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for handle in handles:
            os.close(handle)
    # Waits for the command, and tells how it ended.
    place.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    *streams, status = handles
    if pid := os.fork():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with socket.socket(fileno=streams.pop(0)) as requests:
            requests.sendall(str(pid).encode())
        for handle in streams:
            os.close(handle)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(status, str(code).encode())
        os._exit(0)
    os.close(status)
    become(*streams)


def become(requests: int, out: int, err: int) -> None:
    """Take on what a new process would have: streams, folder, environment, arguments, limits."""
    with socket.socket(fileno=requests) as place, place.makefile("rb") as file:
        arguments, folder, environment, file_size = pickle.load(file)
    for handle, number in ((out, 1), (err, 2)):
        os.dup2(handle, number)
        os.close(handle)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path[0] = arguments, folder
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    if sys.argv[0] == "-c":
        exec(sys.argv.pop(1))
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
