"""Progress of a run: on a terminal one line, redrawn a few times a second; elsewhere a line when it starts, and one
every ten seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:  # torch takes seconds to import, and a sweep's progress does without
    from rnnlstm.config.schema import Config
    from rnnlstm.training.replica import Replica
    from rnnlstm.training.step import Update

BAR = 16  # characters
NOTEBOOK_WIDTH = 88  #: characters that stand in one line below a notebook's cell
STARTS = "starts"  #: how the line of a new run begins


class Progress:
    """A context in which a run reports its progress. This base class prints nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, line: str) -> None:
        """Say something once: where a run resumes, how many threads it has. Starts are said only in a log."""

    def show(self, step: int, update: Update, replicas: Sequence[Replica]) -> None:
        pass


def progress_on(console: Console, config: Config, count: str = "") -> Progress:
    """The progress of a run on a console. `count` is printed first, for a job of a sweep: `[2/6] `."""
    model, steps = config.cell["name"], config.train.steps
    if console.is_jupyter:
        return NotebookProgress(console, f"{count}{config.task['name']}, {model}", steps)
    if console.is_terminal:
        return LiveProgress(console, f"{count}{model}", steps)
    return LoggedProgress(console, f"{count}{config.task['name']}, {model}", steps)


class _Timed(Progress):
    """Reports at most once in `every` seconds; numbers are medians over the replicas still running."""

    def __init__(self, console: Console, label: str, steps: int, every: float) -> None:
        self._console, self._label, self._steps, self._every = console, label, steps, every
        self._shown = -float("inf")
        self._first: tuple[float, int] | None = None  # when and after which update the run was first seen

    def show(self, step: int, update: Update, replicas: Sequence[Replica]) -> None:
        now = time.monotonic()
        self._first = self._first or (now, step)
        if now - self._shown >= self._every:
            self._shown = now
            seconds, steps = now - self._first[0], step - self._first[1]
            self._say(step, steps / seconds if steps and seconds > 0 else None, update, replicas)

    def _say(self, step: int, speed: float | None, update: Update, replicas: Sequence[Replica]) -> None:
        raise NotImplementedError

    def _left(self, step: int, speed: float | None) -> list[str]:
        return [f"{duration((self._steps - step) / speed)} left"] if speed else []


class LiveProgress(_Timed):
    """Redraws one line, without a thread of its own."""

    def __init__(self, console: Console, label: str, steps: int, redraw_every: float = 0.2) -> None:
        super().__init__(console, label, steps, redraw_every)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        self._live.update(
            Text(fitted([Part(self._label), Part(f"0/{self._steps:,}")], self._console.width)), refresh=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, line: str) -> None:
        if not line.startswith(STARTS):  # the progress line shows that
            self._console.print(f"  {line}", markup=False)

    def _say(self, step: int, speed: float | None, update: Update, replicas: Sequence[Replica]) -> None:
        full, rest = "#-" if self._console.options.ascii_only else "━─"
        done = BAR * step // self._steps
        parts = [
            Part(self._label, 1),
            Part(full * done + rest * (BAR - done), 4),
            Part(f"{step:,}/{self._steps:,}"),
            *_state(update, replicas),
            *([Part(f"{speed:.1f} steps/s", 5)] if speed else []),
            *(Part(text) for text in self._left(step, speed)),
        ]
        self._live.update(Text(fitted(parts, self._console.width), no_wrap=True), refresh=True)


class LoggedProgress(_Timed):
    """Prints a line when a run starts or resumes, and one every ten seconds: `keyword, rnn: 200 of 500 updates, loss
    2.07, 1:20 left`."""

    def __init__(self, console: Console, label: str, steps: int, say_every: float = 10.0) -> None:
        super().__init__(console, label, steps, say_every)

    def __enter__(self) -> Self:
        self._shown = time.monotonic()
        return self

    def _say(self, step: int, speed: float | None, update: Update, replicas: Sequence[Replica]) -> None:
        loss = _median(update.losses, replicas)
        parts = [f"{step:,} of {self._steps:,} updates", f"loss {loss:.3g}", *self._left(step, speed)]
        self.note(", ".join(parts))

    def note(self, line: str) -> None:
        with suppress(OSError):  # the reader has gone, or the disk is full: training continues
            self._console.file.write(f"{self._label}: {line}\n")
            self._console.file.flush()


