"""Signals that stop training, and how a run ended. Needs no torch: a process that only waits for runs imports this.

The first signal asks for a stop after the current update, the second one stops at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

#: Slurm sends USR2 ahead of a time limit where it is asked to (`--signal`).
SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the summaries of its replicas, and the signal that stopped it, if one did."""

    folder: Path
    summaries: list[dict[str, Any]]
    stopped_by: signal.Signals | None = None
    trained: bool = True  #: False where every replica had finished before


def stop_line(stopped_by: signal.Signals) -> str:
    """What a command says that a signal stopped."""
    return f"stopped by {stopped_by.name}; what was reached is saved, the same command resumes"


class StopFlag:
    """A context in which a signal sets `signal` instead of ending the process; a second one raises KeyboardInterrupt.

    Contexts nest: a signal that one of them received counts for all. Outside the main thread, where Python allows no
    handlers, the context does nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._outer: StopFlag | None = None
        self._before: dict[signal.Signals, object] = {}
        self._send: Callable[[int], None] | None = None  # to those that do the work
        self._passed_on = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
            self._outer = outer if isinstance(outer, StopFlag) else None
            self._before = {s: signal.signal(s, self._handle) for s in SIGNALS}
            if self._outer is not None:
                self.signal = self._outer.signal
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._outer is not None:
            self._outer.signal = self._outer.signal or self.signal

    @contextmanager
    def passed_on_to(self, send: Callable[[int], None]) -> Iterator[None]:
        """Give each signal to `send`, for other processes that do the work. The third becomes SIGKILL."""
        self._send, self._passed_on = send, 0
        try:
            if self.signal is not None:
                self._pass_on(self.signal)
            yield
        finally:
            self._send = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, self.signal or signal.Signals(number)
        if self._send is not None:
            self._pass_on(number)
        elif not first:
            raise KeyboardInterrupt(self.signal)

    def _pass_on(self, number: int) -> None:
        self._passed_on += 1
        if self._send is not None:
            self._send(number if self._passed_on < 3 else signal.SIGKILL)
