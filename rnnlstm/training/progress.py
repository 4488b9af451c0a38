"""Live progress of a run: a line that is redrawn a few times a second, and nothing where no terminal is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from rnnlstm.schema import Config
from rnnlstm.training.replica import Replica
from rnnlstm.training.step import Update


class Progress:
    """A context in which a run reports; this one says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        pass

    def show(self, step: int, update: Update, replicas: Sequence[Replica]) -> None:
        pass


def progress_on(console: Console, config: Config) -> Progress:
    """A run's: live on a terminal, quiet elsewhere."""
    return LiveProgress(console, config.task["name"], config.train.steps) if console.is_terminal else Progress()


class LiveProgress(Progress):
    """Redraws one line, without a thread of its own. Numbers are medians over the replicas still running."""

    def __init__(self, console: Console, label: str, steps: int, redraw_every: float = 0.2) -> None:
        self._redraw_every, self._drawn = redraw_every, -1.0
        self._first = (0.0, 0)  # when and at which step the line was first drawn
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task(label, total=steps, state="")

    def __enter__(self) -> Self:
        self._bar.start()
        self._bar.refresh()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, step: int, update: Update, replicas: Sequence[Replica]) -> None:
        now = time.monotonic()
        if now - self._drawn < self._redraw_every:
            return
        if self._drawn < 0:
            self._first = (now, step)
        self._drawn = now
        seconds, steps = now - self._first[0], step - self._first[1]
        speed = f"{steps / seconds:.1f} steps/s" if steps else ""
        self._bar.update(self._task, completed=step, state="  ".join([_state(update, replicas), speed]))
        self._bar.refresh()


def _state(update: Update, replicas: Sequence[Replica]) -> str:
    live = [r for r, replica in enumerate(replicas) if replica.running] or list(range(len(replicas)))
    task = replicas[0].plan.task

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    parts = [
        f"loss {median([update.losses[r] for r in live]):.4f} "
        f"(baseline {median([update.tasks[r].baseline for r in live]):.4f})",
        f"{task.metric_name} {median([replicas[r].scores.get(task.metric_name, float('nan')) for r in live]):.3f}",
        f"norm {median([update.clips[r].norm_before for r in live]):.2g}",
        f"clipped {median([replicas[r].clip_rate for r in live]):.0%}",
    ]
    if len(replicas) > 1:
        parts.append(f"solved {sum(r.steps_to_solve is not None for r in replicas)}/{len(replicas)}")
    return "  ".join(parts)
