"""What a study is: settings × arms that are trained or measured, the published reference, and checks.

A study is a class with a registering decorator in a file of its own under `studies/`. Everything that decides a
verdict is written there, and committed before the final runs. Nothing here imports torch: `--list` answers at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

from rnnlstm.studies.rows import Row, Rows

SIZES = ("quick", "standard", "long")
#: Learning rates that every arm is tuned over.
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
#: Seeds that verdicts come from begin here, those that choose the learning rate there: they never meet.
FIRST_FINAL, FIRST_TUNING = 0, 100


class Minutes(NamedTuple):
    """About how long each size takes, one thread of a core of its own; None: there is no such size."""

    quick: float | None = None
    standard: float | None = None
    long: float | None = None


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared: its name in tables, and the overrides that make it."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """A task at a length, with the arms that are trained on it.

    `rate`: one learning rate for all arms, untuned, where the rate is what is studied. `rates_of`: the name of the
    setting whose chosen rates are taken over, where tuning at this length would cost more than the runs.
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
    fresh ones at the rate chosen."""

    settings: tuple[Setting, ...]
    grid: tuple[float, ...] = GRID
    tuning_seeds: int = 2
    final_seeds: int = 5
    common: tuple[str, ...] = ()
    tuning_samples: int | None = None  #: sequences that tuning runs are tested on; None: as many as final ones

    @property
    def final(self) -> range:
        return range(FIRST_FINAL, FIRST_FINAL + self.final_seeds)

    @property
    def tuning(self) -> range:
        return range(FIRST_TUNING, FIRST_TUNING + self.tuning_seeds)


@dataclass(frozen=True)
class Check:
    """One sentence of the criterion, and the test that answers it with whether it holds and what was measured."""

    text: str
    test: Callable[[Rows], tuple[bool, str]]


@dataclass(frozen=True)
class Finding:
    """A check, answered."""

    text: str
    passed: bool
    measured: str


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
    #: What the figure shows over the settings: `metric`, `steps`, `solved`, or a name in `Row.scores`; of several the
    #: first that was measured.
    figure: ClassVar[str | tuple[str, ...]] = "metric"
    log_scale: ClassVar[bool] = False

    @property
    def sizes(self) -> tuple[str, ...]:
        return tuple(size for size in SIZES if getattr(self.minutes, size) is not None)

    @abstractmethod
    def checks(self, size: str) -> list[Check]:
        """The criterion."""

    def findings(self, size: str, rows: Sequence[Row]) -> list[Finding]:
        table = Rows(rows)
        found = []
        for check in self.checks(size):
            passed, measured = check.test(table)
            found.append(Finding(check.text, bool(passed), measured))
        return found

    def sweep(self, size: str) -> Sweep | None:
        """What is trained; None for a study that trains nothing, and gives its rows by `measured`."""
        return None

    def measured(self, size: str) -> list[Row]:
        """The rows of a study that trains nothing."""
        raise NotImplementedError

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """Measurements on the trained network of one seed, by name; they become `Row.scores`."""
        return {}

    def resolved(self, size: str, overrides: tuple[str, ...], folder: Path) -> tuple[str, ...]:
        """The overrides with everything in them settled that would be measured anew each time (`match=step_time`);
        what was settled is kept in `folder`."""
        return overrides


AnyStudy = TypeVar("AnyStudy", bound=type[Study])
#: The studies whose files have been imported; `catalog.py` imports all.
STUDIES: dict[str, Study] = {}


def register_study(name: str) -> Callable[[AnyStudy], AnyStudy]:
    """Class decorator: `@register_study("adding")`."""

    def enter(cls: AnyStudy) -> AnyStudy:
        cls.name = name
        STUDIES[name] = cls()
        return cls

    return enter
