"""Checkpoints: whole or not there, able to say that they are damaged, and data only.

A file is a line of JSON, `{"format": …, "version": 1, "bytes": n, "sha256": …}`, and n bytes of `torch.save`. Tensors
and plain values are all that is in them: they are read with `weights_only=True`, after their hash has been checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rnnlstm.exits import CheckpointError
from rnnlstm.record.files import write_whole

LOG = logging.getLogger("rnnlstm")

FOLDER = "checkpoints"
FORMAT, VERSION = "rnnlstm checkpoint", 1
KEPT = 2  #: newest files of a group that stay: the newest may turn out to be damaged
LONGEST_HEADER = 1024


def group_name(seeds: Sequence[int]) -> str:
    """A group of replicas that are trained together, as part of a file's name: `seeds_0-2`, `seeds_0,3`."""
    consecutive = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"seeds_{seeds[0]}-{seeds[-1]}" if consecutive else f"seeds_{','.join(map(str, seeds))}"


def group_seeds(group: str) -> list[int]:
    """The seeds that `group_name` has named."""
    numbers = group.removeprefix("seeds_")
    if "-" in numbers:
        first, last = map(int, numbers.split("-"))
        return list(range(first, last + 1))
    return [int(number) for number in numbers.split(",")]


def save_checkpoint(run_folder: Path, seeds: Sequence[int], step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step`, then drop all but the newest of the group. Raises: OSError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    header = {"format": FORMAT, "version": VERSION, "bytes": len(payload)}
    header["sha256"] = hashlib.sha256(payload).hexdigest()
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{group_name(seeds)}.step_{step:09d}.pt"
    write_whole(path, json.dumps(header).encode() + b"\n" + payload)
    for old in checkpoints(run_folder, group_name(seeds))[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(run_folder: Path, group: str) -> list[Path]:
    """A group's files, the newest first."""
    found = (run_folder / FOLDER).glob(f"{group}.step_*.pt")
    return sorted((p for p in found if re.search(r"\.step_\d+\.pt$", p.name)), reverse=True)


def groups(run_folder: Path) -> list[str]:
    """Groups that have a file."""
    names = sorted(path.name for path in (run_folder / FOLDER).glob("seeds_*.step_*.pt"))
    found = (re.fullmatch(r"(seeds_(?:\d+-\d+|\d+(?:,\d+)*))\.step_\d+\.pt", name) for name in names)
    return list(dict.fromkeys(match[1] for match in found if match))


def load_newest(run_folder: Path, group: str) -> dict[str, Any]:
    """The newest state of a group that is whole; damaged ones are named in a warning.

    Raises: CheckpointError if none is.
    """
    found = checkpoints(run_folder, group)
    reasons = []
    for path in found:
        try:
            state = read_checkpoint(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        for reason in reasons:
            LOG.warning("%s; going on from the one before, %s", reason, path.name)
        return state
    raise CheckpointError(f"no good checkpoint in {run_folder / FOLDER}: {'; '.join(reasons)}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Raises: CheckpointError, which names the file and what is wrong with it."""
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
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its first line is damaged"
        raise CheckpointError(f"{path} can't be read: {reason}") from None
    if hashlib.sha256(payload).hexdigest() != header.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its hash is wrong")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} can't be read: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state")
    return state


def drop_checkpoints(run_folder: Path, group: str) -> None:
    """A group has come to its end: its weights and summaries are what is kept."""
    for path in checkpoints(run_folder, group):
        path.unlink(missing_ok=True)
    if (run_folder / FOLDER).exists() and not any((run_folder / FOLDER).iterdir()):
        (run_folder / FOLDER).rmdir()
