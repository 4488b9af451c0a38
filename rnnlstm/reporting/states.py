"""How the seeds of a comparison stand: counts, seeds that left nothing, and why some failed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rnnlstm.record.folders import SUMMARY, seed_folders
from rnnlstm.record.summary import read_summary
from rnnlstm.reporting.liveness import held
from rnnlstm.reporting.runs import Run, labels

#: What a seed can have come to, in the order of the table; `stopped`: killed or crashed without a word.
STATES = ("done", "running", "interrupted", "stopped", "diverged", "failed", "missing")
MOST_REASONS = 5  # lines


def counts(run: Run) -> dict[str, int]:
    """How many seeds are in each state, all of `STATES`. A state that isn't known here counts as failed."""
    found = Counter(str(seed.get("status")) for seed in run.seeds)
    known = {state: found.pop(state, 0) for state in STATES}
    known["failed"] += found.total()
    return known | {"missing": sum(len(missing_seeds(member)) for member in run.members)}


def missing_seeds(run: Run) -> list[int]:
    """Seeds that were begun or asked for and left nothing to read.

    A run's folder doesn't say how many seeds were asked for. Two things speak of one: a folder of its own without a
    readable summary, and a hole in the row of numbers, if it is a row: more seeds there than holes.
    """
    present = {seed["seed"] for seed in run.seeds if isinstance(seed.get("seed"), int)}
    try:
        begun = {seed: place for seed, place in seed_folders(run.folder) if seed not in present}
    except OSError:
        return []
    silent = {seed for seed, place in begun.items() if not _readable(place / SUMMARY)}
    row = range(min(present, default=0), max(present, default=-1) + 1)
    if len(row) < 2 * len(present):
        silent |= set(row) - present - set(begun)
    if not silent or held(run.folder):  # about to begin
        return []
    return sorted(silent)


def _readable(path: Path) -> bool:
    try:
        read_summary(path)
    except (OSError, ValueError):
        return False
    return True


def reasons(runs: Sequence[Run]) -> list[str]:
    """Lines that say why seeds diverged or failed, and where first; the most frequent reason on top."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}  # where, and the reason in full
    for run, name in zip(runs, labels(runs), strict=True):
        for seed in run.seeds:
            if seed.get("status") in ("diverged", "failed"):
                text = " ".join(str(seed.get("reason") or "no reason given").split())
                found.setdefault((seed["status"], re.sub(r"\d+", "#", text)), []).append((name, text))
    lines = []
    for (status, _), cases in sorted(found.items(), key=lambda item: -len(item[1])):
        places = list(dict.fromkeys(name for name, _ in cases))
        texts = dict.fromkeys(text for _, text in cases)
        more = f" and {len(places) - 1:,} more" if len(places) > 1 else ""
        example = next(iter(texts)) + (", say" if len(texts) > 1 else "")
        lines.append(f"{len(cases):,} {status}: {_cut(example)} ({places[0]}{more})")
    if len(lines) > MOST_REASONS:
        left = len(lines) - MOST_REASONS + 1
        lines = [*lines[: MOST_REASONS - 1], f"and {left:,} further reasons"]
    return lines


def _cut(text: str, longest: int = 120) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
