"""Where a run's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """Seconds spent so far on training, on instruments (probes, logging, the record), and on evaluation."""

    def __init__(self) -> None:
        self.training = self.instruments = self.evaluation = 0.0

    def state(self) -> dict[str, float]:
        return {"training": self.training, "instruments": self.instruments, "evaluation": self.evaluation}

    def restore(self, state: Mapping[str, float]) -> None:
        self.training, self.instruments = state["training"], state["instruments"]
        self.evaluation = state["evaluation"]

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Count the time inside towards `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)

    @property
    def instruments_share(self) -> float:
        """Time on instruments as a share of the time on training."""
        return self.instruments / self.training if self.training else 0.0


def duration(seconds: float) -> str:
    """`3:20`, or `1:03:20` from an hour on."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{f'{hours:,}:{rest // 60:02}' if hours else rest // 60}:{rest % 60:02}"
