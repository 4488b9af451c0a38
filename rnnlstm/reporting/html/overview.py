"""In short; the table of results; and what the networks answered: the report's words and tables without charts."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from rnnlstm.config.untrusted import config_folder
from rnnlstm.record.reader import Sample
from rnnlstm.reporting.charts import Shown, TaskGroup, number, share
from rnnlstm.reporting.html.parts import (
    Numbers,
    Report,
    Section,
    chapter,
    element,
    keyed,
    render,
    table,
    text,
    unbroken,
)
from rnnlstm.reporting.html.svg import illustration
from rnnlstm.reporting.runs import STATES, Run, counts, reasons
from rnnlstm.reporting.selection import pooled_over
from rnnlstm.reporting.statistics import solve_times
from rnnlstm.reporting.tables import finite, metric_text, row, solved_text, states_text, steps_text

# In short.

#: Powers of ten by which gradients must differ to say that they tell networks apart.
APART = 2.0
#: What each initialisation does.
STARTS = {
    "default": "weights as PyTorch draws them; an LSTM’s forget gate then starts half closed",
    "chrono": "forget gates that start almost open: memory for about a sequence’s length (Tallec & Ollivier 2018)",
    "forget_bias": "a bias that opens the forget gate from the start (Gers et al. 2000)",
    "orthogonal": "recurrent weights that keep lengths",
    "identity": "recurrent weights that start by copying the state (Le et al. 2015)",
}
STUCK = 0.9  #: of the baseline's loss, and above: as good as not looking


@dataclass(frozen=True)
class Finding:
    """One configuration in a sentence: how many seeds solved the task, and what was left of the gradient."""

    shown: Shown
    solved: int
    seeds: int
    updates: str
    metric: str
    loss: float | None
    baseline: float | None
    reach: float | None  #: log10 of the gradient left at the first step
    reach_text: str
    state: str
    lag: int  #: at which that is
    steps_back: int  #: from the answer to the first step; farther back than `lag`, float32 holds nothing

    @property
    def stuck(self) -> bool:
        return bool(
            not self.solved and self.loss is not None and self.baseline and self.loss >= STUCK * self.baseline
        )


def in_short(report: Report) -> Section:
    parts = []
    for group in report.drawn:
        findings = [_finding(s) for s in group.shown]
        parts.append((group, _first_line("task", group.task), findings, _words(findings), _conclusion(findings)))
    body = render("overview.html", parts=parts, illustration=illustration(), several=len(report.groups) > 1)
    return Section("in-short", "In short", body)


def _words(findings: list[Finding]) -> list[tuple[str, str]]:
    """The models and starts among the configurations, each in a line."""
    configs = [finding.shown.run.config for finding in findings]
    models = {str(config.get("model.name")): None for config in configs}
    starts = {str(config.get("model.init")): None for config in configs}
    words = [(name, _first_line("model", name)) for name in models]
    words += [(f"init={name}", STARTS.get(name, "")) for name in starts]
    return [(word, meaning) for word, meaning in words if meaning]


def _first_line(group: str, name: str) -> str:
    """What a choice is, from the first line of its YAML file; nothing for a user's own."""
    path = config_folder() / group / f"{name}.yaml"
    if not re.fullmatch(r"\w{1,99}", name, re.ASCII) or not path.is_file():
        return ""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _finding(s: Shown) -> Finding:
    run, steps, metric = s.run, solve_times(s.run).median(), row(s.run)["metric"]
    losses, baselines = finite(run.values("loss")), finite(run.values("baseline"))
    reach, state, lag, steps_back = None, "", 0, 0
    for name, flow in run.flows.items():
        arrived = np.flatnonzero(np.isfinite(flow.last))  # float32 rounds the rest to nothing
        if len(arrived) and (reach is None or flow.last[arrived[-1]] > reach):
            reach, lag, steps_back = float(flow.last[arrived[-1]]), int(arrived[-1]), len(flow.last) - 1
            state = {"hidden": "its state h", "cell": "its memory c"}.get(name, name)
    return Finding(
        s, run.solved, len(run.seeds), number(steps) if math.isfinite(steps) else "",
        "" if metric is None else number(metric), statistics.median(losses) if losses else None,
        baselines[0] if baselines else None, reach, "" if reach is None else _left(reach), state, lag,
        steps_back,
    )  # fmt: skip


def _left(log10: float) -> str:
    if log10 > 0.3:
        return f"{number(10.0 ** min(log10, 300), '.2g')} times as strong as at the answer"
    return "as strong as at the answer" if log10 > -0.1 else unbroken(f"{share(log10)} of that at the answer")


