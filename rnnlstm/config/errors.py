"""The exceptions that the commands report as one line, and how values are written in such a line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

NOTHING = ("none", "off", "null", "no", "false")  #: words for the choice that does nothing


class ConfigError(ValueError):
    """The user asked for something wrong. `str()` is one line; the command line exits with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class OptionError(ConfigError):
    """A value that breaks its rule: `key=value: rule`."""

    def __init__(self, key: str, value: object, rule: str) -> None:
        super().__init__(f"{key}={show(value)}: {rule}")
        self.key, self.value, self.rule = key, value, rule

    def under(self, prefix: str) -> OptionError:
        """The same error with a longer key: `length` in section `task` becomes `task.length`."""
        return OptionError(f"{prefix}.{self.key}", self.value, self.rule)


def show(value: object) -> str:
    """`value` as it is written on the command line, on one line, cut to 80 characters."""
    words = {None: "null", True: "true", False: "false"}
    try:
        text = words[value] if value is None or isinstance(value, bool) else str(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    text = printable(text[:1000])
    return text if len(text) <= 80 else text[:77] + "..."


def printable(text: str) -> str:
    """`text` on one line. Characters that a terminal acts on or can't show are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the nearest known name, whatever its case, or the empty string."""
    names = {name.lower(): name for name in known}
    if word.lower() in NOTHING:
        nearest = [name for name in names if name in NOTHING]
    else:
        nearest = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[nearest[0]]}?" if nearest else ""


def nearest_key(key: str, neighbours: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """`; did you mean …?` with whole keys: those whose last part is exactly the word (`steps` is train.steps), then
    the nearest neighbour, or the empty string. `neighbours` are all keys of the same section that could be given; if
    none are known, it is the nearest key elsewhere."""
    neighbours, elsewhere = list(neighbours), list(elsewhere)
    section, _, word = key.rpartition(".")
    if key in elsewhere:  # another task or model has it: a like-named key of another section is something else
        elsewhere = []
    elsewhere.sort(key=lambda other: other.rpartition(".")[0] != section)
    if neighbours:
        elsewhere = [other for other in elsewhere if other.rpartition(".")[0] != section]
    exact = [other for other in dict.fromkeys(elsewhere) if other.rpartition(".")[2] == word]
    if exact:
        return f"; did you mean {' or '.join(exact)}?"
    ends = {other.rpartition(".")[2]: other for other in reversed(neighbours or elsewhere)}  # of several, the first
    close = difflib.get_close_matches(word, ends, n=1, cutoff=0.5)
    return f"; did you mean {ends[close[0]]}?" if close else ""


def require_posix() -> None:
    """Raises: ConfigError on a system without the file locks and signals that runs need: Windows."""
    try:
        import fcntl  # noqa: F401
    except ImportError:
        raise ConfigError("rnnlstm needs Linux or macOS; on Windows, install it in WSL") from None


class DiskError(Exception):
    """Results could not be written. `str()` is one line; the command line exits with 74."""


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turns an OSError within into a DiskError: `can't write <what>: No space left on device`."""
    try:
        yield
    except OSError as error:
        raise DiskError(printable(f"can't write {what}: {error.strerror or error}")) from error


class BusyError(Exception):
    """The run folder is in use. `str()` is one line that names the holder; the command line exits with 73."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class CheckpointError(Exception):
    """A checkpoint is no good. `str()` is one line; the command line exits with 3."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class JobError(Exception):
    """A job failed: its process exited, was killed, or hung. `str()` is the reason in a line, `log` its traceback, if
    there is one; the command line exits with 1."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log


class LostError(JobError):
    """A job was cancelled, or its machine is gone: no fault of its own. The same command resumes it."""


#: How PyTorch, NumPy and CUDA's allocator say how much they were asked for.
ASKED = re.compile(r"(?:tried|unable) to allocate ([\d.]+ \w+)", re.IGNORECASE)


@contextmanager
def enough_memory(sizes: str = "") -> Iterator[None]:
    """Turns exhausted memory within into a JobError: `out of memory (<sizes>): 14400000000 bytes were asked for`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        asked = ASKED.search(str(error))
        if asked is None and not isinstance(error, MemoryError):
            raise
        where = f" ({sizes})" if sizes else ""
        what = f": {asked[1]} were asked for" if asked else ""
        raise JobError(f"out of memory{where}{what}") from None
