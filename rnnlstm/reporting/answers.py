"""A network's answer held against the right one, both as text: right, wrong, or right in parts.

Which parts there are is read from the texts themselves, since a task need not be at hand to show a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Numbers count as right within this: the criterion of Hochreiter & Schmidhuber (1997) for the adding problem.
NEAR = 0.04
#: From so many characters on, a word is a sequence of symbols, each right or wrong.
SEQUENCE = 8


@dataclass(frozen=True)
class Verdict:
    """Whether the answer is right, its parts with whether each is, and a remark."""

    right: bool
    parts: list[tuple[str, bool]]
    remark: str = ""


def split_sample(text: str) -> tuple[str, str]:
    """Question and right answer of a decoded sample, `question → answer`."""
    question, _, right = text.rpartition(" → ")
    return question, right


def judge(right: str, answer: str) -> Verdict:
    """Numbers are right within `NEAR`; sequences are compared symbol by symbol, where the right one may list several
    symbols that may stand there; anything else is right if it is the same text."""
    if answer == right:
        return Verdict(True, [(answer, True)])
    if (off := _difference(right, answer)) is not None:
        near = off <= NEAR + 1e-9
        return Verdict(near, [(answer, near)], f"off by {off:.2f}")
    wanted, given, between = _symbols(right, answer)
    if not wanted:
        return Verdict(False, [(answer, False)])
    marks = [mark in may for may, mark in zip(wanted, given, strict=True)]
    parts = _joined(given, marks, between)
    return Verdict(all(marks), parts, "" if all(marks) else f"{sum(marks)} of {len(marks)} symbols right")


def _difference(right: str, answer: str) -> float | None:
    try:
        return abs(float(right) - float(answer)) if "." in right else None
    except ValueError:
        return None


def _symbols(right: str, answer: str) -> tuple[Sequence[str], Sequence[str], str]:
    """Symbols that pair up, and what stands between them; none if these are no sequences of the same length."""
    wanted, given = right.split(" "), answer.split(" ")
    if len(wanted) == len(given) > 1 and all(len(symbol) == 1 for symbol in given):
        return wanted, given, " "
    if len(wanted) == len(given) == 1 and len(right) == len(answer) >= SEQUENCE:
        return right, answer, ""
    return [], [], ""


def _joined(symbols: Sequence[str], marks: Sequence[bool], between: str) -> list[tuple[str, bool]]:
    """Neighbours of the same verdict in one part."""
    parts: list[tuple[str, bool]] = []
    for k, (symbol, mark) in enumerate(zip(symbols, marks, strict=True)):
        shown = symbol + (between if k + 1 < len(symbols) else "")
        if parts and parts[-1][1] == mark:
            parts[-1] = (parts[-1][0] + shown, mark)
        else:
            parts.append((shown, mark))
    return parts
