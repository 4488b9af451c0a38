"""Which runs are compared and how they are grouped: `--where`, `--by` and `--best`, on the configuration's keys."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
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
            keys = (key for run in runs for key, value in run.config.items() if show(value) == word)
            hint = next((f"; did you mean {key.removesuffix('.name')}={show(word)}?" for key in keys), "")
            raise ConfigError(f"can't read {show(condition)}: a condition is written key=value{hint}")
        key = find_key(word, runs)
        parts = re.split(r",(?![^\[]*\])", text)
        wanted = {canonical_text(part) for part in parts}
        had = {canonical(run.config.get(key)) for run in runs}
        for part in parts:
            if "=" in part and canonical_text(part) not in had:
                raise ConfigError(f"can't read {show(condition)}: {show(part)} is a second condition: write it apart")
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
    """Numbers first."""
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


def rank(
    steps_to_solve: Sequence[int | None], budgets: Sequence[int], losses: Sequence[float]
) -> tuple[float, float, float]:
    """The project's order of settings, the best one lowest: the largest share of seeds that solved the task, then the
    fewest updates on average, then the lowest median loss. Each argument has an entry a seed; one that did not solve
    the task counts its whole budget. Studies choose learning rates by it, and `compare --best` any key."""
    solved = sum(step is not None for step in steps_to_solve)
    spent = [budget if step is None else step for step, budget in zip(steps_to_solve, budgets, strict=True)]
    return -solved / len(spent), statistics.fmean(spent), statistics.median(losses)


def held_out_loss(summary: Mapping[str, Any]) -> float:
    """A seed's loss at its latest evaluation; infinite if it diverged or has none."""
    loss = summary.get("loss")
    if summary["status"] == "diverged" or loss is None or not math.isfinite(loss):
        return math.inf
    return float(loss)


@dataclass
class _Choice:
    """Chooses the best values of `keys` in each row, and keeps what is to be said of it."""

    keys: list[str]
    seeds: frozenset[int] | None = None  #: that choose, and are not reported; None: all choose, and are reported
    tried: set[int] = field(default_factory=set)  #: how many values a row had
    reported: set[int] = field(default_factory=set)  #: how many seeds a row has
    uneven: bool = False  #: the values of a row have different seeds
    open: int = 0  #: values with seeds that have not finished
    without_others: list[str] = field(default_factory=list)  #: chosen values without seeds to report
    at_the_end: list[str] = field(default_factory=list)  #: rows whose best value is the first or last that was tried

    def rest(self, run: Run) -> tuple[object, ...]:
        """What the runs of a row have in common: all but the keys."""
        rest = [part for part in run.configuration if part.partition("=")[0] not in self.keys]
        return show(run.config.get("name")), *rest

    def values(self, run: Run) -> tuple[tuple[int, float, str], ...]:
        return tuple(_order(run.config.get(key)) for key in self.keys)

    def best(self, runs: Sequence[Run]) -> list[Run]:
        """Of a row's runs, those with the best values; with none of the seeds that chose. Empty if none is left."""
        candidates: dict[tuple[tuple[int, float, str], ...], list[Run]] = {}
        for run in runs:
            candidates.setdefault(self.values(run), []).append(run)
        ranks = {}
        seen = set()
        for values, members in candidates.items():
            seeds = [
                (seed, _budget(run))
                for run in count_once(members)[0]
                for seed in run.seeds
                if self.seeds is None or seed["seed"] in self.seeds
            ]
            if not seeds:
                continue
            steps = [seed["steps_to_solve"] if seed.get("solved") else None for seed, _ in seeds]
            budgets, losses = [budget for _, budget in seeds], [held_out_loss(seed) for seed, _ in seeds]
            ranks[values] = rank(steps, budgets, losses)
            seen.add(frozenset(seed["seed"] for seed, _ in seeds))
            self.open += any(seed["status"] not in FINISHED for seed, _ in seeds)
        if not ranks:
            return []
        self.tried.add(len(ranks))
        self.uneven = self.uneven or len(seen) > 1
        best = min(ranks, key=lambda values: (*ranks[values], values))
        chosen = candidates[best]
        if self.seeds is not None:
            others = [[seed for seed in run.seeds if seed["seed"] not in self.seeds] for run in chosen]
            left = [replace(run, seeds=seeds) for run, seeds in zip(chosen, others, strict=True) if seeds]
            if not left:
                config = chosen[0].config
                words = [("model", config.get("model.name")), *((key, config.get(key)) for key in self.keys)]
                text = " ".join(f"{key.removesuffix('.name')}={show(value)}" for key, value in words)
                self.without_others.append(text)
            chosen = left
        if chosen:
            self.reported.add(len({seed["seed"] for run in chosen for seed in run.seeds}))
            numbers = sorted(values for values in ranks if len(values) == 1 and values[0][0] == 0)
            solved = any(seed.get("solved") for run in chosen for seed in run.seeds)
            if len(numbers) > 1 and best in (numbers[0], numbers[-1]) and solved:
                self.at_the_end.append(show(chosen[0].config.get("model.name")))
        return chosen

    def notes(self) -> list[str]:
        """Lines below the table. Raises: ConfigError if no row is left."""
        lacking = ", ".join(self.without_others[:3]) + (" and more" if len(self.without_others) > 3 else "")
        if not self.reported:
            if self.without_others:
                raise ConfigError(f"--best-from: what it chose has no other seeds to report; train them: {lacking}")
            raise ConfigError("--best-from: no run has any of these seeds")
        text = f"Best of {_span(self.tried)} values of {', '.join(self.keys)} in each row: "
        text += "most seeds solved, then fewest updates, then lowest loss"
        if self.seeds is None:
            text += f"; chosen and reported on the same {_span(self.reported)} seeds, which is optimistic: "
            text += "--best-from SEEDS chooses on others"
        else:
            text += f"; chosen on other seeds than the {_span(self.reported)} of the table"
        notes = [text]
        if self.at_the_end:
            names = dict.fromkeys(self.at_the_end)
            notes.append(f"At the end of the values, beyond which a better one may lie: {', '.join(names)}")
        if self.without_others:
            notes.append(f"Left out, being chosen and without other seeds to report: {lacking}")
        if self.uneven:
            notes.append("Not all values of a row were tried on the same seeds")
        if self.open:
            notes.append(f"{self.open:,} of the values have seeds that have not finished: the choice may change")
        return notes


