"""Which runs are compared and how they are grouped: `--where` and `--by`, on the configuration's keys."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import ConfigError, did_you_mean, printable, show
from rnnlstm.record.folders import seed_folder
from rnnlstm.record.summary import FINISHED
from rnnlstm.reporting.runs import Run, find_runs, in_order

MOST_VALUES = 8  # of a key, in a message


@dataclass(frozen=True)
class Group(Run):
    """Runs pooled: all their seeds, and of the configuration what they have in common."""

    parts: tuple[Run, ...] = field(default=())

    @property
    def members(self) -> tuple[Run, ...]:
        return self.parts


def pool(runs: Sequence[Run]) -> Group:
    """The runs as one."""
    first, *others = runs
    config = {
        key: value
        for key, value in first.config.items()
        if all(key in run.config and canonical(run.config[key]) == canonical(value) for run in others)
    }
    seeds = [seed for run in runs for seed in run.seeds]
    return Group(first.folder, config, seeds, first.found, tuple(runs))


def group_by(runs: Sequence[Run], words: Sequence[str]) -> list[Group]:
    """The runs pooled by the keys' values, numbers in their order; a seed of one configuration counts once.

    Raises: ConfigError for an unknown key.
    """
    return [pool(count_once(group)[0]) for group in _groups(runs, words)]


def _groups(runs: Sequence[Run], words: Sequence[str]) -> list[list[Run]]:
    keys = [find_key(word, runs) for word in words]
    groups: dict[tuple[tuple[int, float, str], ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(_order(run.config.get(key)) for key in keys), []).append(run)
    return [groups[values] for values in sorted(groups)]


#: What a seed has come to; the other fields of its summary are times and sizes.
RESULTS = ("status", "steps", "solved", "steps_to_solve", "metric", "loss", "clip_rate", "median_norm_before_clip")


@dataclass(frozen=True)
class Repeat:
    """A seed that two folders of one configuration hold."""

    counted: Path
    left_out: Path
    differ: bool  #: whether both have ended, with other results


def count_once(runs: Sequence[Run]) -> tuple[list[Run], list[Repeat]]:
    """The runs with each seed of a configuration in one of them alone; runs without any seed are left out.

    Of several folders that hold a seed, the first in which it has ended counts, in the order in which they were
    found; the first of all if it has ended in none.
    """
    by_seed: dict[tuple[tuple[str, ...], int], list[tuple[Run, dict[str, Any]]]] = {}
    for run in sorted(runs, key=lambda run: run.found):
        for seed in run.seeds:
            by_seed.setdefault((run.configuration, seed["seed"]), []).append((run, seed))
    if all(len(places) == 1 for places in by_seed.values()):
        return list(runs), []
    kept: dict[int, list[dict[str, Any]]] = {}
    repeats = []
    for (_, number), places in by_seed.items():
        ended = [place for place in places if place[1].get("status") in FINISHED]
        counted, summary = (ended or places)[0]
        kept.setdefault(id(counted), []).append(summary)
        for run, other in places:
            if run is not counted:
                differ = other.get("status") in FINISHED and _results(other) != _results(summary)
                repeats.append(Repeat(seed_folder(counted.folder, number), seed_folder(run.folder, number), differ))
    left = [replace(run, seeds=kept[id(run)]) for run in runs if id(run) in kept]
    return left, repeats


def _results(summary: dict[str, Any]) -> list[str]:
    return [repr(summary.get(name)) for name in RESULTS]


def _one_row(runs: Sequence[Run]) -> Run:
    """The folders of one configuration as one run."""
    if len(runs) == 1:
        return runs[0]
    first, *_ = runs = sorted(runs, key=lambda run: run.found)
    seeds = [seed for run in runs for seed in run.seeds]
    return Group(first.folder, first.config, seeds, first.found, tuple(runs))


def _note(repeats: Sequence[Repeat]) -> str:
    """The line about seeds that several folders hold."""
    count, differing = len(repeats), [repeat for repeat in repeats if repeat.differ]
    example = (differing or list(repeats))[0]
    again = "seed is" if count == 1 else "seeds are"
    text = f"{count:,} {again} in another folder of the same configuration, too, and counted once"
    if differing:
        text += f"; the results of {len(differing):,} differ, the first counts"
    return printable(f"{text} ({example.counted}, not {example.left_out})")


def pooled_over(groups: Sequence[Run]) -> list[str]:
    """Keys whose values differ between the runs of a group, in any of them."""
    pooled: dict[str, None] = {}
    for group in groups:
        for key in dict.fromkeys(key for member in group.members for key in member.config):
            if key not in group.config:
                pooled[key] = None
    return list(pooled)


def select(runs: Sequence[Run], conditions: Iterable[str]) -> list[Run]:
    """The runs that meet every `key=value` or `key=value,value`. Raises: ConfigError, also if none does."""
    for condition in conditions:
        word, equals, text = condition.partition("=")
        if not equals:
            raise ConfigError(f"can't read {show(condition)}: a condition is written key=value")
        key = find_key(word, runs)
        wanted = {canonical_text(part) for part in re.split(r",(?![^\[]*\])", text)}
        left = [run for run in runs if canonical(run.config.get(key)) in wanted]
        if not left:
            raise ConfigError(f"no run has {show(condition)}: there is {_values(runs, key)}")
        runs = left
    return list(runs)


def find_key(word: str, runs: Iterable[Run]) -> str:
    """The full key: `task` is `task.name`, and a last part stands for the key if it is the only one of that name.

    Raises: ConfigError for one that no run has.
    """
    known = list(dict.fromkeys(key for run in runs for key in run.config))
    if word in known:
        return word
    if f"{word}.name" in known:
        return f"{word}.name"
    ends = [key for key in known if key.rpartition(".")[2] == word and "." in key]
    if len(ends) == 1:
        return ends[0]
    if ends and word != "name":
        raise ConfigError(f"{show(word)} could be {' or '.join(ends)}")
    raise ConfigError(f"unknown key {show(word)}{did_you_mean(word, [*known, *_ends(known)])}")


def first_of_each(kinds: Sequence[Hashable], most: int) -> list[int]:
    """Where, of things of several kinds in an order, the first of each kind stand, then the second of each, and so
    on: at most so many places, in their order."""
    met: dict[Hashable, int] = {}
    ranks = []
    for kind in kinds:
        ranks.append(met.setdefault(kind, 0))
        met[kind] += 1
    return sorted(sorted(range(len(kinds)), key=lambda k: (ranks[k], k))[:most])


def canonical(value: Any) -> str:
    """A value as text that is the same for equal values: 1 and 1.0, 3e-3 and 0.003."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return canonical_text(str(value))
    return re.sub(r"\s", "", value if isinstance(value, str) else show(value))


