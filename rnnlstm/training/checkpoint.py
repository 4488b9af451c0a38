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
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from rnnlstm.config.errors import CheckpointError, show
from rnnlstm.config.schema import CheckpointOptions
from rnnlstm.record.files import write_whole
from rnnlstm.record.folders import seed_folder
from rnnlstm.record.seed_record import lost_lines
from rnnlstm.training.replica import ReplicaState

LOG = logging.getLogger("rnnlstm")

FOLDER = "checkpoints"
FORMAT, VERSION = "rnnlstm checkpoint", 1
KEPT = 2  #: files kept of a group: the newest may turn out to be damaged
LONGEST_HEADER = 1024
MOST_SEEDS = 10_000  #: in a group, as in a configuration


class RunState(TypedDict):
    """All entries of a checkpoint: the state of a group of seeds after an update."""

    seeds: list[int]
    step: int  #: the last update
    trainer: dict[str, Any]  #: `Trainer.state()`
    replicas: list[ReplicaState]
    instruments: list[dict[str, Any]]  #: `Instruments.state()` of each replica
    clock: dict[str, float]  #: `Clock.state()`
    logged: list[float]  #: step and seconds of training at the last line of metrics
    machine: dict[str, Any]  #: what it was computed on: `device.describe`


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
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    header = {"format": FORMAT, "version": VERSION, "bytes": len(payload)}
    header["sha256"] = hashlib.sha256(payload).hexdigest()
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{group_name(seeds)}.step_{step:09d}.pt"
    if path.is_dir():
        _remove(path)
    write_whole(path, json.dumps(header).encode() + b"\n" + payload)
    for old in checkpoints(run_folder, group_name(seeds))[KEPT:]:
        _remove(old)
    return path


def checkpoints(run_folder: Path, group: str) -> list[Path]:
    """A group's files, the newest first."""
    paths = (run_folder / FOLDER).glob(f"{group}.step_*.pt")
    return sorted((p for p in paths if re.search(r"\.step_\d+\.pt$", p.name)), reverse=True)


def groups(run_folder: Path) -> list[str]:
    """The groups that have a checkpoint."""
    names = sorted(path.name for path in (run_folder / FOLDER).glob("seeds_*.step_*.pt"))
    matches = (re.fullmatch(r"(seeds_(?:(\d+)-(\d+)|\d+(?:,\d+)*))\.step_\d+\.pt", name) for name in names)
    kept = (m for m in matches if m and (not m[2] or 0 <= int(m[3]) - int(m[2]) < MOST_SEEDS))
    return list(dict.fromkeys(match[1] for match in kept))


def load_newest(run_folder: Path, group: str) -> RunState:
    """The newest state of a group from which the run can resume; a warning names those that are damaged.

    Its entries are checked by `resume.load_trainer`. Raises: CheckpointError if no file is good.
    """
    reasons = []
    for path in checkpoints(run_folder, group):
        try:
            state = read_checkpoint(path)
            if reason := _unsound(state) or _lost(run_folder, group_seeds(group), state):
                raise CheckpointError(f"{path} can't be used: {reason}")
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            LOG.warning("%s; resuming from the one before, %s", reason, path.name)
        return cast(RunState, state)
    raise CheckpointError(f"no good checkpoint in {run_folder / FOLDER}: {'; '.join(reasons)}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a file. Raises: CheckpointError, which names the file and what is wrong with it."""
    if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe would never end
        raise CheckpointError(f"{path} is no file")
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(LONGEST_HEADER))
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no checkpoint of this program")
            if header.get("version") != VERSION:
                raise CheckpointError(f"{path} has version {header.get('version')}, this program reads {VERSION}")
            if header.get("bytes") != path.stat().st_size - file.tell():
                raise CheckpointError(f"{path} is cut short or has been added to")
            payload = file.read()
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its first line is damaged"
        raise CheckpointError(f"{path} can't be read: {reason}") from None
    if hashlib.sha256(payload).hexdigest() != header.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its hash is wrong")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds
        raise CheckpointError(f"{path} can't be read: {show(str(error) or type(error).__name__)}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state")
    return state


def _unsound(state: Mapping[str, Any]) -> str | None:
    """What is not finite in the weights of replicas that still train, or NaN in their optimiser's state, in words.

    Frozen ones keep whatever they have come to. That it is a state at all is not looked at here.
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
