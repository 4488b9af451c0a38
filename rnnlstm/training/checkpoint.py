"""Checkpoints: whole or absent, damage is detected, and they hold data only.

A file is a line of JSON, `{"format": …, "version": 1, "bytes": n, "sha256": …}`, and n bytes of `torch.save`. Tensors
and plain values are all that is in them: they are read with `weights_only=True`, after their hash has been checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypedDict, cast, get_args, get_origin, get_type_hints, is_typeddict

import torch
from torch import Tensor

from rnnlstm.config.errors import CheckpointError, printable, show
from rnnlstm.config.schema import CheckpointOptions
from rnnlstm.config.untrusted import check_archive, read_regular
from rnnlstm.record.files import write_whole
from rnnlstm.record.folders import LINES, seed_folder
from rnnlstm.record.reader import LAST_STEP
from rnnlstm.record.seed_record import lost_lines
from rnnlstm.training.observe import InstrumentsState
from rnnlstm.training.replica import MOST_KEPT, ReplicaState
from rnnlstm.training.step import TrainerState, is_dense

LOG = logging.getLogger("rnnlstm")

FOLDER = "checkpoints"
BRANCH = "continue"  #: the folder of states that longer runs continue from
FORMAT, VERSION = "rnnlstm checkpoint", 1
KEPT = 2  #: files kept of a group: the newest may turn out to be damaged
LONGEST_HEADER = 1024
MOST_SEEDS = 10_000  #: in a group, as in a configuration


SAVED_STATUSES = ("running", "done", "diverged")  #: of a replica; the others are given after the last checkpoint
LONGEST_TEXT = 1000  #: characters
LONGEST_TIME = 1e10  #: seconds, three centuries: one update's time still counts beside it


class ClockState(TypedDict):
    """Seconds spent so far."""

    training: float
    instruments: float
    evaluation: float


class RunState(TypedDict):
    """All entries of a checkpoint: the state of a group of seeds after an update."""

    seeds: list[int]
    step: int  #: the last update
    trainer: TrainerState
    replicas: list[ReplicaState]
    instruments: list[InstrumentsState]  #: of each replica
    clock: ClockState
    logged: list[float]  #: step and seconds of training at the last line of metrics
    machine: dict[str, str | int | bool | None]  #: what it was computed on: `device.describe`


class BranchState(RunState, total=False):
    """The state that longer runs continue from."""

    pending: list[dict[str, float]]  #: each replica's line of metrics that the record lacks


class CheckpointClock:
    """Whether a checkpoint is due: by updates or by seconds since the last one, whichever comes first."""

    def __init__(self, options: CheckpointOptions) -> None:
        self._options = options
        self.saved(0)

    def saved(self, step: int) -> None:
        """The state after this update has been saved."""
        self._step, self._time = step, time.monotonic()

    def due(self, step: int) -> bool:
        seconds = time.monotonic() - self._time
        return step - self._step >= self._options.every or seconds >= self._options.seconds


def group_name(seeds: Sequence[int]) -> str:
    """Seeds that are trained together, as part of a file's name: `seeds_0-2`, `seeds_0,3`."""
    consecutive = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"seeds_{seeds[0]}-{seeds[-1]}" if consecutive else f"seeds_{','.join(map(str, seeds))}"


def group_seeds(group: str) -> list[int]:
    """The seeds in a `group_name`."""
    numbers = group.removeprefix("seeds_")
    if "-" in numbers:
        first, last = map(int, numbers.split("-"))
        return list(range(first, last + 1))
    return [int(number) for number in numbers.split(",")]


def save_checkpoint(run_folder: Path, seeds: Sequence[int], step: int, state: RunState) -> Path:
    """Write the state after `step`, then delete all but the newest files of the group. Raises: OSError."""
    path = run_folder / FOLDER / f"{group_name(seeds)}.step_{step:09d}.pt"
    _write(path, state)
    for old in checkpoints(run_folder, group_name(seeds))[KEPT:]:
        _remove(old)
    return path