def canonical_text(text: str) -> str:
    """The same for a value as it is written on a command line."""
    try:
        return repr(float(text))
    except ValueError:
        return re.sub(r"\s", "", text)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(canonical(value)), ""  # through text: a whole number can be too large for float()
    return (1, 0.0, canonical(value)) if value is not None else (2, 0.0, "")


def _values(runs: Iterable[Run], key: str) -> str:
    values = sorted({_order(run.config.get(key)): show(run.config.get(key)) for run in runs}.items())
    texts = [text for _, text in values]
    return ", ".join(texts[:MOST_VALUES]) + (
        f" and {len(texts) - MOST_VALUES} more" if len(texts) > MOST_VALUES else ""
    )


def _ends(keys: Iterable[str]) -> list[str]:
    return [key.rpartition(".")[2] for key in keys if not key.endswith(".name")] + [
        key.removesuffix(".name") for key in keys if key.endswith(".name")
    ]


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison: configurations, or groups of them."""

    rows: list[Run]
    by: list[str] = field(default_factory=list)  #: full keys, if the rows are groups
    where: list[str] = field(default_factory=list)  #: the conditions that the runs meet
    notes: list[str] = field(default_factory=list)  #: lines about what was counted


def compare(places: Sequence[str], conditions: Sequence[str] = (), by: Sequence[str] = ()) -> Comparison:
    """The runs below `places` that meet the conditions, grouped if asked for.

    One configuration in several folders is one row, unless they have different labels (`name`). A seed of one
    configuration counts once in a row. Raises: ConfigError.
    """
    runs = select(find_runs(places), conditions)
    words = [word for words in by for word in words.split(",") if word]
    groups: list[list[Run]] = []
    if words:
        groups = _groups(runs, words)
    else:
        by_label: dict[tuple[object, ...], list[Run]] = {}
        for run in runs:
            by_label.setdefault((show(run.config.get("name")), run.configuration), []).append(run)
        groups = list(by_label.values())
    once = [count_once(group) for group in groups]
    repeats = [repeat for _, found in once for repeat in found]
    rows: list[Run] = [pool(group) for group, _ in once] if words else in_order(_one_row(group) for group, _ in once)
    keys = [find_key(word, runs) for word in words]
    return Comparison(rows, keys, list(conditions), [_note(repeats)] if repeats else [])
