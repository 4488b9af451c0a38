"""A seed's summary read back, every field of the type that it was written with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rnnlstm.options import printable, show
from rnnlstm.record.files import read_object
from rnnlstm.record.naming import SUMMARY, seed_folders
from rnnlstm.record.reader import LAST_STEP, number

LONGEST_TEXT = 1000  # characters

#: Fields without which a summary says nothing, and the others, which may be null or absent; with their types.
REQUIRED = {"status": "text", "seed": "whole number", "steps": "whole number", "solved": "true or false"}
OPTIONAL = {
    "reason": "text",
    "steps_to_solve": "whole number",
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


def read_summary(path: Path) -> dict[str, Any]:
    """The summary in a file, every field above in it, None where it has none.

    Raises: OSError; ValueError, which says what is wrong with it.
    """
    fields = read_object(path)
    for name, kind in (REQUIRED | OPTIONAL).items():
        value = fields.setdefault(name, None)
        if value is None and name in REQUIRED:
            raise ValueError(f"has no {name}")
        if value is not None and not _fits(value, kind):
            raise ValueError(f"{name}={show(value)}: must be {'' if kind == 'true or false' else 'a '}{kind}")
        if isinstance(value, str):
            fields[name] = printable(value[:LONGEST_TEXT])
    if fields["solved"] and fields["steps_to_solve"] is None:
        raise ValueError("solved=true: has no steps_to_solve")
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
