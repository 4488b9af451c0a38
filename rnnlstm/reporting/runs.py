"""Runs, finished or not, read from their folders; the states of their seeds; their labels in tables and charts."""

from __future__ import annotations

import logging
import math
import os
import random
import re
import socket
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rnnlstm.config.errors import ConfigError, printable, show
from rnnlstm.record.files import LOCK, lock_holder
from rnnlstm.record.folders import (
    CLIP_EVENTS,
    FLOW,
    HOUSEKEEPING,
    METRICS,
    SAMPLES,
    SUMMARY,
    find_run_folders,
    plain_numbers,
    seed_folder,
    seed_folders,
)
from rnnlstm.record.reader import Sample, read_clip_events, read_flow, read_metrics, read_samples
from rnnlstm.record.summary import read_summaries, read_summary
from rnnlstm.reporting.records import Curve, Flow, evaluation_curve, flows_by_state

LOG = logging.getLogger("rnnlstm")

#: Seeds whose records are read for a curve: the records of thousands would take minutes.
MOST_RECORDS = 64
#: Lines of each kind that are read of one seed's record: a picture shows no more.
MOST_LINES = 2048
MOST_FLOWS = 512
#: Beginnings of the tags that pictures and pages show; what is logged at every update is not among them.
SHOWN = ("eval", "baseline/", "clip/", "gate/", "gate_by_kind/", "counterfactual/")


