"""A row of a study's table: one arm in one setting, with the values of every seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """Lists are by final seed. `steps` is the budget of updates; a seed that did not solve has None for its own."""

    setting: str
    arm: str
    metric_name: str = ""
    rate: float | None = None
    steps: int = 0
    batch_size: int = 0
    hidden_size: int = 0
    parameters: int = 0
    baseline: float | None = None
    seeds: list[int] = field(default_factory=list)
    solved: list[bool] = field(default_factory=list)
    diverged: list[bool] = field(default_factory=list)
    steps_to_solve: list[int | None] = field(default_factory=list)
    metric: list[float | None] = field(default_factory=list)
    loss: list[float | None] = field(default_factory=list)
    clip_rate: list[float] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    tuning: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by rate: what the tuning seeds came to

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Row:
        """Raises: TypeError if a field is unknown."""
        return cls(**data)

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def solved_count(self) -> int:
        return sum(self.solved)

    @property
    def diverged_count(self) -> int:
        return sum(self.diverged)

    @property
    def median_steps(self) -> float:
        """Updates to solve; infinite where most seeds did not."""
        return statistics.median([math.inf if s is None else s for s in self.steps_to_solve] or [math.inf])

    def values(self, name: str) -> list[float]:
        """`metric`, `loss`, `clip_rate`, `steps`, or one of `scores`: of the seeds that have it. `hidden_size` and
        `parameters` are the same for all."""
        if name in ("hidden_size", "parameters"):
            return [float(getattr(self, name))]
        if name == "steps":
            return [float(s) for s in self.steps_to_solve if s is not None]
        found = getattr(self, name) if name in ("metric", "loss", "clip_rate") else self.scores.get(name, [])
        return [float(v) for v in found if v is not None and not math.isnan(v)]

    def median(self, name: str) -> float:
        """NaN where no seed has a value: every comparison with it is false."""
        values = self.values(name)
        return statistics.median(values) if values else math.nan


class Rows:
    """All rows of a study, by setting and arm."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {(row.setting, row.arm): row for row in rows}

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __call__(self, setting: str, arm: str) -> Row:
        return self._rows[setting, arm]

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(setting for setting, _ in self._rows))

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(arm for _, arm in self._rows))

    def of(self, setting: str) -> list[Row]:
        return [row for row in self if row.setting == setting]

    def arm(self, arm: str) -> list[Row]:
        return [row for row in self if row.arm == arm]
