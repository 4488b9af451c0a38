"""Curriculum by length: which task length each replica trains at. What it is judged by stays `task.length`.

`fixed`     every batch at task.length
`growing`   from `start` on; whenever an evaluation at the present length meets the task's criterion, the length is
            multiplied by `factor`, up to task.length; each replica by itself (Zaremba & Sutskever 2014 grow alike)
`uniform`   a length for each update, uniform on start … task.length: the same for all replicas, a function of the
            step alone, so that a replica trains as it would alone and all stay in lockstep
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.config.schema import CurriculumOptions
from rnnlstm.tasks import Task
from rnnlstm.tasks.random_streams import RandomStream


class Curriculum:
    """Lengths of `replicas` replicas. `lengths`, one for each, is all there is to save."""

    def __init__(self, task: Task, options: CurriculumOptions, replicas: int) -> None:
        """Raises: OptionError if the task can't be had at the length `start`."""
        self.final, self.options = task, options
        self._tasks: dict[int, Task] = {self.longest: task}
        first = options.start if self.grows else self.longest
        self.lengths = [first] * replicas
        if options.name != "fixed":
            if options.start > self.longest:
                raise OptionError("start", options.start, f"must be at most task.length={self.longest}")
            try:
                self.at(options.start)
            except ConfigError as error:
                rule = error.rule if isinstance(error, OptionError) else str(error)
                raise OptionError("start", options.start, f"as a length {rule}") from None

    @property
    def longest(self) -> int:
        length: int = self.final.length  # type: ignore[attr-defined]
        return length

    @property
    def fixed(self) -> bool:
        return self.options.name == "fixed"

    @property
    def grows(self) -> bool:
        return self.options.name == "growing"

    def at(self, length: int) -> Task:
        """The task at another length."""
        if length not in self._tasks:
            self._tasks[length] = self.final.vary(length=length)
        return self._tasks[length]

    def task(self, replica: int, step: int) -> Task:
        """What a replica trains on in update number `step`."""
        return self.at(self.length(replica, step))

    def length(self, replica: int, step: int) -> int:
        if self.options.name == "uniform":
            stream = RandomStream(0, "curriculum", step)
            return int(stream.integers(self.options.start, self.longest + 1, (1,)))
        return self.lengths[replica]

    def current(self, replica: int) -> Task | None:
        """The task at a replica's present length; None where lengths don't grow."""
        return self.at(self.lengths[replica]) if self.grows else None

    def load(self, lengths: Sequence[int]) -> None:
        """Take back earlier `lengths`. Raises: ValueError if they are of another curriculum."""
        first = self.options.start if self.grows else self.longest
        if len(lengths) != len(self.lengths) or not all(first <= length <= self.longest for length in lengths):
            raise ValueError("its trainer.lengths are of another curriculum")
        self.lengths = list(lengths)

    def grow_if_solved(self, replica: int, scores: Mapping[str, float]) -> None:
        """Go on to the next length if `scores`, of an evaluation at the present one, meet the task's criterion."""
        current = self.current(replica)
        if current is not None and self.lengths[replica] < self.longest and current.solved(scores):
            self.grow(replica)

    def grow(self, replica: int) -> None:
        """Go on to the next length, at most task.length."""
        length = self.lengths[replica]
        self.lengths[replica] = min(self.longest, max(length + 1, round(length * self.options.factor)))
