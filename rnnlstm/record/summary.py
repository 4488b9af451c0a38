"""A seed's summary read back, every field of the type that it was written with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rnnlstm.options import printable, show
from rnnlstm.record.files import read_object
from rnnlstm.record.naming import SUMMARY, seed_folders
from rnnlstm.record.reader import LAST_STEP, number

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
