"""What `python -m rnnlstm.compare` prints: which rows, and what is said beneath them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from rnnlstm.reporting.pairing import Contest, contests
from rnnlstm.reporting.runs import Run, find_runs
from rnnlstm.reporting.selection import find_key, first_of_each, group_by, pooled_over, select
from rnnlstm.reporting.states import reasons
from rnnlstm.reporting.statistics import ENOUGH_SEEDS, sign_test
from rnnlstm.reporting.table import equal_keys
from rnnlstm.reporting.terminal import paired_tables, table

#: Rows up to which differences are printed unasked: beyond, they would be more to read than the table itself.
FEW = 8
MOST_KEYS = 12  # named beneath the table


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison: configurations, or groups of them."""

    rows: list[Run]
    by: list[str] = field(default_factory=list)  #: full keys, if the rows are groups
    where: list[str] = field(default_factory=list)  #: the conditions that the runs meet


def compare(places: Sequence[str], conditions: Sequence[str] = (), by: Sequence[str] = ()) -> Comparison:
    """The runs below `places` that meet the conditions, grouped if asked for. Raises: ConfigError."""
    runs = select(find_runs(places), conditions)
    words = [word for words in by for word in words.split(",") if word]
    if not words:
        return Comparison(runs, where=list(conditions))
    return Comparison(list(group_by(runs, words)), [find_key(word, runs) for word in words], list(conditions))


def paragraphs(
    found: Comparison, top: int, paired: bool, against: Sequence[str], width: int
) -> Iterator[Table | str]:
    """The table, what belongs under it, and the differences over shared seeds: if asked for, or if few rows share
    two seeds or more. Raises: ConfigError for `against` that names no row."""
    pairs = contests(found.rows, against) if paired or against or len(found.rows) <= FEW else []
    if not paired and not against:
        pairs = [contest for contest in pairs if len(contest.steps.bounds) > 1]
    shown = spread_out(found.rows, top)
    results, left_out = table(shown, found.rows, found.by, width)
    yield results
    if len(shown) < len(found.rows):
        yield f"{len(found.rows) - len(shown):,} more rows: --top {len(found.rows)} shows them, --csv writes all"
    if left_out:
        yield f"No room for: {', '.join(left_out)}; --csv has them"
    if equal := equal_keys(found.rows):
        yield f"Equal in all: {equal}"
    if pooled := pooled_over(found.rows):
        yield f"Pooled over: {_some(pooled)}; the intervals take every seed of every configuration as one of equals"
    yield from reasons(found.rows)
    if pairs:
        yield from paired_tables(pairs[:top])
        yield from _explanation(pairs, top, bool(against))
    elif paired or against:
        yield "No two rows of one task share seeds and data."


def spread_out(rows: Sequence[Run], top: int) -> list[Run]:
    """At most `top` rows: the first of each task and length, then the second of each, and so on."""
    tasks = [(run.config.get("task.name"), run.config.get("task.length")) for run in rows]
    return [rows[k] for k in first_of_each(tasks, top)]


def _explanation(pairs: Sequence[Contest], top: int, named: bool) -> Iterator[str]:
    if len(pairs) > top:
        yield f"{len(pairs) - top:,} more rows: --top {len(pairs)} shows them"
    yield (
        "Differences seed by seed, on the same data: the median, [its 95 % bootstrap interval] or (the range) under "
        "five pairs; p: exact sign test"
    )
    most = max(len(differences.bounds) for contest in pairs for differences in (contest.metric, contest.steps))
    if most < ENOUGH_SEEDS:
        pooled = any(len(contest.run.members) > 1 for contest in pairs)  # then one seed may make several pairs
        what = ("pair" if pooled else "seed") + "s" * (most > 1)
        yield f"With {most} {what} p can't fall below {sign_test(most, 0):.2g}"
    if not named:
        yield "The reference has the lowest loss of these very seeds, which flatters it; --against names another"


def _some(keys: Sequence[str]) -> str:
    left = len(keys) - MOST_KEYS
    return ", ".join(keys[:MOST_KEYS]) + (f" and {left} more" if left > 0 else "")