def save_branch(run_folder: Path, seeds: Sequence[int], state: BranchState) -> None:
    """Keep the state up to which every longer run is the same: `from=RUN train.steps=N` continues from it, also after
    the run has finished. Raises: OSError."""
    _write(run_folder / BRANCH / f"{group_name(seeds)}.pt", state)


def load_branch(run_folder: Path, seeds: Sequence[int], steps: int) -> BranchState | None:
    """The state from which a run can be continued to so many `steps`; None if there is none of these seeds together.

    Raises: CheckpointError if it is damaged.
    """
    path = run_folder / BRANCH / f"{group_name(seeds)}.pt"
    if not path.exists():
        there = group_name(seeds) in groups(run_folder)
        return cast(BranchState, load_newest(run_folder, group_name(seeds), steps)) if there else None
    state = read_checkpoint(path)
    try:
        require_sound(state, list(seeds), steps)
        _require(state["pending"], list[dict[str, float]], "pending")
        if len(state["pending"]) != len(seeds):
            raise ValueError("its pending are not a line for each seed")
        if reason := _not_finite(state) or _lost(run_folder, seeds, state):
            raise ValueError(reason)
    except (KeyError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path} can't be used: {reason}") from None
    return cast(BranchState, state)


def drop_branches(run_folder: Path, seeds: Sequence[int]) -> None:
    """Delete the states of groups that have one of these seeds."""
    for path in (run_folder / BRANCH).glob("seeds_*.pt"):
        if _is_group(path.stem) and set(group_seeds(path.stem)) & set(seeds):
            _remove(path)


def _write(path: Path, state: RunState) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    header = {"format": FORMAT, "version": VERSION, "bytes": len(payload)}
    header["sha256"] = hashlib.sha256(payload).hexdigest()
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        _remove(path)
    write_whole(path, json.dumps(header).encode() + b"\n" + payload)


def checkpoints(run_folder: Path, group: str) -> list[Path]:
    """A group's files, the newest first."""
    paths = (run_folder / FOLDER).glob(f"{group}.step_*.pt")
    return sorted((p for p in paths if re.search(r"\.step_\d+\.pt$", p.name)), reverse=True)


def groups(run_folder: Path) -> list[str]:
    """The groups that have a checkpoint."""
    names = sorted(path.name for path in (run_folder / FOLDER).glob("seeds_*.step_*.pt"))
    matches = (re.fullmatch(r"(seeds_.*)\.step_\d+\.pt", name) for name in names)
    return list(dict.fromkeys(match[1] for match in matches if match and _is_group(match[1])))


def _is_group(name: str) -> bool:
    match = re.fullmatch(r"seeds_(?:(\d+)-(\d+)|\d+(?:,\d+)*)", name)
    return match is not None and (not match[1] or 0 <= int(match[2]) - int(match[1]) < MOST_SEEDS)


