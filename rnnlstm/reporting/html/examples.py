"""Answers: the same sequences put to every network, with the right answer and what each said."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from rnnlstm.record.reader import Sample
from rnnlstm.reporting.html.markup import element, render, text
from rnnlstm.reporting.html.parts import Report, Section, chapter
from rnnlstm.reporting.html.shown import Shown, TaskGroup

INTRO = (
    "Sequences that no network trained on, as text, each with its right answer and what the networks said (their "
    "first seed), before training and at the last look. Underlined: the right answer, where it stands in the "
    "sequence."
)
MOST_EXAMPLES = 4
LONGEST = 1500  #: characters of a sequence that are shown


@dataclass(frozen=True)
class Said:
    shown: Shown
    before: Sample | None  #: None if it has been asked once only
    after: Sample


@dataclass
class Example:
    question: Markup
    right: str
    said: list[Said]


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    missing = "No decoded sequences were recorded (probe=off)."
    return chapter("answers", "Answers", report, INTRO, parts, missing)


def _part(report: Report, group: TaskGroup) -> Markup | None:
    examples: dict[str, Example] = {}
    for s in group.shown:
        looks = sorted(report.records.samples(s.run), key=lambda look: look[0])
        if not looks:
            continue
        before = {sample["text"]: sample for sample in looks[0][1]} if len(looks) > 1 else {}
        for sample in looks[-1][1]:
            question, _, right = sample["text"].rpartition(" → ")
            example = examples.setdefault(sample["text"], Example(_question(question, right), _short(right), []))
            example.said.append(Said(s, before.get(sample["text"]), sample))
    if not examples:
        return None
    shown = sorted(examples.values(), key=lambda example: -len(example.said))[:MOST_EXAMPLES]
    return render("examples.html", examples=shown, group=group, verdict=_verdict, numeric=_is_number(shown[0].right))


def _question(question: str, right: str) -> Markup:
    """The sequence with the right answer marked where it occurs; a single sign may occur by chance, and isn't."""
    pieces = [text(piece) for piece in (_short(question).split(right) if len(right) > 2 else [_short(question)])]
    return element("mark", right).join(pieces)


def _short(words: str) -> str:
    """The middle of a text that is too long is left out."""
    if len(words) <= LONGEST:
        return words
    half = LONGEST // 2
    return f"{words[:half]} … {len(words) - 2 * half:,} characters … {words[-half:]}"


def _is_number(answer: str) -> bool:
    return re.fullmatch(r"[-−]?\d+\.\d+", answer.strip()) is not None


def _verdict(sample: Sample) -> Markup:
    """The answer with a sign, a word and a colour for right and wrong, where that was recorded."""
    answer, right = _short(sample["answer"]), sample["right"]
    if right is None:
        return text(answer)
    word = "right" if right else "wrong"
    sign = element("span", "✓" if right else "✗", class_=word, aria_hidden="true")
    parts = [sign, element("span", answer, class_=word), element("span", f"({word})", class_="remark")]
    return Markup(" ").join(parts)
