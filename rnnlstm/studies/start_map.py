"""How the forget and the input gate of an LSTM start: every pair of biases, on keyword recall."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rnnlstm.studies.common import STANDARD, common
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

FORGET: tuple[float | str, ...] = (0, 1, 3, 5, 7, "chrono")
INPUT: tuple[float | str, ...] = (0, -1, -3, -5, "opposite")
LENGTHS = (50, 100, 200)
#: A start remembers if its memory fades by at most e^−3 over the text, and lets in at most five writes.
LIMITS = MOST_LOST, MOST_LET_IN = (3.0, 5.0)
#: The five best at T = 200, entered after that setting had been run: those that all ten seeds solve.
BEST = tuple(
    f"forget {forget}, input {entered}" for forget, entered in ((5, -3), (5, -5), (7, -3), (7, -5), (7, "opposite"))
)


def _arm(forget: float | str, entered: float | str) -> Arm:
    start = "chrono" if forget == "chrono" else "forget_bias"
    bias = () if forget == "chrono" else (f"model.forget_bias={forget}",)
    overrides = ("model=lstm", f"model.init={start}", *bias, f"model.input_bias={entered}")
    return Arm(f"forget {forget}, input {entered}", overrides)


#: Each pair once: with a bias b in the list, `opposite` is the input bias −b.
PAIRS = tuple(
    (forget, entered)
    for forget in FORGET
    for entered in INPUT
    if entered != "opposite" or forget == "chrono" or -float(forget) not in INPUT
)
ARMS = {pair: _arm(*pair) for pair in PAIRS}
PAIR_OF = {arm.name: pair for pair, arm in ARMS.items()}


@register_study("start_map")
class StartMap(Study):
    title = "Where the gates start"
    question = "Does an LSTM keep a word for want of forgetting, or for want of writing over it?"
    reference = (
        "Hochreiter & Schmidhuber 1997 name internal state drift as the risk of a cell that adds at every step, and "
        "start input gates shut (from memory); Tallec & Ollivier 2018: forget bias log u, input bias −log u. No "
        "published map"
    )
    deviations = (
        "Keyword recall with 5 % decoys, 64 units, batch 32, one rate (3e-3; one row and one column at 1e-2), "
        "1,000 updates, ten seeds. Quick: T=20, 32 units, 4 dishes, four starts."
    )
    claims = ("C15",)
    caption = (
        "What to see: the share of seeds that solve the task for each pair of biases (rows: forget gate, columns: "
        "input gate), by length. Below: the same shares over what the gates lose and let in during the text."
    )
    minutes = Minutes(quick=0.5, standard=80)
    figure = "solved"

    def sweep(self, size: str) -> Sweep:
        if size == "quick":
            four = tuple(ARMS[pair] for pair in ((0, 0), (5, 0), (5, -5), ("chrono", "opposite")))
            task = ("task=keyword", "task.num_keywords=4", "task.length=20", "eval.decoys=[]")
            return Sweep((Setting("T=20", task, four, 300, rate=3e-3),), common=common(size))
        row = [pair for pair in PAIRS if pair[0] == 5]
        column = [pair for pair in PAIRS if pair[1] == -5 and pair not in row]
        settings = [_at(T, tuple(ARMS.values())) for T in LENGTHS]
        settings.append(_at(100, tuple(ARMS[pair] for pair in (*row, *column)), rate=1e-2))
        settings.append(_at(400, tuple(arm for arm in ARMS.values() if arm.name in BEST)))
        return Sweep(tuple(settings), final_seeds=10, common=(*STANDARD, "threads=1", "eval.decoys=[]"))

    def checks(self, size: str) -> list[Check]:
        if size == "quick":
            return [
                Check(
                    "at T=20 most seeds solve the task with forget bias 5 and input bias −5",
                    lambda t: _solved(t, "T=20", (5, -5), lambda share: share > 0.5),
                ),
                Check(
                    "at T=20 at most one seed in five solves it with both biases 0",
                    lambda t: _solved(t, "T=20", (0, 0), lambda share: share <= 0.2),
                ),
            ]
        return [
            Check(
                "at T=200 forget bias 5 with input bias −5 is solved by nine seeds in ten or more, with input bias "
                "0 by five or fewer",
                lambda t: _both(
                    _solved(t, "T=200", (5, -5), lambda share: share >= 0.9),
                    _solved(t, "T=200", (5, 0), lambda share: share <= 0.5),
                ),
            ),
            Check(
                "at T=200 chrono's forget biases with input bias 0 are solved by at most two seeds in ten",
                lambda t: _solved(t, "T=200", ("chrono", 0), lambda share: share <= 0.2),
            ),
            Check(
                "with forget bias 5 and 7, at T=50, 100, 200, the solved share does not fall as the input gate "
                "starts further shut (0, −1, −3, −5), to one seed in ten",
                _rising,
            ),
            Check(
                f"two numbers known before training tell who solves: most seeds do if and only if T·(1−σ(b_f)) ≤ "
                f"{MOST_LOST:g} and T·σ(b_i) ≤ {MOST_LET_IN:g}, in nine of ten cells over T=50, 100, 200",
                _told_by_arithmetic,
            ),
        ]

    def draw(self, rows: Sequence[Row], path: Path) -> bool:
        draw_map(Rows(rows), path)
        return True


def _at(T: int, arms: tuple[Arm, ...], rate: float = 3e-3) -> Setting:
    name = f"T={T}" if rate == 3e-3 else f"T={T}, lr {rate:g}"
    return Setting(name, ("task=keyword", f"task.length={T}"), arms, 1000, rate=rate)


def lost_and_let_in(pair: tuple[float | str, float | str], T: int) -> tuple[float, float]:
    """Before training, over T steps: T·(1−σ(b_f)), by whose exponential the memory fades, and T·σ(b_i), the writes
    that enter. With chrono, those of the slowest unit, e^b = T − 1."""
    forget = math.log(T - 1) if pair[0] == "chrono" else float(pair[0])
    entered = -forget if pair[1] == "opposite" else float(pair[1])
    return T / (1 + math.exp(forget)), T / (1 + math.exp(-entered))


def _share(row: Row) -> float:
    return row.solved_count / row.n


def _solved(
    t: Rows, setting: str, pair: tuple[float | str, float | str], holds: Callable[[float], bool]
) -> tuple[bool, str]:
    row = t(setting, ARMS[pair].name)
    return holds(_share(row)), f"{row.arm}: {row.solved_count} of {row.n}"


def _both(one: tuple[bool, str], other: tuple[bool, str]) -> tuple[bool, str]:
    return one[0] and other[0], f"{one[1]}; {other[1]}"


def _rising(t: Rows) -> tuple[bool, str]:
    held, told = True, []
    for T in LENGTHS:
        for forget in (5, 7):
            counts = [t(f"T={T}", ARMS[forget, entered].name) for entered in (0, -1, -3, -5)]
            shares = [_share(row) for row in counts]
            held &= all(after >= before - 0.1 for before, after in itertools.pairwise(shares))
            told.append(f"T={T}, forget {forget}: {', '.join(str(row.solved_count) for row in counts)}")
    return held, "; ".join(told) + " of 10"


def _told_by_arithmetic(t: Rows) -> tuple[bool, str]:
    right, wrong = 0, []
    for T in LENGTHS:
        for pair, arm in ARMS.items():
            lost, let_in = lost_and_let_in(pair, T)
            row = t(f"T={T}", arm.name)
            if (lost <= MOST_LOST and let_in <= MOST_LET_IN) == (_share(row) > 0.5):
                right += 1
            else:
                wrong.append(f"T={T} {arm.name} {row.solved_count}")
    of = len(LENGTHS) * len(ARMS)
    return right >= 0.9 * of, f"{right} of {of}" + (f"; not: {', '.join(wrong)}" if wrong else "")


def draw_map(rows: Rows, path: Path) -> None:
    """A map of solved shares for each length; below, the shares over what is lost and what is let in."""
    from rnnlstm.reporting.colours import PALETTE
    from rnnlstm.reporting.figures import save_picture
    from rnnlstm.studies.figure import draw_share_map, panels

    lengths = [T for T in (20, *LENGTHS, 400) if f"T={T}" in rows.settings] or [20]
    wide = max(len(lengths), 2)
    figure, axes = panels(2, wide, 1.5 + 3.1 * wide, 6.4)
    for panel in (*axes[0, len(lengths) :], *axes[1, 2:]):
        panel.axis("off")
    names = ["−b_f" if b == "opposite" else str(b).replace("-", "−") for b in INPUT]
    for panel, T in zip(axes[0], lengths, strict=False):
        shares = np.full((len(FORGET), len(INPUT)), math.nan)
        for row in rows.of(f"T={T}"):
            forget, entered = PAIR_OF[row.arm]
            same = [
                b == entered or (b == "opposite" and not isinstance(forget, str) and entered == -forget)
                for b in INPUT
            ]
            shares[FORGET.index(forget), same] = _share(row)
        draw_share_map(panel, shares, [str(b) for b in FORGET], names)
        panel.set_title(f"T={T}: share of seeds that solve it", fontsize=9)
        panel.set_xlabel("input gate's bias b_i", fontsize=9)
        panel.set_ylabel("forget gate's bias b_f", fontsize=9)
    drawn = {T: [(lost_and_let_in(PAIR_OF[row.arm], T), _share(row)) for row in rows.of(f"T={T}")] for T in lengths}
    for k, (label, kept) in enumerate(
        (("lost: T·(1−σ(b_f))", "lets in little"), ("let in: T·σ(b_i)", "loses little"))
    ):
        panel = axes[1, k]
        for (T, points), colour in zip(drawn.items(), PALETTE, strict=False):
            for good in (True, False):
                mine = [(at[k], share) for at, share in points if (at[1 - k] <= LIMITS[1 - k]) == good]
                face, said = (colour, f"T={T}") if good else ("none", None)
                across, up = [at_x for at_x, _ in mine], [share for _, share in mine]
                panel.plot(across, up, "o", color=colour, markerfacecolor=face, alpha=0.8, label=said)
        panel.axvline(LIMITS[k], color="0.6", linewidth=1, linestyle="--")
        panel.set_xscale("log")
        panel.set_xlabel(label, fontsize=9)
        panel.set_ylabel("share of seeds that solve it", fontsize=9)
        panel.set_title(f"filled: a start that {kept}", fontsize=9)
        panel.legend(fontsize=8, frameon=False)
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=8)
    save_picture(figure, path, 90)