def load_newest(run_folder: Path, group: str, steps: int | None = None) -> RunState:
    """The newest state of a group from which the run can resume; a warning names those that are damaged.

    With `steps`, the run's last update, every entry is checked by `require_sound`: the files may come from others.
    Raises: CheckpointError if no file is good.
    """
    reasons = []
    for path in checkpoints(run_folder, group):
        try:
            state = read_checkpoint(path)
            if steps is not None:
                require_sound(state, group_seeds(group), steps)
            if reason := _not_finite(state) or _lost(run_folder, group_seeds(group), state):
                raise ValueError(reason)
        except CheckpointError as error:
            reasons.append(str(error))
        except (KeyError, ValueError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            reasons.append(f"{path} can't be used: the checkpoint does not fit this run: {reason}")
        else:
            for reason in reasons:
                LOG.warning("%s; resuming from the one before, %s", printable(reason), path.name)
            return cast(RunState, state)
    raise CheckpointError(f"no good checkpoint in {run_folder / FOLDER}: {'; '.join(reasons)}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a file. Raises: CheckpointError, which names the file and what is wrong with it."""
    try:
        with read_regular(path) as file:
            header = json.loads(file.readline(LONGEST_HEADER))
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no checkpoint of this program")
            if header.get("version") != VERSION:
                version = show(header.get("version"))
                raise CheckpointError(f"{path} has version {version}, this program reads {VERSION}")
            if header.get("bytes") != os.fstat(file.fileno()).st_size - file.tell():
                raise CheckpointError(f"{path} is cut short or has been added to")
            begin = file.tell()
            if hashlib.file_digest(file, "sha256").hexdigest() != header.get("sha256"):
                raise CheckpointError(f"{path} is damaged: its hash is wrong")
            file.seek(begin)
            archive = io.BytesIO(file.read())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its first line is damaged"
        raise CheckpointError(f"{path} can't be read: {reason}") from None
    try:
        check_archive(archive)
        state = torch.load(archive, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds
        raise CheckpointError(f"{path} can't be read: {show(str(error) or type(error).__name__)}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state")
    return state


def require_sound(state: Mapping[str, Any], seeds: Sequence[int], steps: int) -> None:
    """Check that `state` is a `RunState` of these seeds in a run of so many updates: its types, and the ranges
    from which training can resume. Whether its weights fit the network, `Trainer.load_state` checks.

    Raises: KeyError for a missing entry; ValueError, which says what is wrong.
    """
    _require(state, RunState, "state")
    step, replicas, clock = state["step"], state["replicas"], state["clock"]
    if state["seeds"] != seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"it is of seeds {show(state['seeds'])}")
    if not 1 <= step <= steps:
        raise ValueError(f"its step is {step:,} of {steps:,}")
    if not len(replicas) == len(state["instruments"]) == len(seeds):
        raise ValueError("it has fewer replicas than seeds")
    frozen = state["trainer"]["frozen"]
    if len(set(frozen)) < len(frozen) or max(frozen, default=0) >= len(seeds):
        raise ValueError("its trainer.frozen names no replicas")
    for name, seconds in clock.items():
        _require_between(seconds, 0, LONGEST_TIME, f"clock.{show(name)}")
    if len(state["logged"]) != 2:
        raise ValueError("its logged is not a step and a time")
    _require_between(state["logged"][0], 0, step, "logged step")
    _require_between(state["logged"][1], 0, clock["training"], "logged time")
    for replica, instruments in zip(replicas, state["instruments"], strict=True):
        if replica["status"] not in SAVED_STATUSES:
            raise ValueError(f"the status of a replica is {show(replica['status'])}")
        _require_between(replica["updates"], 0, step, "updates")
        _require_between(replica["fired"], 0, replica["updates"], "fired")
        _require_between(sum(replica["largest"].values()), 0, replica["fired"], "largest")
        _require_between(replica["steps_to_solve"] or 0, 0, step, "steps_to_solve")
        _require_between(replica["speed"] or 0, 0, math.inf, "speed")
        _require_between(replica.get("best_loss", 0), -math.inf, math.inf, "best_loss")
        _require_between(max(instruments["sampled_at"], default=0), 0, step, "sampled_at")
        if since := replica.get("since_line"):
            _require_between(since["updates"], 0, replica["updates"], "since_line.updates")
            _require_between(since["fired"], 0, since["updates"], "since_line.fired")
            _require_between(since["max_norm"], 0, math.inf, "since_line.max_norm")
            _require_between(since["min_coefficient"] or 0, 0, 1, "since_line.min_coefficient")
        if replica["lengths"].keys() != set(LINES):
            raise ValueError("its lengths are of other files")
        if len(replica["window"]) != 2:
            raise ValueError("its window is not two samples")
        for name, sample in (("norms", replica["norms"]), *(("window", window) for window in replica["window"])):
            _require_between(sample["count"], 0, replica["updates"], f"{name}.count")
            _require_between(sample["most"], 1, MOST_KEPT, f"{name}.most")
            _require_between(sample["stride"], 1, max(1, sample["count"]), f"{name}.stride")
            if len(sample["kept"]) != math.ceil(sample["count"] / sample["stride"]):
                raise ValueError(f"its {name}.kept has {len(sample['kept']):,} numbers")


def _require(value: Any, hint: Any, name: str) -> None:
    """Check a value against its declared type. A whole number is at least 0, a text can be printed, a tensor is as
    large as its memory. Raises: KeyError, ValueError."""
    kind = get_origin(hint) or hint
    if is_typeddict(hint):
        fits = type(value) is dict
        for key, inner in get_type_hints(hint).items() if fits else ():
            if key in value or key in hint.__required_keys__:
                _require(value[key], inner, key if name == "state" else f"{name}.{key}")
    elif kind in (list, dict):
        fits = type(value) is kind
        if fits and kind is dict:
            for key in value:
                _require(key, get_args(hint)[0], name)
        entries = value.values() if kind is dict and fits else value if fits else ()
        if hint != list[float] or {*map(type, entries)} != {float}:  # a hundred thousand numbers a replica
            for entry in entries:
                _require(entry, get_args(hint)[-1], name)
    elif kind is UnionType:
        fits = any(_fits(value, option) for option in get_args(hint))
    else:
        fits = _fits(value, hint)
    if not fits:
        plain = hint in (int, float, str) and isinstance(value, int | float | str)
        raise ValueError(f"its {name} is {show(value) if plain else f'a {type(value).__name__}'}")


def _fits(value: Any, hint: Any) -> bool:
    if hint is str:
        return type(value) is str and value.isprintable() and len(value) <= LONGEST_TEXT
    if hint is int:
        return type(value) is int and 0 <= value <= LAST_STEP
    if hint is float:
        return type(value) is float or (type(value) is int and abs(value) <= LAST_STEP)
    if hint is Tensor:
        return type(value) is Tensor and is_dense(value)
    return hint is Any or type(value) is hint


def _require_between(value: float, low: float, high: float, name: str) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(f"its {name} is {show(value)}, and must be between {show(low)} and {show(high)}")


def _not_finite(state: Mapping[str, Any]) -> str | None:
    """What is not finite in the weights of replicas that still train, or NaN in their optimiser's state, in words.

    Frozen replicas keep their values. That it is a state at all, `require_sound` checks.
    """
    trainer = state.get("trainer")
    if not isinstance(trainer, Mapping) or not isinstance(trainer.get("weights"), Mapping):
        return None
    frozen, optimizer = trainer.get("frozen") or [], trainer.get("optimizer") or {}

    def live(tensor: Any) -> Tensor | None:
        if not isinstance(tensor, Tensor) or not tensor.ndim:
            return None
        return tensor[[replica for replica in range(len(tensor)) if replica not in frozen]]

    for name, stacked in trainer["weights"].items():
        if (weights := live(stacked)) is not None and not weights.isfinite().all():
            return f"{show(name)} is not finite"
    averages = optimizer.get("state", {}) if isinstance(optimizer, Mapping) else {}
    for entry in averages.values() if isinstance(averages, Mapping) else ():
        for name, stacked in entry.items() if isinstance(entry, Mapping) else ():
            if (tensor := live(stacked)) is not None and tensor.isnan().any():
                return f"the optimiser's {show(name)} is not a number"
    return None


def _lost(run_folder: Path, seeds: Sequence[int], state: Mapping[str, Any]) -> str | None:
    """A file of the record that is shorter than it was at the checkpoint, in words."""
    replicas = state.get("replicas")
    if state.get("seeds") != seeds or not isinstance(replicas, list):
        return None
    for seed, replica in zip(seeds, replicas, strict=False):
        lengths = replica.get("lengths") if isinstance(replica, Mapping) else None
        if isinstance(lengths, Mapping) and (lost := lost_lines(seed_folder(run_folder, seed), lengths)):
            return lost
    return None


def drop_checkpoints(run_folder: Path, group: str) -> None:
    """Delete the checkpoints of a group that has finished: its weights and summaries stay."""
    for path in checkpoints(run_folder, group):
        _remove(path)
    if (run_folder / FOLDER).exists() and not any((run_folder / FOLDER).iterdir()):
        (run_folder / FOLDER).rmdir()


def _remove(path: Path) -> None:
    """Delete a file; a folder in its place only if it is empty."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        else:
            path.unlink()
