"""How far a network reaches: its chance of solving a task, by length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rnnlstm.reporting.runs import UNLABELLED, Run, labels
from rnnlstm.reporting.selection import canonical
from rnnlstm.reporting.statistics import wilson


@dataclass(frozen=True)
class Reach:
    """One network on one task. Only seeds that have come to their end count: solved, done or diverged."""

    task: str
    name: str
    lengths: list[int]
    solved: list[int]  #: seeds, by length
    seeds: list[int]

    @property
    def shares(self) -> list[float]:
        return [s / n for s, n in zip(self.solved, self.seeds, strict=True)]

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Wilson's, 95 %, by length."""
        return [wilson(s, n) for s, n in zip(self.solved, self.seeds, strict=True)]

    @property
    def longest(self) -> int | None:
        """The longest length at which at least half of the seeds solve the task, as at all shorter ones."""
        found = None
        for length, share in zip(self.lengths, self.shares, strict=True):
            if share < 0.5:
                break
            found = length
        return found


def reaches(runs: Sequence[Run]) -> list[Reach]:
    """Of every network that was trained at two lengths of a task or more, in the runs' order."""
    networks: dict[tuple[str, ...], dict[int, list[Run]]] = {}
    for run in runs:
        length = run.config.get("task.length")
        if isinstance(length, int):
            networks.setdefault(_network(run), {}).setdefault(length, []).append(run)
    several = [by_length for by_length in networks.values() if len(by_length) > 1]
    names = labels([next(iter(by_length.values()))[0] for by_length in several])
    found = []
    for name, by_length in zip(names, several, strict=True):
        counts = {length: _counts(members) for length, members in sorted(by_length.items())}
        counts = {length: (solved, seeds) for length, (solved, seeds) in counts.items() if seeds}
        if counts:
            task = str(next(iter(by_length.values()))[0].config.get("task.name") or "several tasks")
            solved, seeds = zip(*counts.values(), strict=True)
            found.append(Reach(task, name, list(counts), list(solved), list(seeds)))
    return found


def by_reach(found: Sequence[Reach]) -> dict[str, list[Reach]]:
    """Of each task, the networks that reach farthest first."""
    tasks: dict[str, list[Reach]] = {}
    for reach in found:
        tasks.setdefault(reach.task, []).append(reach)
    for members in tasks.values():
        members.sort(key=lambda reach: (-(reach.longest or 0), -sum(reach.shares)))
    return tasks


def _network(run: Run) -> tuple[str, ...]:
    """All of the configuration but the length, and for how long it may be trained."""
    kept = {key: value for key, value in run.config.items() if key not in UNLABELLED or key == "task.name"}
    return tuple(f"{key}={canonical(value)}" for key, value in sorted(kept.items()))


def _counts(members: Sequence[Run]) -> tuple[int, int]:
    ended = [s for run in members for s in run.seeds if s["solved"] or s["status"] in ("done", "diverged")]
    return sum(bool(s["solved"]) for s in ended), len(ended)
