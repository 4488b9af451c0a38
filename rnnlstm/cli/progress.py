"""A whole sweep's progress: a line that is redrawn on a terminal, elsewhere one now and then, and one at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rnnlstm.training.progress import duration

if TYPE_CHECKING:
    from rnnlstm.jobs.launchers.standing import Standing

SAY_EVERY = 60.0  # seconds, where nothing can be redrawn


class SweepProgress:
    """Says nothing until it is shown something: jobs that run in turn have a progress line each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last: Standing | None = None
        self._said = time.monotonic()

    def show(self, standing: Standing, failed: int) -> None:
        self._last = standing
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(Text(line(standing, failed)), refresh=True)
        elif time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            self._console.print(line(standing, failed), markup=False)

    def close(self, failed: int, summarise: bool = True) -> None:
        if self._live is not None:
            self._live.stop()
        if self._last is not None and summarise:
            self._console.print(line(self._last, failed), markup=False)


def line(standing: Standing, failed: int) -> str:
    """`12 of 40 jobs ended, 1 failed, 8 running, 3:20 left`."""
    parts = [f"{standing.ended:,} of {standing.total:,} jobs ended"]
    if failed:
        parts.append(f"{failed:,} failed")
    if standing.running:
        parts.append(f"{standing.running:,} running")
        seconds = standing.seconds_left
        if seconds is not None:
            parts.append(f"{duration(seconds)} left")
    return ", ".join(parts)
