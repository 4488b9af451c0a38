"""Files on disk: written whole or not at all, JSON lines that survive a torn end, and a lock for a run folder."""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rnnlstm.config.errors import BusyError, require_posix

require_posix()
import fcntl

LARGEST_OBJECT = 1_048_576  # bytes of a JSON file that is read back
LOCK = ".lock"  # in a run folder
LONGEST_LINE = 16_777_216  # bytes of a line: the gradient through time over half a million steps


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step: a reader, or a crash, sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _UNFINISHED.add(temporary)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _UNFINISHED.discard(temporary)


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
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: OSError; ValueError, which says what is wrong with it."""
    with _open(path) as file:
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


def numbered_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Each line of a JSON-lines file: its number, from 1, and its object; None for a line without one.

    A last line without its end (the run is writing, or was killed) is left out where it isn't whole.
    Raises: OSError, ValueError if there is no file to read.
    """
    with _open(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number, whole, end = number + 1, True, line
            while not end.endswith(b"\n") and (end := file.readline(LONGEST_LINE)):
                whole = False  # too long: skip the rest
            try:
                value = _parsed(line) if whole else None
            except ValueError:
                if end or not line.startswith(b"{"):
                    yield number, None
                continue
            yield number, value if isinstance(value, dict) else None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file. Other lines are skipped; a missing file has none."""
    try:
        for _, value in numbered_lines(path):
            if value is not None:
                yield value
    except (OSError, ValueError):
        return


def _open(path: Path) -> BinaryIO:
    """Raises: OSError; ValueError for a pipe or a device, where reading would never end."""
    if not path.is_file() and path.exists():
        raise ValueError("is no file")
    return path.open("rb")


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
        if keep is not None:
            os.truncate(path, keep)
        self._file = path.open("a", encoding="utf-8")

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

    Raises: BusyError, naming the holder, if another process has it; OSError if it can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{folder} is in use{_holder(file.fileno())}") from None
        file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": started}))
        file.flush()
        yield


def _holder(descriptor: int) -> str:
    try:
        held = json.loads(os.pread(descriptor, 4096, 0))
        return f" by process {held['pid']} on {held['host']} since {held['since']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
