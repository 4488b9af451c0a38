"""The comparison's numbers in words, as the terminal and the report show them."""

from __future__ import annotations

import math
from typing import Any

from rnnlstm.reporting.paired import Differences
from rnnlstm.reporting.runs import Run
from rnnlstm.reporting.states import STATES
from rnnlstm.reporting.statistics import ENOUGH_SEEDS, sign_test, wilson
from rnnlstm.reporting.survival import solve_times
from rnnlstm.reporting.table import finite


def differences_text(differences: Differences, form: str) -> str:
    """Median and interval; where the median is only known to lie between bounds, these."""
    if not differences.bounds or differences.open == len(differences.bounds):
        return "—"
    low, high = differences.median()
    if low == high:
        middle = "never" if math.isinf(low) else f"{low:+{form}}"
    elif math.isinf(low) and math.isinf(high):
        middle = "?"
    elif math.isinf(low) or math.isinf(high):
        middle = f"≤ {high:+{form}}" if math.isinf(low) else f"≥ {low:+{form}}"
    else:
        middle = f"{low:+{form}} to {high:+{form}}"
    if len(differences.bounds) == 1:
        return middle.replace("-", "−")
    low, high = differences.interval()
    ends = [f"{end:+{form}}".replace("inf", "∞") for end in (low, high)]
    brackets = "[]" if len(differences.bounds) >= ENOUGH_SEEDS else "()"
    return f"{middle} {brackets[0]}{' … '.join(ends)}{brackets[1]}".replace("-", "−")


def score_text(wins: int, losses: int, differences: Differences) -> str:
    """`5 of 6, p = 0.22`: ties and pairs that don't say are named, and left out of the sign test."""
    if not differences.bounds:
        return "—"
    parts = [f"{wins} of {len(differences.bounds)}"]
    if differences.equal:
        parts.append(f"{differences.equal} equal")
    if differences.open:
        parts.append(f"{differences.open} undecided")
    if wins + losses:
        parts.append(f"p = {sign_test(wins, losses):.2g}")
    return ", ".join(parts)


def metric_text(run: Run, r: dict[str, Any]) -> str:
    """The median, and under five seeds every value, from five on the interval of the median."""
    if r["metric"] is None:
        return "—"
    text, values = f"{r['metric_name']} {r['metric']:.3g}", finite(run.values("metric"))
    if len(values) == 1:
        return text
    if len(values) < ENOUGH_SEEDS:
        return f"{text} ({'  '.join(f'{value:.3g}' for value in sorted(values))})"
    return f"{text} [{r['metric_low']:.3g} … {r['metric_high']:.3g}]"


def solved_text(run: Run) -> str:
    low, high = wilson(run.solved, len(run.seeds))
    return f"{run.solved}/{len(run.seeds)} ({low * 100:.0f}–{high * 100:.0f} %)"


def steps_text(run: Run) -> str:
    """The Kaplan–Meier median with its interval; `> 2,000` where it lies beyond what has been seen."""
    times = solve_times(run)

    def text(step: float) -> str:
        if math.isfinite(step):
            return f"{step:,.0f}"
        return "never" if times.never else f"> {times.followed:,.0f}"

    if len(times.steps) == 1 or not times.solved.any():
        return text(times.median())
    low, high = times.interval()
    brackets = "[]" if len(times.steps) >= ENOUGH_SEEDS else "()"
    return f"{text(times.median())} {brackets[0]}{text(low)} … {text(high)}{brackets[1]}"


def states_text(r: dict[str, Any]) -> str:
    """`2 running, 1 diverged`, or nothing if all are done."""
    return ", ".join(f"{r[state]} {state}" for state in STATES if state != "done" and r[state])


def number_text(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)
