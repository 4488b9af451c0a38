"""summary.json: its fields, how it is read and checked, and who writes it for a seed whose run could not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, get_args, get_type_hints

import yaml

from rnnlstm.config.errors import BusyError, CheckpointError, printable, show
from rnnlstm.record.files import A_LINK, linked_folders, locked, read_json, read_object, write_json, write_whole
from rnnlstm.record.folders import SUMMARY, WEIGHTS, seed_folder, seed_folders
from rnnlstm.record.reader import LAST_STEP, number

LOG = logging.getLogger("rnnlstm")

LONGEST_TEXT = 1000  # characters


class SummaryFields(TypedDict):
    """The fields of summary.json. A seed that failed before it began has status, seed and reason alone."""

    status: str  #: running, done, diverged, failed or interrupted
    reason: str | None  #: why it diverged or failed
    seed: int
    steps: int  #: updates so far
    solved: bool
    steps_to_solve: int | None  #: updates at the first evaluation that met the task's criterion
    metric_name: str
    metric: float | None  #: at the latest evaluation
    loss: float | None  #: at the latest evaluation
    baseline: float
    parameters: int
    multiply_adds: int  #: of one sequence's time step, forward
    state_size: int  #: numbers carried from step to step
    bytes_kept: int  #: for the backward pass
    ms_per_update: float | None
    clip_rate: float
    median_norm_before_clip: float | None
    steps_per_second: float | None
    backend: str


class Summary(SummaryFields, total=False):
    precision_loss_error: float  #: with mixed precision
    precision_gradient_error: float
    checkpoint: int  #: the update of the newest checkpoint, until the seed has finished


#: What a value must be, by a field's type, as messages name it.
KINDS = {str: "text", bool: "true or false", int: "whole number", float: "number"}
FIELDS = {
    name: next(kind for cls, kind in KINDS.items() if cls in (hint, *get_args(hint)))
    for name, hint in get_type_hints(SummaryFields).items()
}
FINISHED = ("done", "diverged")
FAILURE_LOG = "failure.log"  #: the traceback of the last attempt, where it had one
#: What a seed that has finished has as well, and what may be null even then.
ENDED = ("steps", "solved", "metric_name", "baseline", "clip_rate")
ENDED_PERHAPS = ("steps_to_solve", "metric", "loss", "steps_per_second")


def read_summary(path: Path) -> dict[str, Any]:
    """The summary in a file, with every field of `SummaryFields`: None, 0 or False where the file has none.

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
    readable, problems = [], [f"{link}: {A_LINK}" for link in linked_folders(folder)]
    for seed, place in seed_folders(folder):
        path = place / SUMMARY
        try:
            summary = read_summary(path)
            if summary["seed"] != seed:
                raise ValueError(f"is of seed {show(summary['seed'])}")
            readable.append(summary)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path}: can't be read: {error.strerror or error}")
        except ValueError as error:
            problems.append(f"{path}: {error}")
    return readable, problems


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


def finished(folder: Path, seed: int) -> bool:
    """Whether a seed is done or has diverged, with its weights.

    Raises: CheckpointError if its summary is damaged and no checkpoint shows that it was still training: training
    again would delete results that may be whole.
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
        raise CheckpointError(f"{problem}; whether the seed has finished can't be told; overwrite=true starts again")
    LOG.warning("%s; the seed counts as not finished", printable(problem))
    return False


def summaries(folder: Path, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The summaries of those seeds that have one."""
    read = (read_json(seed_folder(folder, seed) / SUMMARY) for seed in seeds)
    return [summary for summary in read if summary is not None]


def write_configuration(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write `config.yaml`, without the seeds: all seeds share it. Raises: OSError."""
    kept = {key: value for key, value in tree.items() if key not in ("seed", "seeds")}
    write_whole(folder / "config.yaml", yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode())


def record_failure(
    folder: Path, tree: Mapping[str, Any], seeds: Sequence[int], reason: str, log: str, status: str = "failed"
) -> None:
    """Write the status `failed`, or another, for the seeds that have not finished.

    A folder in use by another process stays as it is. Checkpoints stay: the same command resumes from them.
    Raises: OSError.
    """
    try:
        with locked(folder):
            if not (folder / "config.yaml").exists():
                write_configuration(folder, tree)
            for seed in seeds:
                try:
                    left = not finished(folder, seed)
                except CheckpointError:
                    left = False  # whether it finished is unknown
                if left:
                    path = seed_folder(folder, seed) / SUMMARY
                    path.parent.mkdir(exist_ok=True)
                    write_json(path, {**(read_json(path) or {"seed": seed}), "status": status, "reason": reason})
            if log:
                write_whole(folder / FAILURE_LOG, log.encode())
    except BusyError:
        pass