class NotebookProgress(_Timed):
    """One line below a notebook's cell, an output that IPython replaces: Rich's own way there needs ipywidgets."""

    def __init__(self, console: Console, label: str, steps: int, redraw_every: float = 0.5) -> None:
        super().__init__(console, label, steps, redraw_every)
        self._width = min(console.width, NOTEBOOK_WIDTH)
        self._last: tuple[int, Update, Sequence[Replica]] | None = None

    def __enter__(self) -> Self:
        from IPython.display import display  # there is a notebook, so it is there

        first = [Part(f"{self._label}: 0 of {self._steps:,} updates")]
        self._line = display(self._shown_as(first), raw=True, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None:  # the line that stays: of the last update, without the time left
            self._line.update(self._shown_as(self._parts(*self._last)), raw=True)

    def show(self, step: int, update: Update, replicas: Sequence[Replica]) -> None:
        self._last = step, update, replicas
        super().show(step, update, replicas)

    def note(self, line: str) -> None:
        if not line.startswith(STARTS):  # the progress line shows that
            with suppress(OSError):
                print(f"{self._label}: {line}")

    def _say(self, step: int, speed: float | None, update: Update, replicas: Sequence[Replica]) -> None:
        left = (Part(text) for text in self._left(step, speed))
        self._line.update(self._shown_as([*self._parts(step, update, replicas), *left]), raw=True)

    def _parts(self, step: int, update: Update, replicas: Sequence[Replica]) -> list[Part]:
        return [Part(f"{self._label}: {step:,} of {self._steps:,} updates"), *_state(update, replicas)]

    def _shown_as(self, parts: Sequence[Part]) -> dict[str, str]:
        return {"text/plain": fitted(parts, self._width)}


def duration(seconds: float) -> str:
    """`3:20`, or `1:03:20` from an hour on."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{f'{hours:,}:{rest // 60:02}' if hours else rest // 60}:{rest % 60:02}"


class Part(NamedTuple):
    """A piece of the line. If the line is too long, the greatest rank is dropped first; rank 0 stays."""

    text: str
    rank: int = 0


def fitted(parts: Sequence[Part], width: int) -> str:
    """The parts in one line of at most `width` characters, or those of rank 0 alone."""
    kept = list(parts)
    while len(line := "  ".join(part.text for part in kept)) > width:
        last = max(kept, key=lambda part: part.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    return line


def _state(update: Update, replicas: Sequence[Replica]) -> list[Part]:
    metric = replicas[0].plan.task.metric_name
    parts = [
        Part(f"loss {_median(update.losses, replicas):.4f}", 2),
        Part(f"baseline {_median([task.baseline for task in update.tasks], replicas):.4f}", 8),
        Part(f"{metric} {_median([r.scores.get(metric, float('nan')) for r in replicas], replicas):.3f}", 3),
        Part(f"norm {_median([clip.norm_before for clip in update.clips], replicas):.2g}", 7),
        Part(f"clipped {_median([replica.clip_rate for replica in replicas], replicas):.0%}", 6),
    ]
    if len(replicas) > 1:
        parts.append(Part(f"solved {sum(r.steps_to_solve is not None for r in replicas)}/{len(replicas)}", 3))
    return parts


def _median(values: Sequence[float], replicas: Sequence[Replica]) -> float:
    """Over the replicas that are still running; over all if none is."""
    live = [r for r, replica in enumerate(replicas) if replica.running] or list(range(len(replicas)))
    return statistics.median(values[r] for r in live)
