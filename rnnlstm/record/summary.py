"""A seed's summary read back, every field of the type that it was written with."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rnnlstm.config.errors import BusyError, CheckpointError, printable, show
from rnnlstm.record.files import locked, read_json, read_object, write_json, write_whole
from rnnlstm.record.folders import SUMMARY, WEIGHTS, seed_folder, seed_folders
from rnnlstm.record.reader import LAST_STEP, number

LOG = logging.getLogger("rnnlstm")

LONGEST_TEXT = 1000  # characters

#: The fields of a summary, with their types. A seed that has failed before it began has the first two alone.
FIELDS = {
    "status": "text",
    "seed": "whole number",
    "steps": "whole number",
    "solved": "true or false",
    "steps_to_solve": "whole number",
    "reason": "text",
    "metric_name": "text",
    "metric": "number",
    "loss": "number",
    "baseline": "number",
    "parameters": "whole number",
    "multiply_adds": "whole number",
    "state_size": "whole number",
    "bytes_kept": "whole number",
    "ms_per_update": "number",
    "clip_rate": "number",
    "median_norm_before_clip": "number",
    "steps_per_second": "number",
    "backend": "text",
}
FINISHED = ("done", "diverged")
#: What a seed that has finished has as well, and what may be null even then.
ENDED = ("steps", "solved", "metric_name", "baseline", "clip_rate")
ENDED_PERHAPS = ("steps_to_solve", "metric", "loss", "steps_per_second")


def read_summary(path: Path) -> dict[str, Any]:
    """The summary in a file, with every field above in it: None, 0 steps or not solved where the file has none.

    Raises: OSError; ValueError, which says what is wrong with it.
    """
    fields = read_object(path)
    for name in ("status", "seed", *(ENDED if fields.get("status") in FINISHED else ())):
        if fields.get(name) is None:
            raise ValueError(f"has no {name}")
    for name in ENDED_PERHAPS if fields["status"] in FINISHED else ():
        if name not in fields:
            raise ValueError(f"has no {name}")
    for name, kind in FIELDS.items():
        value = fields.setdefault(name, None)
        if value is not None and not _fits(value, kind):
            raise ValueError(f"{name}={show(value)}: must be {'' if kind == 'true or false' else 'a '}{kind}")
        if isinstance(value, str):
            fields[name] = printable(value[:LONGEST_TEXT])
    for given, needed in (("solved", "steps_to_solve"), ("metric", "loss"), ("metric", "baseline")):
        if fields[given] is not None and fields[given] is not False and fields[needed] is None:
            raise ValueError(f"has {given} and no {needed}")
    fields["steps"], fields["solved"] = fields["steps"] or 0, fields["solved"] or False
    return fields


def read_summaries(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The summaries of a run folder's seeds, by seed, and a line on each that can't be read.

    A seed that has begun and has no summary yet is left out. Raises: OSError if the folder can't be read.
    """
    found, problems = [], []
    for seed, place in seed_folders(folder):
        path = place / SUMMARY
        try:
            summary = read_summary(path)
            if summary["seed"] != seed:
                raise ValueError(f"is of seed {show(summary['seed'])}")
            found.append(summary)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path}: can't be read: {error.strerror or error}")
        except ValueError as error:
            problems.append(f"{path}: {error}")
    return found, problems


def _fits(value: Any, kind: str) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "true or false":
        return isinstance(value, bool)
    if kind == "whole number":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_STEP
    try:
        number(value)
    except ValueError:
        return False
    return True


# How the seeds of a run have ended, as their folders tell; and how it is told of a run that can't tell it itself.

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
