"""What a study is: settings × arms that are trained or measured, the published reference, and checks.

A study is a class with a registering decorator in a file of its own under `studies/`. Everything that decides a
verdict is written there, and committed before the final runs. Its results are rows, one for each arm in each
setting. Nothing here imports torch: `reproduce --list` answers at once.
"""

from __future__ import annotations

import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

SIZES = ("quick", "standard", "long")
#: Learning rates that every arm is tuned over. If the last is chosen, ABOVE is tried as well.
GRID, ABOVE = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), 1e-1
#: A rate is given up if, at this share of the budget, no tuning seed has a loss below this share of the baseline.
GIVES_UP_AT, GIVES_UP_ABOVE = 1 / 3, 0.9
#: The protocol of studies that ran before these rules, as options of `Sweep`.
FIRST: dict[str, Any] = {
    "grid": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "tuning_seeds": 2,
    "one_above": False,
    "gives_up": False,
    "test_samples": None,
}
#: A sentence that compares holds only with a p-value below this.
SIGNIFICANT = 0.05
#: The first seed of those that verdicts come from, and of those that choose the learning rate. They never overlap.
FIRST_FINAL, FIRST_TUNING = 0, 100


class Minutes(NamedTuple):
    """Roughly how long each size takes with one thread on an idle core; None: there is no such size."""

    quick: float | None = None
    standard: float | None = None
    long: float | None = None


@dataclass(frozen=True)
class Arm:
    """One of the networks or methods that are compared: its name in tables, and its overrides."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A task at a length, with the arms that are trained on it.

    `rate`: one learning rate for all arms, untuned, where the rate is what is studied. `rates_of`: the name of the
    setting whose chosen rates are used, where tuning at this length would cost more than the runs.
    """

    name: str
    overrides: tuple[str, ...]
    arms: tuple[Arm, ...]
    steps: int
    rate: float | None = None
    rates_of: str | None = None


@dataclass(frozen=True)
class Sweep:
    """What is trained: for each setting and arm `tuning_seeds` seeds at each rate of the grid, then `final_seeds`
    fresh ones at the rate chosen.

    `one_above`: if the top of the grid is chosen, the next rate above it is tried, too. `gives_up`: a rate without
    any progress is stopped early (`GIVES_UP_AT`). Final networks are scored on `test_samples` sequences of the stream
    `test`, which nothing else sees; None: by their last evaluation, which also decides when training stops.
    `first_final`: where these seeds must not be those of an earlier study that raised the question.
    """

    settings: tuple[Setting, ...]
    grid: tuple[float, ...] = GRID
    tuning_seeds: int = 3
    final_seeds: int = 5
    first_final: int = FIRST_FINAL
    one_above: bool = True
    gives_up: bool = True
    test_samples: int | None = 4096
    common: tuple[str, ...] = ()
    tuning_samples: int | None = None  #: sequences that tuning runs are tested on; None: as many as final ones

    @property
    def final(self) -> range:
        return range(self.first_final, self.first_final + self.final_seeds)

    @property
    def tuning(self) -> range:
        return range(FIRST_TUNING, FIRST_TUNING + self.tuning_seeds)


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
    tuning: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by rate: the outcome of the tuning seeds
    identity: str = ""  #: of its configuration and protocol: while these are the same, the row counts as done

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
        values = getattr(self, name) if name in ("metric", "loss", "clip_rate") else self.scores.get(name, [])
        return [float(v) for v in values if v is not None and not math.isnan(v)]

    def median(self, name: str) -> float:
        """NaN where no seed has a value: every comparison with it is false."""
        values = self.values(name)
        return statistics.median(values) if values else math.nan


class Rows:
    """The table of a study: its rows, by setting and arm."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {(row.setting, row.arm): row for row in rows}

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __call__(self, setting: str, arm: str) -> Row:
        return self._rows[setting, arm]

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(setting for setting, _ in self._rows))

    def of(self, setting: str) -> list[Row]:
        return [row for row in self if row.setting == setting]

    def arm(self, arm: str) -> list[Row]:
        return [row for row in self if row.arm == arm]


@dataclass(frozen=True)
class Check:
    """One sentence of the criterion, and its test, which returns whether it holds and what was measured.

    A sentence that compares rows returns its p-value, too (`studies.common.Comparison`). It holds only if that is
    below `SIGNIFICANT` after Holm's correction over all such sentences of the study.
    """

    text: str
    test: Callable[[Rows], tuple[bool, str] | tuple[bool, str, float]]


@dataclass(frozen=True)
class Finding:
    """A check's result; p-values where it compares."""

    text: str
    passed: bool
    measured: str
    p: float | None = None
    adjusted_p: float | None = None  #: by Holm, over the comparing sentences of the study


