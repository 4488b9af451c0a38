"""Answers: the same sequences put to every network, with the right answer and what each said."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from rnnlstm.reporting.answers import NEAR, Verdict, judge, split_sample
from rnnlstm.reporting.html.markup import element, render, text
from rnnlstm.reporting.html.parts import Report, Section, chapter
from rnnlstm.reporting.html.selection import Group, Shown

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
    before: Verdict | None  #: None if it has been asked once only
    after: Verdict


@dataclass
class Example:
    question: Markup
    right: str
    said: list[Said]


def section(report: Report) -> Section:
    parts = [_part(report, group) for group in report.drawn]
    missing = "No decoded sequences were recorded (probe=off)."
    return chapter("answers", "Answers", report, INTRO, parts, missing)


def _part(report: Report, group: Group) -> Markup | None:
    examples: dict[str, Example] = {}
    for s in group.shown:
        looks = sorted(report.records.samples(s.run), key=lambda look: look[0])
        if not looks:
            continue
        before = {str(sample.get("text")): str(sample.get("answer")) for sample in looks[0][1]}
        for sample in looks[-1][1]:
            key, answer = str(sample.get("text")), str(sample.get("answer"))
            question, right = split_sample(key)
            first = judge(right, before[key]) if len(looks) > 1 and key in before else None
            example = examples.setdefault(key, Example(_question(question, right), _short(right), []))
            example.said.append(Said(s, first, judge(right, answer)))
    if not examples:
        return None
    shown = sorted(examples.values(), key=lambda example: -len(example.said))[:MOST_EXAMPLES]
    return render("examples.html", examples=shown, group=group, verdict=_verdict, near=NEAR)


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


def _verdict(verdict: Verdict) -> Markup:
    """The answer with a sign, a word and a colour for right and wrong."""
    parts = [element("span", _short(part), class_="right" if right else "wrong") for part, right in verdict.parts]
    sign = element(
        "span", "✓" if verdict.right else "✗", class_="right" if verdict.right else "wrong", aria_hidden="true"
    )
    remark = f"{'right' if verdict.right else 'wrong'}{', ' if verdict.remark else ''}{verdict.remark}"
    return Markup(" ").join([sign, Markup("").join(parts), element("span", f"({remark})", class_="remark")])