def _budget(run: Run) -> int:
    steps = run.config.get("train.steps")
    if isinstance(steps, int):
        return steps
    return max((seed["steps"] for seed in run.seeds), default=0)


def _span(counts: Iterable[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _choice(runs: Sequence[Run], words: Sequence[str], seeds: Iterable[int] | None) -> _Choice:
    """Raises: ConfigError for a key that is unknown or part of the task."""
    keys = [find_key(word, runs) for word in words]
    for key in keys:
        if key.startswith("task.") or key == "name":
            raise ConfigError(
                f"--best {key}: losses of different tasks don't compare; --by {key} makes a row of each"
            )
        if key.endswith(".name"):  # a choice brings keys that others lack: optimizer=sgd its momentum
            section = key.removesuffix("name")
            known = dict.fromkeys(other for run in runs for other in run.config if other.startswith(section))
            keys += [other for other in known if any(other not in run.config for run in runs)]
    return _Choice(list(dict.fromkeys(keys)), None if seeds is None else frozenset(seeds))


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison: configurations, or groups of them."""

    rows: list[Run]
    by: list[str] = field(default_factory=list)  #: full keys, if the rows are groups
    best: list[str] = field(default_factory=list)  #: full keys of which each row has the best values
    where: list[str] = field(default_factory=list)  #: the conditions that the runs meet
    notes: list[str] = field(default_factory=list)  #: lines about what was counted
    best_from: list[int] = field(default_factory=list)  #: seeds that have chosen those, if others are reported


def compare(
    places: Sequence[str],
    conditions: Sequence[str] = (),
    by: Sequence[str] = (),
    best: Sequence[str] = (),
    best_from: Iterable[int] | None = None,
) -> Comparison:
    """The runs below `places` that meet the conditions, grouped if asked for.

    One configuration in several folders is one row, unless they have different labels (`name`). A seed of one
    configuration counts once in a row. `best`: keys of which each row has the best values, by `rank`; `best_from`:
    the seeds that choose, which are then not reported. Raises: ConfigError.
    """
    runs = select(find_runs(places), conditions)
    words, best_words = ([word for words in given for word in words.split(",") if word] for given in (by, best))
    keys = [find_key(word, runs) for word in words]
    choice = _choice(runs, best_words, best_from) if best_words else None
    groups: list[list[Run]] = []
    if words:
        groups = _groups(runs, words)
    else:
        alike: dict[tuple[object, ...], list[Run]] = {}
        for run in runs:
            same = choice.rest(run) if choice else (show(run.config.get("name")), run.configuration)
            alike.setdefault(same, []).append(run)
        groups = list(alike.values())
    if choice:
        groups = [chosen for group in groups if (chosen := choice.best(group))]
    once = [count_once(group) for group in groups]
    repeats = [repeat for _, found in once for repeat in found]
    rows: list[Run] = [pool(group) for group, _ in once] if words else in_order(_one_row(group) for group, _ in once)
    notes = [*(choice.notes() if choice else []), *([_note(repeats)] if repeats else [])]
    return Comparison(rows, keys, choice.keys if choice else [], list(conditions), notes, sorted(best_from or ()))