class Study(ABC):
    """One table of the literature. `name` comes from the decorator."""

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    reference: ClassVar[str]  #: paper, place, numbers; "(from memory)" where the paper was not at hand
    deviations: ClassVar[str]  #: where the protocol here is not the paper's
    claims: ClassVar[tuple[str, ...]] = ()  #: of docs/claims.md
    caption: ClassVar[str]  #: what to see in the figure
    minutes: ClassVar[Minutes]
    #: Columns of the table beyond those of every study: names in `Row.scores`.
    columns: ClassVar[tuple[str, ...]] = ()
    #: What the figure shows: `metric`, `steps`, `solved`, or a name in `Row.scores`; of several names the first that
    #: was measured.
    figure: ClassVar[str | tuple[str, ...]] = "metric"
    log_scale: ClassVar[bool] = False
    #: Names in `Row.scores` that updates to solve are drawn against, a panel each, in place of that figure.
    scatter: ClassVar[tuple[str, ...]] = ()

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(size for size in SIZES if getattr(self.minutes, size) is not None)

    @abstractmethod
    def checks(self, size: str) -> list[Check]:
        """The criterion."""

    def findings(self, size: str, rows: Sequence[Row]) -> list[Finding]:
        """The criterion's results on these rows."""
        from rnnlstm.reporting.statistics import holm

        table, checks = Rows(rows), self.checks(size)
        outcomes = [check.test(table) for check in checks]
        adjusted = iter(holm([outcome[2] for outcome in outcomes if len(outcome) == 3]))
        findings = []
        for check, outcome in zip(checks, outcomes, strict=True):
            passed, measured = bool(outcome[0]), outcome[1]
            if len(outcome) == 2:
                findings.append(Finding(check.text, passed, measured))
                continue
            p, corrected = outcome[2], next(adjusted)
            measured += f"; p = {p:.2g}, by Holm {corrected:.2g}"
            findings.append(Finding(check.text, passed and corrected < SIGNIFICANT, measured, p, corrected))
        return findings

    def sweep(self, size: str) -> Sweep | None:
        """What is trained; None for a study whose rows `measured` returns."""
        return None

    def settings(self, size: str) -> tuple[str, ...]:
        """The names of its settings, each of which `reproduce --setting` runs alone."""
        sweep = self.sweep(size)
        return ("all",) if sweep is None else tuple(setting.name for setting in sweep.settings)

    def measured(self, size: str, setting: str, folder: Path) -> list[Row]:
        """The rows of one setting, for a study without a sweep; each row has its name, unless that is `all`. One that
        takes long keeps in `folder` what it has."""
        raise NotImplementedError

    def draw(self, rows: Sequence[Row], path: Path) -> bool:
        """Draw a figure of its own there, a PNG; False for the usual one. While settings are missing, `rows` are not
        all."""
        return False

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """Measurements on the trained network of one seed, by name; they become `Row.scores`."""
        return {}

    def resolved(self, size: str, overrides: tuple[str, ...], folder: Path) -> tuple[str, ...]:
        """The overrides, with each that is measured (`match=step_time`) replaced by its result; results are kept in
        `folder`, so that the same command trains the same networks again."""
        return overrides


StudyClass = TypeVar("StudyClass", bound=type[Study])
#: The studies whose files have been imported; `studies/__init__.py` imports all.
STUDIES: dict[str, Study] = {}


def register_study(name: str) -> Callable[[StudyClass], StudyClass]:
    """Class decorator: `@register_study("adding")`."""

    def register(cls: StudyClass) -> StudyClass:
        cls.name = name
        STUDIES[name] = cls()
        return cls

    return register


def name_of(column: str) -> str:
    """A readable name of a score: `eval_T200/mse` → `mse at T=200`."""
    prefix, slash, metric = column.partition("/")
    if not slash:
        return column.replace("_", " ")
    words = metric.replace("_", " ")
    if prefix.startswith("eval_T"):
        return f"{words} at T={prefix.removeprefix('eval_T')}"
    if prefix.startswith("eval_decoys"):
        return f"{words} with {float(prefix.removeprefix('eval_decoys')):.0%} decoys"
    return words
