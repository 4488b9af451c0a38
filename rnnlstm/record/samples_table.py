"""Decoded sequences as a Markdown table: the text, the right answer, the model's, and whether that is right."""

from __future__ import annotations

from collections.abc import Sequence

from rnnlstm.record.reader import Sample

ARROW = " → "  # between a decoded text and the right answer, in what every task decodes to
VERDICTS = {True: "✓", False: "✗", None: ""}
ESCAPES = {"&": "&amp;", "<": "&lt;", "|": "&#124;", "*": "&#42;", "[": "&#91;", "_": "&#95;", "\n": " "}


def samples_table(samples: Sequence[Sample]) -> str:
    """A row for each; without a verdict where the record has none."""
    rows = ["| | text | right answer | model's answer |", "|---|---|---|---|"]
    for sample in samples:
        text, arrow, right = sample["text"].rpartition(ARROW)
        text, right = (text, right) if arrow else (right, "")
        cells = (VERDICTS[sample["right"]], text, right, sample["answer"])
        rows.append(f"| {' | '.join(map(_escaped, cells))} |")
    return "\n".join(rows)


def _escaped(text: str) -> str:
    """Text inside a Markdown table; nothing in it is markup."""
    return "".join(ESCAPES.get(mark, mark) for mark in text)
