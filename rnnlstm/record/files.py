"""Files on disk: written whole or not at all, JSON lines that survive a torn end, and a lock for a run folder."""

from __future__ import annotations

import atexit
import errno
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from rnnlstm.config.errors import BusyError, OptionError, require_posix
from rnnlstm.config.untrusted import open_regular, read_regular
from rnnlstm.record.folders import LINES

require_posix()
import fcntl
import resource

LARGEST_OBJECT = 1_048_576  # bytes of a JSON file that is read back
LOCK = ".lock"  # in a run folder
LONGEST_LOCK = 4096  # bytes
A_LINK = "is a link, and nothing in a run folder may be one"
MOST_BYTES = 33_554_432  # of the lines of one kind that are kept of very many
FILES_OF_A_SEED = len(LINES) + 1  # lines, and TensorBoard's events
SPARE_FILES = 32  # for what is open for a moment
LONGEST_LINE = 16_777_216  # bytes of a line: the gradient through time over half a million steps


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: a reader, or a crash, sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _UNFINISHED.add(temporary)
    try:
        temporary.unlink(missing_ok=True)  # of a process that had the same number; or a link
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _UNFINISHED.discard(temporary)


def write_output(path: Path, data: bytes) -> None:
    """Write a file that a user named: a regular one is replaced in one step, and a link to it stays a link. A pipe, a
    terminal, `/dev/null` or `/dev/stdout` is written into. Raises: OSError.
    """
    try:
        there = path.stat()
    except FileNotFoundError:
        there = None
    streams = [stream for stream in (sys.stdout, sys.stderr) if there and _is_at(stream, there)]
    if streams:  # also a regular file that the shell has opened: replaced, it would lose what is printed
        streams[0].flush()
        with os.fdopen(streams[0].fileno(), "wb", closefd=False) as file:
            file.write(data)
    elif there is None or stat.S_ISREG(there.st_mode):
        write_whole(path.resolve(), data)
    elif stat.S_ISDIR(there.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    elif stat.S_ISFIFO(there.st_mode) or stat.S_ISCHR(there.st_mode):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            reason = "no program reads from it" if error.errno == errno.ENXIO else error.strerror
            raise OSError(error.errno, reason) from None
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    else:
        raise OSError(errno.EINVAL, "is neither a file nor a pipe")


def _is_at(stream: TextIO, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), there)
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return False


#: Temporary files of this process. A signal ends a command without `finally`, but with what `atexit` holds.
_UNFINISHED: set[Path] = set()


@atexit.register
def _remove_unfinished() -> None:
    for temporary in _UNFINISHED:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write the renaming to disk, too: a file's name belongs to its folder's data."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_whole(path, json_bytes(value))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: OSError; ValueError, which says what is wrong with it."""
    with read_regular(path) as file:
        data = file.read(LARGEST_OBJECT + 1)
    if len(data) > LARGEST_OBJECT:
        raise ValueError(f"larger than {LARGEST_OBJECT:,} bytes")
    if not data.strip():
        raise ValueError("is empty")
    value = _parsed(data)
    if not isinstance(value, dict):
        raise ValueError("holds no object")
    return value


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no file or no whole object."""
    try:
        return read_object(path)
    except (OSError, ValueError):
        return None


def numbered_lines(
    path: Path, most: int | None = None, kinds: Sequence[bytes] = ()
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each line of a JSON-lines file: its number, from 1, and its object; None for a line without one.

    A last line without its end (the run is writing, or was killed) is left out where it isn't whole.
    `most`: of more lines than that, every second is given, or every fourth, and so on, and the last. The others are
    not parsed. Lines with other texts of `kinds` in them are counted apart: evaluations are few among updates.
    Raises: OSError if there is no file to read.
    """
    with read_regular(path) as file:
        lines = _raw_lines(file)
        for number, line in lines if most is None else _thinned(lines, most, kinds):
            try:
                value = _parsed(line)
            except ValueError:
                if line.endswith(b"\n") or not line.startswith(b"{"):
                    yield number, None
                continue
            yield number, value if isinstance(value, dict) else None


def _raw_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each line with its number; one that is too long is empty."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number, end = number + 1, line
        while not end.endswith(b"\n") and (end := file.readline(LONGEST_LINE)):
            line = b"\n"
        yield number, line


