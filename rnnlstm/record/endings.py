"""How the seeds of a run have ended, as their folders tell; and how it is told of a run that can't tell it itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rnnlstm.exits import BusyError, CheckpointError
from rnnlstm.options import printable
from rnnlstm.record.files import read_json, write_json, write_whole
from rnnlstm.record.lock import locked
from rnnlstm.record.naming import SUMMARY, WEIGHTS, seed_folder
from rnnlstm.record.summary import FINISHED, read_summary

LOG = logging.getLogger("rnnlstm")

FAILURE_LOG = "failure.log"  #: the traceback of the last attempt, where it had one


def finished(folder: Path, seed: int) -> bool:
    """Whether a seed is done or has diverged, and its weights are there.

    Raises: CheckpointError if its summary is damaged and nothing else could tell: training anew would delete what may
    be whole.
    """
    path, weights = seed_folder(folder, seed) / SUMMARY, seed_folder(folder, seed) / WEIGHTS
    try:
        return read_summary(path)["status"] in FINISHED and weights.exists()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        rule = error.strerror if isinstance(error, OSError) else str(error)
        problem = f"{path} can't be read: {rule}"
    if weights.exists() and not (folder / "checkpoints").exists():
        raise CheckpointError(f"{problem}; whether the seed has finished can't be told; overwrite=true begins anew")
    LOG.warning("%s; the seed counts as not finished", printable(problem))
    return False


def summaries(folder: Path, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """Those of the seeds that have one."""
    found = (read_json(seed_folder(folder, seed) / SUMMARY) for seed in seeds)
    return [summary for summary in found if summary is not None]


def write_configuration(folder: Path, tree: Mapping[str, Any]) -> None:
    """`config.yaml`, without the seeds: one configuration, however many of them. Raises: OSError."""
    kept = {key: value for key, value in tree.items() if key not in ("seed", "seeds")}
    write_whole(folder / "config.yaml", yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode())


def record_failure(folder: Path, tree: Mapping[str, Any], seeds: Sequence[int], reason: str, log: str) -> None:
    """Give the seeds that have not finished the status `failed`. A folder that another process has is left alone.

    What they have reached stays: the same command goes on from it. Raises: OSError.
    """
    try:
        with locked(folder):
            if not (folder / "config.yaml").exists():
                write_configuration(folder, tree)
            for seed in seeds:
                try:
                    left = not finished(folder, seed)
                except CheckpointError:
                    left = False  # what can't be told apart is left as it is
                if left:
                    path = seed_folder(folder, seed) / SUMMARY
                    path.parent.mkdir(exist_ok=True)
                    write_json(path, {**(read_json(path) or {"seed": seed}), "status": "failed", "reason": reason})
            if log:
                write_whole(folder / FAILURE_LOG, log.encode())
    except BusyError:
        pass
