"""Which configurations the figures show: a bounded number of each task, every model among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnnlstm.config.errors import show
from rnnlstm.reporting.colours import colour_numbers
from rnnlstm.reporting.runs import Run, by_task, labels, task_title
from rnnlstm.reporting.selection import first_of_each

#: Configurations in the figures of one task: as many as there are colours.
MOST_SHOWN = 8
#: Tasks (and lengths of them) with figures.
MOST_GROUPS = 8


@dataclass(frozen=True)
class Shown:
    """A configuration in figures: its name there, and the number of its colour and dashes."""

    run: Run
    name: str
    style: int


@dataclass(frozen=True)
class TaskGroup:
    """The rows of one task and length."""

    key: str  #: for ids: `g1`
    title: str
    task: str
    runs: list[Run]
    names: list[str]  #: of the runs
    shown: list[Shown]

    @property
    def left_out(self) -> int:
        return len(self.runs) - len(self.shown)

    @property
    def metric(self) -> str:
        """The headline metric's name, or an empty text."""
        names = (seed["metric_name"] for run in self.runs for seed in run.seeds)
        return next((name for name in names if name), "")


def grouped(runs: Sequence[Run]) -> list[TaskGroup]:
    """The rows by task and length, in their order."""
    groups = []
    for number, ((task, length), members) in enumerate(by_task(runs).items(), start=1):
        names = labels(members)
        # The best of each model first: runs come in the order of their loss.
        chosen = first_of_each([show(run.config.get("model.name")) for run in members], MOST_SHOWN)
        styles = colour_numbers([names[k] for k in chosen])
        shown = [Shown(members[k], names[k], style) for k, style in zip(chosen, styles, strict=True)]
        groups.append(TaskGroup(f"g{number}", task_title(task, length), str(task), members, names, shown))
    return groups
