"""Stopping a run from outside: the first signal asks for a stop at the next step, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

#: USR2 is what Slurm sends ahead of a time limit where it is asked to (`--signal`).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class StopFlag:
    """A context within which signals set `signal` instead of ending the process.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._process: int | None = None  # to which signals are passed on
        self._passed_on = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._handle) for s in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def passed_on_to(self, process: int | None) -> Iterator[None]:
        """Within this, another process does the work: it is sent each signal, and the third one kills it."""
        self._process, self._passed_on = process, 0
        try:
            if self.signal is not None:
                self._pass_on(self.signal)
            yield
        finally:
            self._process = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, self.signal or signal.Signals(number)
        if self._process is not None:
            self._pass_on(number)
        elif not first:
            raise KeyboardInterrupt

    def _pass_on(self, number: int) -> None:
        self._passed_on += 1
        with suppress(ProcessLookupError):
            os.kill(self._process or 0, number if self._passed_on < 3 else signal.SIGKILL)


# How a run ended. Light: whoever only waits for runs needs no torch.


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the summaries of its replicas, and the signal that stopped it, if one did."""

    folder: Path
    summaries: list[dict[str, Any]]
    stopped_by: signal.Signals | None = None
    trained: bool = True  #: False where everything had been finished before
