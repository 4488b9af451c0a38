"""What holds a word in a trained network: a fixed point for each word, the phase of a cycle, or a slow drift."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from rnnlstm.studies.common import CHRONO, DEFAULT, GRU, TANH, common
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

#: By size: lengths, updates, dishes.
SIZES = {"quick": ((12,), 600, 4), "standard": ((10, 20, 50), 2000, 8)}
RATE = 1e-2
#: Tokens by which texts are longer than in training, in the test of a clock.
LONGER = range(1, 6)
TEXTS = 512
VARIED = "tanh RNN, T/2 … T"
NAMED, RIGHT = "dishes_named_at_attractors", "dishes_right"
LONGER_BY_FEW, LONGER_BY_FAR = "accuracy_at_1_to_5_more", "accuracy_at_10_T"


@register_study("dynamics")
class Dynamics(Study):
    title = "Fixed points and cycles that hold a word"
    question = "What holds the dish in a trained network: an attractor for each dish, a cycle, or a slow drift?"
    reference = (
        "Sussillo & Barak 2013 (from memory): a trained network that holds a value has a stable fixed point for each "
        "value, with saddles between them, found by minimising the speed. No published table of this task"
    )
    deviations = (
        "Discrete time, and the mean filler word as the constant input. One rate, 0.01, for all; five seeds; "
        "training stops when solved. Points are searched from 128 states of texts, by Levenberg and Marquardt's "
        "method. One arm is trained on texts of T/2 to T tokens: a clock that fits one length can't serve there. The "
        "sentences on clocks and longer texts were written after a look at networks of the quick size, before any of "
        "the standard size were trained. Quick: T=12, 32 units, 4 dishes."
    )
    claims = ("C11", "C17")
    caption = (
        "What to see, a mark a seed, hollow where it did not solve the task. Left: dishes that attractors name "
        "against dishes that are answered right. Middle: accuracy on texts as long as in training, a few tokens "
        "longer, and ten times as long. Right: answers that are right (solid) and that tell the dish (dashed) after "
        "steps of held input, medians."
    )
    minutes = Minutes(quick=1, standard=20)
    columns = (NAMED, RIGHT, "at_rest", "cycling", "slow_directions_on_the_way", "right_after_10_T", LONGER_BY_FEW)

    def sweep(self, size: str) -> Sweep:
        lengths, steps, dishes = SIZES[size]
        task = ("task=keyword", f"task.num_keywords={dishes}")
        settings = tuple(Setting(f"T={T}", (*task, f"task.length={T}"), _arms(T), steps, rate=RATE) for T in lengths)
        return Sweep(settings, common=common(size))

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """`dynamics` of the trained network by name; `dishes_right`, dishes that most of their texts get; accuracy on
        longer texts. A time constant is that of the slowest direction at an attractor, the longest over them."""
        from rnnlstm.instruments.analysed_network import AnalysedNetwork
        from rnnlstm.instruments.dynamics import TEXTS as HELD_TEXTS
        from rnnlstm.instruments.dynamics import dynamics
        from rnnlstm.studies.common import network_of, score

        plan, network = network_of(folder, seed)
        task = plan.task.vary(shortest=None)
        T, K = task.sequence_length, task.output_size
        analysed = AnalysedNetwork.of(task, network, task.sample(seed, 0, "probe", HELD_TEXTS))
        found = dynamics(analysed)
        target = found.target
        right = analysed.path.outputs[-1].argmax(-1) == target
        attractors = [orbit for orbit in found.orbits if orbit.attracts]
        values = {
            NAMED: float(len(found.named)),
            RIGHT: float(sum(bool(right[target == k].double().mean() > 0.5) for k in range(K))),
            "attractors": float(len(attractors)),
            "cycles": float(sum(orbit.period > 1 for orbit in attractors)),
            "at_rest": found.at_rest,
            "cycling": found.cycling,
            "slow_directions_on_the_way": found.slow_on_the_way,
            "longest_time_constant": max((o.time_constants[0].item() for o in attractors), default=math.nan),
            "largest_eigenvalue": max((o.eigenvalues[0].abs().item() for o in attractors), default=math.nan),
        }
        for name, steps in (("0", 0), ("T", T), ("10_T", 10 * T), ("1000", found.held)):
            values[f"right_after_{name}"] = found.over(found.right, steps)
            values[f"told_after_{name}"] = found.over(found.told, steps)
        longer = [score(task.vary(length=T + more), network, seed, TEXTS) for more in LONGER]
        values |= {LONGER_BY_FEW: sum(longer) / len(longer)}
        values |= {LONGER_BY_FAR: score(task.vary(length=10 * T), network, seed, TEXTS)}
        values |= {"accuracy_at_T": score(task, network, seed, TEXTS)}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def checks(self, size: str) -> list[Check]:
        _, _, dishes = SIZES[size]
        bits = math.log2(dishes)
        return [
            Check(
                "the tanh RNN, trained at one length, where it solves: attractors name at least as many dishes as it "
                "gets right",
                _where_solved(TANH.name, (NAMED, RIGHT), lambda named, right: named >= right),
            ),
            Check(
                "the tanh RNN, trained at one length, where it solves: it is a clock. On texts one to five tokens "
                "longer fewer than half of its answers are right",
                _where_solved(TANH.name, (LONGER_BY_FEW,), lambda accuracy: accuracy < 0.5),
            ),
            Check(
                "the tanh RNN, trained at lengths from T/2 to T, where it solves: attractors name every dish",
                _where_solved(VARIED, (NAMED,), lambda named: named == dishes),
            ),
            Check(
                "the same: after 10·T steps of held input at least 95 % of answers are right",
                _where_solved(VARIED, ("right_after_10_T",), lambda right: right >= 0.95),
            ),
            *(
                Check(
                    f"{arm}, where it solves: before the question at least log₂ K = {bits:g} directions change by "
                    "less than a factor e in T steps",
                    _where_solved(arm, ("slow_directions_on_the_way",), lambda slow: slow >= bits),
                )
                for arm in (DEFAULT.name, CHRONO.name)
            ),
            Check(
                "LSTM, chrono, where it solves: after 10·T steps of held input at least 90 % of answers are right",
                _where_solved(CHRONO.name, ("right_after_10_T",), lambda right: right >= 0.9),
            ),
        ]

    def draw(self, rows: Sequence[Row], path: Path) -> bool:
        _draw(Rows(rows), path)
        return True


def _arms(T: int) -> tuple[Arm, ...]:
    varied = Arm(VARIED, (*TANH.overrides, f"task.shortest={T // 2}"))
    return TANH, varied, GRU, DEFAULT, CHRONO


def _where_solved(arm: str, names: tuple[str, ...], holds: Callable[..., bool]) -> Callable[[Rows], tuple[bool, str]]:
    """A test of every seed that solved the task, over all lengths; it misses if none did."""

    def test(t: Rows) -> tuple[bool, str]:
        outcomes, told = [], []
        for row in t.arm(arm):
            scores = [row.scores.get(name, [None] * row.n) for name in names]
            seeds = [values for good, *values in zip(row.solved, *scores, strict=True) if good and None not in values]
            outcomes += [bool(holds(*values)) for values in seeds]
            of = ", ".join(" of ".join(f"{value:.3g}" for value in values) for values in seeds) or "none"
            told.append(f"{row.setting}: {row.solved_count} of {row.n} solve it; {of}")
        return bool(outcomes) and all(outcomes), "; ".join(told)

    return test


def _draw(t: Rows, path: Path) -> None:
    from rnnlstm.reporting.colours import STYLES
    from rnnlstm.reporting.figures import save_picture
    from rnnlstm.studies.figure import panels

    arms = list(dict.fromkeys(row.arm for row in t))
    styles = {arm: STYLES[k] for arm, k in zip(arms, (0, 5, 4, 1, 2), strict=True)}
    figure, axes = panels(len(t.settings), 3, 13.5, 0.8 + 3.6 * len(t.settings))
    for setting, (left, middle, right) in zip(t.settings, axes, strict=True):
        for k, row in enumerate(t.of(setting)):
            look = {"color": styles[row.arm].on_white, "marker": styles[row.arm].marker}
            shift = 0.08 * (k - 2)
            for r, solved in enumerate(row.solved):
                face = look["color"] if solved else "white"
                one = {name: value for name, values in row.scores.items() if (value := values[r]) is not None}
                if NAMED not in one:
                    continue
                left.plot(one[RIGHT] + shift, one[NAMED] + 0.05 * (r - 2), markerfacecolor=face, linestyle="", **look)
                names = ("accuracy_at_T", LONGER_BY_FEW, LONGER_BY_FAR)
                places = [x + shift for x in range(3)]
                middle.plot(
                    places, [one[n] for n in names], markerfacecolor=face, linewidth=0.4, markersize=4, **look
                )
            for what, dashes in (("right", "-"), ("told", "--")):
                medians = [row.median(f"{what}_after_{n}") for n in ("0", "T", "10_T", "1000")]
                label = row.arm if what == "right" else None
                right.plot(range(4), medians, dashes, linewidth=1.4, markersize=4, label=label, **look)
        most = max(max(row.values(RIGHT), default=1) for row in t.of(setting))
        left.axline((0, 0), slope=1, color="0.6", linestyle=":", linewidth=1)
        left.set(xlim=(-0.5, most + 0.5), ylim=(-0.5, most + 0.5))
        left.set_xlabel("dishes that are answered right", fontsize=9)
        left.set_ylabel(f"{setting}: dishes named at attractors", fontsize=9)
        middle.set_xticks(range(3), ["T", "T+1 … T+5", "10·T"], fontsize=9)
        middle.set_xlabel("tokens in the text", fontsize=9)
        middle.set_ylabel("accuracy", fontsize=9)
        right.set_xticks(range(4), ["0", "T", "10·T", "1,000"], fontsize=9)
        right.set_xlabel("steps of held input", fontsize=9)
        right.set_ylabel("share of answers", fontsize=9)
        for axis in (middle, right):
            axis.set_ylim(-0.04, 1.06)
        for axis in (left, middle, right):
            axis.grid(alpha=0.3)
    axes[0, 2].legend(fontsize=8, frameon=False, loc="lower left")
    save_picture(figure, path, 90)
