"""A network whose gradient flow is measured, and what it is called beside others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnlstm.config.errors import printable
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.models import Network
from rnnlstm.record.folders import HOUSEKEEPING, flatten
from rnnlstm.reporting.runs import Run, labels, task_title
from rnnlstm.training.plan import Plan


@dataclass(frozen=True)
class Setting:
    """A network to look at."""

    plan: Plan
    seed: int
    network: Network
    place: str = ""  #: the folder of a trained one

    @property
    def trained(self) -> bool:
        return bool(self.place)

    def subject(self, sequences: int) -> AnalysedNetwork:
        task = self.plan.task
        return AnalysedNetwork.of(task, self.network, task.sample(self.seed, 0, "probe", sequences))


def setting_labels(settings: Sequence[Setting]) -> list[str]:
    """Each network in the words that tell it from the others, as a comparison has them: `rnn, init=default`. Then
    task and length where they differ, and the seed, of a trained one always; where nothing differs, the folder."""
    trees = [{k: v for k, v in s.plan.config.tree.items() if k not in HOUSEKEEPING or k == "name"} for s in settings]
    configs = [dict(flatten(tree)) for tree in trees]
    titles = [task_title(config.pop("task.name"), config.pop("task.length")) for config in configs]
    names = labels([Run(Path(), config, []) for config in configs])
    if len(set(titles)) > 1:
        names = [f"{name}, {title}" for name, title in zip(names, titles, strict=True)]
    several = len({s.seed for s in settings}) > 1
    notes = [
        [*(["trained"] if s.trained else []), *([f"seed {s.seed}"] if s.trained or several else [])] for s in settings
    ]
    full = [_noted(name, note) for name, note in zip(names, notes, strict=True)]
    return [
        one if full.count(one) == 1 else _noted(name, [*note, printable(s.place)])
        for one, name, note, s in zip(full, names, notes, settings, strict=True)
    ]


def _noted(name: str, notes: Sequence[str]) -> str:
    words = ", ".join(filter(None, notes))
    return f"{name} ({words})" if words else name
