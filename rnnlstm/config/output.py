"""Standard output and error that end no command: text that can't be written is dropped, and the reason kept."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import TextIO

NOWHERE = Path(os.devnull)


class Descriptor(io.FileIO):
    """An open file descriptor. After the first failed write it drops everything, and `failure` is that error."""

    failure: OSError | None = None
    owner: TextIO  #: closes the descriptor when it is deleted

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        left = memoryview(data)
        while left and self.failure is None:
            try:
                written = super().write(left)
            except OSError as error:
                self.failure = error
            else:
                left = left[written or 0 :]
                if written is None:  # a pipe that doesn't block, and is full
                    select.select([], [self], [])
        return len(data)

    @property
    def lost(self) -> str | None:
        """Why the output is incomplete; None if it isn't, or its reader had enough, as in `… | head`."""
        if self.failure is None or self.failure.errno == errno.EPIPE:
            return None
        return self.failure.strerror


def guard_output() -> Descriptor | None:
    """Replace the process's standard output and error by streams whose writes never fail.

    A character that the encoding lacks is written as an escape: `\\xb1` for ±. A closed stream becomes the null
    device, since the next opened file would get its number. Returns the descriptor of standard output, or None where
    something other than Python's own stream stands in for it.
    """
    if sys.stdin is None:
        sys.stdin = NOWHERE.open()
    sys.stdout, output = _guarded(sys.stdout)
    sys.stderr, _ = _guarded(sys.stderr)
    return output


def _guarded(stream: TextIO | None) -> tuple[TextIO, Descriptor | None]:
    if stream is None:
        return NOWHERE.open("w"), None
    try:
        stream.flush()
        descriptor = Descriptor(stream.fileno(), "w", closefd=False)
    except OSError:  # io.UnsupportedOperation, of a stream in memory
        return stream, None
    if not isinstance(stream, io.TextIOWrapper):
        return stream, None
    descriptor.owner = stream
    at_once = stream.write_through  # python -u
    guarded = io.TextIOWrapper(
        descriptor if at_once else io.BufferedWriter(descriptor),  # type: ignore[type-var]
        stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=at_once,
    )
    return guarded, descriptor