def _conclusion(findings: list[Finding]) -> str:
    """Whether the gradient's reach separates solved from stuck networks; empty unless there are both."""
    solved = [f.reach for f in findings if 2 * f.solved > f.seeds and f.reach is not None]
    stuck = [f.reach for f in findings if f.stuck and f.reach is not None]
    if not solved or not stuck:
        return ""
    if min(solved) - max(stuck) < APART:
        return (
            "Here the gradient’s reach alone does not tell the networks that learned from those that did not: look "
            "at its course over training, and at the gates."
        )
    between = [f for f in findings if not f.stuck and 2 * f.solved <= f.seeds and f.reach is not None]
    exceptions = [f.shown.name for f in between if min(solved) - (f.reach or 0.0) >= APART]
    told = (
        "Here the gradient tells those that solve the task from those that learn nothing: where it reaches back to "
        "the start, the network learned to remember; where it had vanished on the way, the network stayed at what "
        "can be had without looking."
    )
    if any(min(solved) - (f.reach or 0.0) < APART for f in between):
        told = (
            "Here the gradient tells those that solve the task from those that learn nothing: where it had vanished "
            "on the way, the network stayed at what can be had without looking. That it reaches back is not enough: "
            "other networks, in which it does, had not solved the task when training ended."
        )
    if max(f.seeds for f in findings) < 3:
        told += " With one or two seeds of each this is an impression, and no more."
    if exceptions:
        names = " and ".join([*exceptions[:2], *(["others"] if len(exceptions) > 2 else [])])
        told += (
            f" Between them stands {names}: better than without looking, not solved, and at the last look without "
            "such a gradient. It may have learned at moments when its gradient did reach back: see the maps below, "
            "update by update."
        )
    return told


# Results.

RESULT_HEADS = (
    "configuration", "solved (95\u00a0%)", "score", "updates to solve", "held-out loss", "seeds", "clipped",
    "median norm", "parameters", "ms an update",
)  # fmt: skip
#: What the states of seeds that are not done mean.
MEANINGS = {
    "running": "still training when this was made",
    "interrupted": "stopped after saving; the same command resumes it",
    "stopped": "killed, or crashed without a message; the same command resumes it",
    "diverged": "its loss or gradient was no longer a finite number; that is a result",
    "failed": "ended by an error",
    "missing": "started or requested, without a readable summary",
}
#: Rows of all tables together; nobody reads a page of thousands, and `--csv` has them all.
MOST_ROWS = 500


def results(report: Report) -> Section:
    left, tables = MOST_ROWS, []
    for group in report.groups:
        if left > 0:
            tables.append(_results_table(group, left))
            left -= len(group.runs)
    body = render(
        "summary.html", tables=tables, left_out=max(0, -left), states=_states(report), reasons=reasons(report.runs),
        by=report.comparison.by, pooled=pooled_over(report.runs),
    )  # fmt: skip
    return Section("results", "Results", body)


def _states(report: Report) -> list[tuple[int, str, str]]:
    """How many seeds are not done, and what that means; nothing if all are."""
    total = dict.fromkeys(STATES, 0)
    for run in report.runs:
        for state, count in counts(run).items():
            total[state] += count
    return [(total[state], state, meaning) for state, meaning in MEANINGS.items() if total[state]]


def _results_table(group: TaskGroup, most: int) -> Markup:
    styles = {id(s.run): s.style for s in group.shown}
    rows = []
    for run, name in list(zip(group.runs, group.names, strict=True))[:most]:
        style = styles.get(id(run))
        rows.append([keyed(name, style), *_result_cells(run)])
    return table(Numbers(group.title, RESULT_HEADS, rows))


def _result_cells(run: Run) -> list[object]:
    r = row(run)
    losses = finite(run.values("loss"))
    clipped = r["clip_rate"]
    states = ", ".join(filter(None, (f"{r['done']} done" if r["done"] else "", states_text(r))))
    return [
        unbroken(solved_text(run)),
        unbroken(metric_text(run, r)),
        unbroken(steps_text(run)),
        number(statistics.median(losses)) if losses else "—",
        element("span", re.sub(r"(\d) ", "\\1\u00a0", states), class_="brief"),
        "—" if clipped is None else f"{clipped:.0%}".replace("%", "\u00a0%"),
        number(r["median_norm_before_clip"]),
        number(r["parameters"]),
        number(r["ms_per_update"]),
    ]


# Answers.

MOST_EXAMPLES = 4
LONGEST_TEXT = 1500  #: characters of a sequence that are shown


@dataclass(frozen=True)
class Said:
    """A network's answers to an example, before training and at the last look."""

    shown: Shown
    before: Sample | None  #: None if it has been asked once only
    after: Sample


@dataclass
class Example:
    """A sequence with its right answer, and what the networks answered."""

    question: Markup
    right: str
    said: list[Said]


@chapter(
    "answers",
    "Answers",
    "Sequences that no network trained on, as text, each with its right answer and what the networks said (their "
    "first seed), before training and at the last look. Underlined: the right answer, where it stands in the "
    "sequence.",
    "No decoded sequences were recorded (probe=off).",
)
def answers(report: Report, group: TaskGroup) -> Markup | None:
    examples: dict[str, Example] = {}
    for s in group.shown:
        looks = sorted(s.run.samples, key=lambda look: look[0])
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
    return render("examples.html", examples=shown, group=group, verdict=_verdict, numeric=_is_decimal(shown[0].right))


def _question(question: str, right: str) -> Markup:
    """The sequence with the right answer marked where it occurs; a single sign may occur by chance, and isn't."""
    pieces = [text(piece) for piece in (_short(question).split(right) if len(right) > 2 else [_short(question)])]
    return element("mark", right).join(pieces)


def _short(words: str) -> str:
    """The middle of a text that is too long is left out."""
    if len(words) <= LONGEST_TEXT:
        return words
    half = LONGEST_TEXT // 2
    return f"{words[:half]} … {len(words) - 2 * half:,} characters … {words[-half:]}"


def _is_decimal(answer: str) -> bool:
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
