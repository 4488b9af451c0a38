"""The record read back, line by line, with every type checked.

A line that breaks its rule is left out, and a warning names the file. Files may come from other people: nothing in
them is trusted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np

from rnnlstm.config.errors import printable
from rnnlstm.record.files import numbered_lines

LOG = logging.getLogger("rnnlstm")
LAST_STEP = 2**63 - 1  # TensorBoard's events and NumPy hold no larger one
LONGEST_TAG = 300  # characters
KINDS = (b'"eval', b'"gate')  # beginnings of the tags that only lines of evaluations and of probes have

Value = TypeVar("Value")


def read_metrics(path: Path, quiet: bool = False, most: int | None = None) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and numbers by tag of each line of metrics.jsonl. `quiet` where a warning has been given before.

    `most`: so many evaluations, probes and other lines each, evenly spaced; the first and the last are among them.
    """

    def check(line: dict[str, Any]) -> dict[str, float]:
        return {_tag(tag): number(value) for tag, value in line.items() if tag != "step"}

    return _read(path, check, quiet, expected=True, most=most, kinds=KINDS)


def read_flow(
    path: Path, quiet: bool = False, most: int | None = None
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Step and gradient norms by state, each (L, K) by layer and lag, of flow.jsonl; all have one shape. `most`: so
    many lines, evenly spaced."""
    shapes: dict[str, tuple[int, ...]] = {}

    def check(line: dict[str, Any]) -> dict[str, np.ndarray]:
        norms = {_tag(state): _layers(value) for state, value in line.items() if state != "step"}
        now = {state: layers.shape for state, layers in norms.items()}
        if not now or (shapes and now != shapes):
            raise ValueError("other shapes than before")
        shapes.update(now)
        return norms

    return _read(path, check, quiet, most=most)


class Fired(TypedDict):
    """What clipping did to one update, as TensorBoard shows it."""

    norm_before: float
    coefficient: float | None  #: None by value
    clipped_share: float | None  #: None by norm
    largest_parameter: str


def read_clip_events(path: Path, quiet: bool = False, most: int | None = None) -> Iterator[tuple[int, Fired]]:
    """Step and event of each line of clip_events.jsonl: the updates on which clipping fired. `most`: so many lines,
    evenly spaced."""

    def check(line: dict[str, Any]) -> Fired:
        share, coefficient = (
            None if line.get(name) is None else number(line[name]) for name in ("clipped_share", "coefficient")
        )
        return {
            "norm_before": number(line["norm_before"]),
            "coefficient": coefficient,
            "clipped_share": share,
            "largest_parameter": _tag(line["largest_parameter"]),
        }

    return _read(path, check, quiet, most=most)


class Sample(TypedDict):
    """A decoded sequence."""

    text: str  #: the sequence and the right answer: `… → duck`
    answer: str  #: the network's
    right: bool | None  #: whether the task takes it as right; None where that isn't known, as in older records


def read_samples(path: Path, most: int | None = None) -> Iterator[tuple[int, list[Sample]]]:
    """Step and decoded sequences of each line of samples.jsonl. `most`: so many lines, evenly spaced."""

    def check(line: dict[str, Any]) -> list[Sample]:
        return [
            {"text": _text(s["text"]), "answer": _text(s["answer"]), "right": _truth(s.get("right"))}
            for s in line["samples"]
        ]

    return _read(path, check, most=most)


def number(value: Any) -> float:
    """A number, finite or not. Raises: ValueError."""
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return float(value)
    raise ValueError("must be a number")


def _read(
    path: Path,
    check: Callable[[dict[str, Any]], Value],
    quiet: bool = False,
    expected: bool = False,
    most: int | None = None,
    kinds: Sequence[bytes] = (),
) -> Iterator[tuple[int, Value]]:
    """`check` raises ValueError, KeyError or TypeError for a line that is to be left out."""
    bad: list[int] = []
    problem = "holds no whole line" if expected else ""
    try:
        for place, line in numbered_lines(path, most, kinds):
            problem = ""
            try:
                if line is None:
                    raise ValueError
                step, value = _step(line["step"]), check(line)
            except (ValueError, KeyError, TypeError):
                bad.append(place)
                continue
            yield step, value
    except FileNotFoundError:
        problem = "is missing" if expected else ""
    except OSError as error:
        problem = f"can't be read: {error.strerror or error}"
    if bad:
        more = f" and {len(bad) - 1:,} more are damaged and" if len(bad) > 1 else " is damaged and"
        problem = f"line {bad[0]:,}{more} left out"
    if problem and not quiet:
        LOG.warning("%s: %s", printable(str(path)), problem)


def _step(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LAST_STEP:
        raise ValueError("no step")
    return value


def _tag(value: str) -> str:
    if not value or not value.isprintable() or len(value) > LONGEST_TAG:
        raise ValueError("no tag")
    return value


def _text(value: Any) -> str:
    """A text that can be written: half a surrogate pair can't."""
    if not isinstance(value, str):
        raise ValueError("no text")
    return value.encode("utf-8", "replace").decode()


def _truth(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _layers(value: Any) -> np.ndarray:
    if not isinstance(value, list) or not all(isinstance(layer, list) for layer in value):
        raise ValueError("no layers")
    layers = np.array([[number(norm) for norm in layer] for layer in value])
    if layers.ndim != 2 or not layers.size:
        raise ValueError("no layers")
    return layers
