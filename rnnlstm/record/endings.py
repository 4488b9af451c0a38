"""How the seeds of a run have ended, as their folders tell; and how it is told of a run that can't tell it itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rnnlstm.exits import BusyError
from rnnlstm.record.files import read_json, write_json, write_whole
from rnnlstm.record.lock import locked
from rnnlstm.record.naming import seed_folder
from rnnlstm.record.seed_record import SUMMARY, WEIGHTS

FINISHED = ("done", "diverged")
FAILURE_LOG = "failure.log"  #: the traceback of the last attempt, where it had one


def finished(folder: Path, seed: int) -> bool:
    summary = read_json(seed_folder(folder, seed) / SUMMARY)
    return (
        summary is not None and summary.get("status") in FINISHED and (seed_folder(folder, seed) / WEIGHTS).exists()
    )


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
                if not finished(folder, seed):
                    path = seed_folder(folder, seed) / SUMMARY
                    path.parent.mkdir(exist_ok=True)
                    write_json(path, {**(read_json(path) or {"seed": seed}), "status": "failed", "reason": reason})
            if log:
                write_whole(folder / FAILURE_LOG, log.encode())
    except BusyError:
        pass