def _thinned(lines: Iterable[tuple[int, bytes]], most: int, kinds: Sequence[bytes]) -> list[tuple[int, bytes]]:
    kept: dict[tuple[bool, ...], _Thinned] = {}
    for number, line in lines:
        kept.setdefault(tuple([kind in line for kind in kinds]), _Thinned(most)).add(number, line)
    return sorted({pair for few in kept.values() for pair in (*few.lines, few.last)})


class _Thinned:
    """Some lines of many, evenly spaced: at most `most`, of at most `MOST_BYTES` together; and the last."""

    def __init__(self, most: int) -> None:
        self._most, self._stride, self._count, self._bytes = most, 1, 0, 0
        self.lines: list[tuple[int, bytes]] = []
        self.last = (0, b"")

    def add(self, number: int, line: bytes) -> None:
        self.last = (number, line)
        if self._count % self._stride == 0:
            self.lines.append(self.last)
            self._bytes += len(line)
            while len(self.lines) > self._most or (self._bytes > MOST_BYTES and len(self.lines) > 1):
                self.lines, self._stride = self.lines[::2], 2 * self._stride
                self._bytes = sum(len(line) for _, line in self.lines)
        self._count += 1


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file. Other lines are skipped; a missing file has none."""
    try:
        for _, value in numbered_lines(path):
            if value is not None:
                yield value
    except OSError:
        return


def _parsed(data: bytes) -> Any:
    """The JSON value. Raises: ValueError, which says what is wrong with it."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8 text") from None
    except RecursionError:
        raise ValueError("more brackets within each other than can be read") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no whole JSON ({error.msg}, line {error.lineno})") from None


class LineWriter:
    """Appends objects to a JSON-lines file, each flushed to the system as it is written.

    Numbers that are not finite are written as Python's json module writes and reads them: NaN, Infinity.
    """

    def __init__(self, path: Path, keep: int | None = None) -> None:
        """`keep` cuts an existing file back to this many bytes."""
        flags = os.O_WRONLY | os.O_APPEND | (os.O_CREAT if keep is None else 0)
        self._file = os.fdopen(open_regular(path, flags), "a", encoding="utf-8")
        if keep is not None:
            os.ftruncate(self._file.fileno(), keep)

    def write(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._file.flush()

    def sync(self) -> int:
        """Flush everything to the disk. Returns the file's bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the run folder for one writer; it is made if missing. The system frees the lock when the process ends.

    Whoever writes into a run folder holds its lock, so this is where a folder with links is refused: it came from
    others, or leads to where others write. The run folder itself, and those above it, may be links.

    Raises: BusyError, naming the holder, if another process has it; OSError if it can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for link in linked_folders(folder):
        raise OSError(errno.ELOOP, f"{link} {A_LINK}")
    with os.fdopen(open_regular(folder / LOCK, os.O_RDWR | os.O_CREAT), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{folder} is in use{_held_by(folder)}") from None
        file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": started}))
        file.flush()
        yield


def _held_by(folder: Path) -> str:
    held = lock_holder(folder)
    return f" by process {held['pid']} on {held['host']} since {held.get('since')}" if held else ""


def lock_holder(folder: Path) -> dict[str, Any] | None:
    """`pid`, `host` and `since` of the process that last locked a run folder; None if its lock says nothing."""
    try:
        with read_regular(folder / LOCK) as file:
            held = _parsed(file.read(LONGEST_LOCK))
        return held if isinstance(held["pid"], int) and isinstance(held["host"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def linked_folders(folder: Path) -> list[Path]:
    """The links to folders in a run folder. Raises: OSError."""
    with os.scandir(folder) as entries:
        return sorted(path for entry in entries if entry.is_symlink() and (path := Path(entry)).is_dir())


@contextmanager
def room_for_files(seeds: int) -> Iterator[None]:
    """Let this process open the files of so many seeds: systems allow 1,024 files unless asked for more.

    Raises: OptionError if the system does not allow as many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        opened = len(list(Path("/dev/fd").iterdir()))
    except OSError:  # a system without it
        opened = SPARE_FILES
    needed = opened + seeds * FILES_OF_A_SEED + SPARE_FILES
    if soft == resource.RLIM_INFINITY or needed <= soft:
        yield
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):
        rule = f"needs {needed:,} open files, and this system allows {hard:,} (ulimit -Hn); train fewer at a time"
        raise OptionError("seeds", seeds, rule) from None
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