def without_processes(folder: Path, summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summaries of a run folder, `stopped` in place of `running` where its process is known to be gone."""
    if not any(summary.get("status") == "running" for summary in summaries) or held(folder) is not False:
        return list(summaries)
    return [{**s, "status": "stopped"} if s.get("status") == "running" else s for s in summaries]


def held(folder: Path) -> bool | None:
    """Whether a process of this machine holds the run folder; None if that can't be known: it ran on another machine,
    or the lock is just being taken.

    The lock file names the process, which must have the file open. Trying the lock instead would make a training
    command that starts at that moment find it taken.
    """
    holder = lock_holder(folder)
    if holder is None or holder["host"] != socket.gethostname() or holder["pid"] <= 0:
        return None
    try:
        os.kill(holder["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return None
    return _has_open(holder["pid"], folder / LOCK)


def _has_open(pid: int, path: Path) -> bool | None:
    """Whether a process has the file open: another one may have got the number of one that has ended."""
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
        wanted = path.stat()
    except OSError:  # no such folder on this system, or another user's
        return None
    for entry in entries:
        try:
            opened = entry.stat()
        except OSError:
            continue
        if (opened.st_dev, opened.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


@dataclass(frozen=True)
class Run:
    """One configuration, its seeds' summaries, and their records over training."""

    folder: Path
    config: dict[str, Any]  #: flat: `model.init` → `chrono`
    seeds: list[dict[str, Any]]  #: the summaries, by seed; `status` is `stopped` where the process has ended
    found: int = 0  #: its place in the order of the folders that were named

    @property
    def members(self) -> tuple[Run, ...]:
        """The runs whose seeds these are: this one, or those of a group, in the order of `seeds`."""
        return (self,)

    @cached_property
    def configuration(self) -> tuple[str, ...]:
        """What it computes: each key with its value, without the run's label and other housekeeping."""
        kept = {key: value for key, value in self.config.items() if key.partition(".")[0] not in HOUSEKEEPING}
        return tuple(sorted(f"{key}={plain_numbers(value)!r}" for key, value in kept.items()))

    @property
    def configurations(self) -> int:
        """How many different ones its members have."""
        return len({member.configuration for member in self.members})

    def values(self, key: str) -> list[float]:
        """A summary's number over the seeds that have it."""
        return [float(seed[key]) for seed in self.seeds if isinstance(seed.get(key), int | float)]

    @property
    def records(self) -> list[tuple[Path, dict[str, Any]]]:
        """The folder and the summary of each seed; of very many, some drawn at random, always the same."""
        records = [(seed_folder(run.folder, seed["seed"]), seed) for run in self.members for seed in run.seeds]
        return records if len(records) <= MOST_RECORDS else random.Random(0).sample(records, MOST_RECORDS)

    @cached_property
    def series(self) -> list[dict[str, dict[int, float]]]:
        """For each seed, the values by step of each tag that begins with one of `SHOWN`."""
        return [_series(folder, quiet=not seed["steps"]) for folder, seed in self.records]

    @cached_property
    def flows(self) -> dict[str, Flow]:
        """By state, the gradient through time over training."""
        return flows_by_state([list(read_flow(folder / FLOW, most=MOST_FLOWS)) for folder, _ in self.records])

    def curve(self, tag: str) -> Curve | None:
        """`tag` over training; None without any value."""
        return evaluation_curve(self.series, tag)

    def tags(self, beginning: str) -> list[str]:
        """Tags that begin so, in the order in which they were written."""
        return list({tag: None for seed in self.series for tag in seed if tag.startswith(beginning)})

    def ends(self, tag: str) -> tuple[float, float] | None:
        """The medians over seeds of the first and of the last finite value."""
        values = [[v for v in seed.get(tag, {}).values() if math.isfinite(v)] for seed in self.series]
        ends = [(v[0], v[-1]) for v in values if v]
        return (float(np.median([v[0] for v in ends])), float(np.median([v[1] for v in ends]))) if ends else None

    @property
    def samples(self) -> list[tuple[int, list[Sample]]]:
        """Step and decoded sequences of the first seed that has any."""
        return next(
            (looks for folder, _ in self.records if (looks := list(read_samples(folder / SAMPLES, MOST_FLOWS)))), []
        )

    @property
    def solved(self) -> int:
        return sum(bool(seed.get("solved")) for seed in self.seeds)


def find_runs(places: Iterable[str]) -> list[Run]:
    """Every run below `places`: by task and length, the lowest held-out loss first.

    A file that is damaged is named in a warning, and what it is of is left out.

    Raises: ConfigError if a place isn't there, or no run is found in any.
    """
    places = list(places)
    runs = []
    for place, (folder, config) in enumerate(find_run_folders(places).items()):
        try:
            summaries, problems = read_summaries(folder)
        except OSError as error:
            summaries, problems = [], [f"{folder}: can't be read: {error.strerror}"]
        for problem in problems:
            LOG.warning("%s; the seed is left out", printable(problem))
        if summaries:
            runs.append(Run(folder, config, without_processes(folder, summaries), place))
    if not runs:
        raise ConfigError(f"no runs in {', '.join(show(place) for place in places)}: none has a summary of a seed")
    return in_order(runs)


def _series(folder: Path, quiet: bool) -> dict[str, dict[int, float]]:
    by_tag: dict[str, dict[int, float]] = {}
    norms: dict[str, list[float]] = {"before": [], "after": []}  # of the lines since the last evaluation
    for step, values in read_metrics(folder / METRICS, quiet, MOST_LINES):
        shown = {tag: value for tag, value in values.items() if tag.startswith(SHOWN)}
        for which, window in norms.items():
            if math.isfinite(norm := values.get(f"grad/norm_{which}_clip", math.nan)):
                window.append(norm)
            if "eval/loss" in values:
                if window:  # probe=full records them of every update, and they stand
                    ends = zip(("q10", "q50", "q90"), np.quantile(window, (0.1, 0.5, 0.9)).tolist(), strict=True)
                    shown = {f"clip/norm_{which}_{q}": norm for q, norm in ends} | shown
                window.clear()
        for tag, value in shown.items():
            by_tag.setdefault(tag, {})[step] = value
    if not any(tag.startswith("clip/largest/") for tag in by_tag):
        fired = read_clip_events(folder / CLIP_EVENTS, quiet, MOST_LINES)
        largest = Counter(event["largest_parameter"] for _, event in fired)
        last = max((step for values in by_tag.values() for step in values), default=0)
        by_tag |= {f"clip/largest/{name}": {last: n / largest.total()} for name, n in largest.items()}
    return by_tag


def in_order(runs: Iterable[Run]) -> list[Run]:
    """By task and length, the lowest held-out loss first."""
    return sorted(runs, key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    losses = [loss for loss in run.values("loss") if not math.isnan(loss)]
    loss, length = statistics.median(losses) if losses else math.inf, run.config.get("task.length")
    return str(run.config.get("task.name")), length if isinstance(length, int) else 0, loss, str(run.folder)


def by_task(runs: Iterable[Run]) -> dict[tuple[object, object], list[Run]]:
    """The runs of each task and length."""
    groups: dict[tuple[object, object], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.config.get("task.name"), run.config.get("task.length")), []).append(run)
    return groups


def task_title(task: object, length: object) -> str:
    """`keyword, T = 100`; a group of runs need have neither in common."""
    return ", ".join([str(task or "several tasks"), *([] if length is None else [f"T = {length}"])])


def differing_keys(runs: Iterable[Run]) -> list[str]:
    """Keys that two runs have with different values, in the configuration's order."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.config.items():
            values.setdefault(key, set()).add(repr(value))
    return [key for key, seen in values.items() if len(seen) > 1]


#: Differing keys that say how long a run may take, not what it is: left out of labels.
UNLABELLED = ("train.steps", "task.name", "task.length", "train.stop_when_solved")


def label(run: Run, runs: Iterable[Run]) -> str:
    """A configuration in few words: its model, then what tells it from the others."""
    return _label(run, differing_keys(runs))


def labels(runs: Sequence[Run]) -> list[str]:
    """The label of each. Task, length and the budget are in it only if labels would be equal without them."""
    differing = differing_keys(runs)
    names = [_label(run, differing) for run in runs]
    if len(set(names)) < len(names):
        names = [_label(run, differing, ()) for run in runs]
    return names


def shortened(name: str, longest: int) -> str:
    """At most so many characters, the last then an ellipsis."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _label(run: Run, differing: Iterable[str], left_out: Sequence[str] = UNLABELLED) -> str:
    words = [str(run.config["model.name"])] if "model.name" in run.config else []
    differing = list(differing)
    ends = [key.rpartition(".")[2] for key in differing]
    for key, end in zip(differing, ends, strict=True):
        if key != "model.name" and key not in left_out and key in run.config:
            name = key.removesuffix(".name") if end == "name" else end if ends.count(end) == 1 else key
            words.append(f"{name}={show(run.config[key])}")
    return ", ".join(words) or "all"


#: A seed's states, in the order of the table; `stopped`: its process is gone and left no reason.
STATES = ("done", "running", "interrupted", "stopped", "diverged", "failed", "missing")
MOST_REASONS = 5  # lines


def counts(run: Run) -> dict[str, int]:
    """How many seeds are in each state, all of `STATES`. A state that isn't known here counts as failed."""
    by_status = Counter(str(seed.get("status")) for seed in run.seeds)
    known = {state: by_status.pop(state, 0) for state in STATES}
    known["failed"] += by_status.total()
    missing: set[tuple[tuple[str, ...], int]] = set()
    present = {(member.configuration, seed["seed"]) for member in run.members for seed in member.seeds}
    for member in run.members:
        missing |= {(member.configuration, seed) for seed in missing_seeds(member)}
    return known | {"missing": len(missing - present)}


def missing_seeds(run: Run) -> list[int]:
    """Seeds that were started or requested and left no readable summary.

    A run's folder doesn't say how many seeds were requested. A seed is missing if it has a folder without a readable
    summary, or if its number is a gap between those of others and there are fewer gaps than seeds.
    """
    present = {seed["seed"] for seed in run.seeds if isinstance(seed.get("seed"), int)}
    try:
        begun = {seed: place for seed, place in seed_folders(run.folder) if seed not in present}
    except OSError:
        return []
    missing = {seed for seed, place in begun.items() if not _readable(place / SUMMARY)}
    row = range(min(present, default=0), max(present, default=-1) + 1)
    if len(row) < 2 * len(present):
        missing |= set(row) - present - set(begun)
    if not missing or held(run.folder):  # they may be about to start
        return []
    return sorted(missing)


def _readable(path: Path) -> bool:
    try:
        read_summary(path)
    except (OSError, ValueError):
        return False
    return True


def reasons(runs: Sequence[Run]) -> list[str]:
    """Lines with the reasons for which seeds diverged or failed, most frequent first, and a run that has each."""
    by_reason: dict[tuple[str, str], list[tuple[str, str]]] = {}  # where, and the reason in full
    for run, name in zip(runs, labels(runs), strict=True):
        for seed in run.seeds:
            if seed.get("status") in ("diverged", "failed"):
                text = " ".join(str(seed.get("reason") or "no reason given").split())
                by_reason.setdefault((seed["status"], re.sub(r"\d+", "#", text)), []).append((name, text))
    lines = []
    for (status, _), cases in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        places = list(dict.fromkeys(name for name, _ in cases))
        texts = dict.fromkeys(text for _, text in cases)
        more = f" and {len(places) - 1:,} more" if len(places) > 1 else ""
        example = next(iter(texts)) + (", say" if len(texts) > 1 else "")
        lines.append(f"{len(cases):,} {status}: {shortened(example, 120)} ({places[0]}{more})")
    if len(lines) > MOST_REASONS:
        left = len(lines) - MOST_REASONS + 1
        lines = [*lines[: MOST_REASONS - 1], f"and {left:,} further reasons"]
    return lines
