"""Which rows of a comparison share data, and what their seeds say against each other.

Data are a pure function of the task's configuration, seed, stream and step, and of who draws (`data`). So two
configurations that have these, the batch size and the number of evaluation samples in common train and are tested,
seed by seed, on the same sequences (which a curriculum shortens), and their difference over seeds varies less than
either does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rnnlstm.config.errors import ConfigError, show
from rnnlstm.reporting.runs import Run, differing_keys, labels
from rnnlstm.reporting.selection import canonical, select
from rnnlstm.reporting.statistics import Bounds, Differences, evaluated_every, median_of, solve_time

#: Keys beside those of the task that decide what the data of a seed are.
DATA_KEYS = ("train.batch_size", "eval.samples", "data")
#: In a metric's name: less is better.
LESS_IS_BETTER = ("error", "loss", "mse", "perplexity")
ENDED = ("done", "diverged")  # what such a seed's metric is, it stays

#: A configuration of the data, and a seed: what two sides have in common is compared.
Unit = tuple[tuple[str, ...], int]


@dataclass(frozen=True)
class Contest:
    """A row against the reference of its task and length."""

    title: str  #: task and length, and the reference
    name: str
    run: Run  #: the row
    metric_name: str | None  #: None where the two have no metric in common
    metric: Differences  #: of the headline metric, over the units that have ended on both sides
    steps: Differences  #: of the updates to solve, over all common units

    @property
    def better(self) -> int:
        """Units in which the row's metric is the better one."""
        return self.metric.below if less_is_better(self.metric_name) else self.metric.above

    @property
    def worse(self) -> int:
        return self.metric.above if less_is_better(self.metric_name) else self.metric.below


def less_is_better(metric_name: str | None) -> bool:
    return any(word in (metric_name or "") for word in LESS_IS_BETTER)


def contests(rows: Sequence[Run], against: Sequence[str] = ()) -> list[Contest]:
    """Each row against the reference of its task and length, where they have units in common.

    The reference is the row with the lowest median loss, or the one that meets the conditions `against`.
    Raises: ConfigError if none does, or several of one task and length.
    """
    if against:
        select(rows, against)
    pairs = []
    for title, members in _by_task(rows).items():
        names = labels(members)
        reference = _reference(members, names, against)
        if reference is None:
            continue
        units = _Units(members[reference])
        for k, run in enumerate(members):
            if k != reference:
                pairs.append(_contest(f"{title}minus {names[reference]}", names[k], run, units))
    return [contest for contest in pairs if contest.steps.bounds]


def _by_task(rows: Sequence[Run]) -> dict[str, list[Run]]:
    """The rows of each task and length, by a title that is empty if there is only one."""
    groups: dict[str, list[Run]] = {}
    for run in rows:
        task, length = show(run.config.get("task.name")), show(run.config.get("task.length"))
        groups.setdefault(f"{task}, length {length}: ", []).append(run)
    return groups if len(groups) > 1 else {"": list(rows)}


def _reference(runs: Sequence[Run], names: Sequence[str], against: Sequence[str]) -> int | None:
    if not against:
        return min(range(len(runs)), key=lambda k: statistics.median(runs[k].values("loss") or [math.inf]))
    try:
        (chosen, *others) = select(runs, against)
    except ConfigError:  # another task has it
        return None
    if others:
        which = "; ".join(name for run, name in zip(runs, names, strict=True) if run in (chosen, *others[:3]))
        more = [key for key in differing_keys([chosen, *others]) if key in chosen.config]
        words = [f"{key.removesuffix('.name')}={show(chosen.config[key])}" for key in more]
        example = f"; name one, such as {' '.join((*against, *words))}" if words else ""
        raise ConfigError(f"--against {' '.join(against)}: {len(others) + 1} rows are that: {which}{example}")
    return next(k for k, run in enumerate(runs) if run is chosen)


class _Units:
    """A row's values by unit. Where a group has several configurations of one unit, their median: seeds are what
    varies independently, not configurations."""

    def __init__(self, run: Run) -> None:
        metrics: dict[Unit, list[float]] = {}
        steps: dict[Unit, list[Bounds]] = {}
        self.metric_names = {str(seed.get("metric_name")) for seed in run.seeds}
        for member in run.members:
            data = data_of(member)
            for seed in member.seeds:
                unit = (data, seed.get("seed", -1))
                steps.setdefault(unit, []).append(_solving(seed, evaluated_every(member)))
                value = seed.get("metric")
                if seed.get("status") in ENDED and isinstance(value, int | float) and math.isfinite(value):
                    metrics.setdefault(unit, []).append(float(value))
        self.metrics = {unit: statistics.median(values) for unit, values in metrics.items()}
        self.steps = {unit: median_of(bounds) for unit, bounds in steps.items()}


def data_of(run: Run) -> tuple[str, ...]:
    """What decides the data of a seed, but for the seed."""
    keys = [key for key in run.config if key.startswith("task.") or key in DATA_KEYS]
    return tuple(f"{key}={canonical(run.config[key])}" for key in sorted(keys))


def _solving(seed: dict[str, object], every: int) -> Bounds:
    step, solved = solve_time(seed, every)
    if solved or math.isinf(step):
        return step, step
    return step + 1, math.inf


def _contest(title: str, name: str, run: Run, b: _Units) -> Contest:
    a = _Units(run)
    shared = [unit for unit in a.steps if unit in b.steps]
    ended = [unit for unit in shared if unit in a.metrics and unit in b.metrics]
    names = a.metric_names | b.metric_names
    return Contest(
        title,
        name,
        run,
        next(iter(names)) if len(names) == 1 else None,
        Differences.of([(a.metrics[unit],) * 2 for unit in ended], [(b.metrics[unit],) * 2 for unit in ended]),
        Differences.of([a.steps[unit] for unit in shared], [b.steps[unit] for unit in shared]),
    )
