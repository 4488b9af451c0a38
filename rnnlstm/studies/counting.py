"""Counting: which networks count a's beyond the numbers they were trained on, and how far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from rnnlstm.studies.common import DEFAULT, GRU, IRNN, LRU, RELU, TANH, common
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

#: A memory that only adds: the LSTM whose forget and input gate are 1, with its output gate.
OUTPUT_GATE = Arm("LSTM, output gate only", (*DEFAULT.overrides, "surgery.open=[input,forget]"))
ARMS = (DEFAULT, OUTPUT_GATE, RELU, IRNN, GRU, TANH, LRU)
VARIANTS, RATES = ("anbn", "anbncn"), (3e-3, 1e-2)
ALL = "train.stop_when_solved=false"
TRAINED = {"quick": 10, "standard": 50}  #: the largest n of training
TESTED = {"quick": 50, "standard": 256}  #: and of the test


@register_study("counting")
class Counting(Study):
    title = "Counting beyond the training's numbers"
    question = "Trained on a^n b^n up to n = 50, up to which n does a network name every symbol?"
    reference = (
        "Weiss, Goldberg & Yahav 2018 (abstract seen): the LSTM and the ReLU RNN can count, the GRU and the RNN with "
        "a squashing activation can't; the LSTM learns to. El-Naggar, Madhyastha & Weyde 2022 (abstract seen): on "
        "sequences much longer than in training LSTMs stop counting, and ReLU RNNs vary more and are mostly worse. "
        "Gers & Schmidhuber 2001 (from memory, not seen): LSTMs learn both languages"
    )
    deviations = (
        "Next-symbol prediction, scored where it is determined; n uniform on 1 … 50; 32 units, batch 32, Adam at two "
        "fixed rates, at most 3,000 updates. A network is tested as soon as it is right on every string of the "
        "evaluation; at the lower rate also after all updates. Weiss et al. had about ten units (from memory). "
        "Quick: a^n b^n alone, n up to 10, one rate, all updates."
    )
    caption = (
        "What to see: the largest n up to which every string is right, tested up to 256 (quick: 50). Training "
        "ended at 50 (quick: 10)."
    )
    minutes = Minutes(quick=0.8, standard=60)
    columns = ("reach", "strings_right", "trained_right")
    figure = "reach"

    def sweep(self, size: str) -> Sweep:
        if size == "quick":
            few = Setting("anbn, lr 0.01", ("task=counting", "task.length=10", ALL), ARMS, 400, rate=1e-2)
            return Sweep((few,), common=common(size))
        settings = []
        for variant in VARIANTS:
            task = ("task=counting", f"task.variant={variant}")
            settings += [Setting(f"{variant}, lr {rate:g}", task, ARMS, 3000, rate=rate) for rate in RATES]
            whole = f"{variant}, lr {RATES[0]:g}, all updates"
            settings.append(Setting(whole, (*task, ALL), ARMS, 3000, rate=RATES[0]))
        return Sweep(tuple(settings), common=(*common(size), "model.hidden_size=32"))

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """`reach`: the largest n up to which every string is right. Also the shares right of all strings tested and
        of those with an n of the training. Each n has one string."""
        import torch

        from rnnlstm.studies.common import network_of
        from rnnlstm.tasks import counting
        from rnnlstm.tasks.task import right_sequences

        plan, network = network_of(folder, seed)
        task = plan.task.vary(length=TESTED[size])
        assert isinstance(task, counting.Counting)
        batch = task.strings(torch.arange(1, TESTED[size] + 1))
        with torch.no_grad():
            answers = network(batch.inputs, scored=batch.scored).argmax(-1)
        right = right_sequences(answers == batch.at_scored(batch.targets), batch)
        return {
            "reach": float(right.long().cumprod(0).sum()),
            "strings_right": right.double().mean().item(),
            "trained_right": right[: TRAINED[size]].double().mean().item(),
        }

    def checks(self, size: str) -> list[Check]:
        n, end = TRAINED[size], TESTED[size]
        variants = VARIANTS[:1] if size == "quick" else VARIANTS
        checks = [
            Check(
                f"the LSTM learns the numbers of training: in one setting at least, 4 of 5 seeds are right on every "
                f"string of n ≤ {n}",
                lambda t: _each(t, variants, lambda rows: any(_reaching(row, n) >= 4 for row in rows), DEFAULT),
            ),
            Check(
                f"an LSTM with the output gate only counts on: in its best setting the median reach is at least "
                f"{2 * n}",
                lambda t: _each(t, variants, lambda rows: _best(rows) >= 2 * n, OUTPUT_GATE),
            ),
            Check(
                f"the tanh RNN does not: in every setting the median reach is below {2 * n}",
                lambda t: _each(t, variants, lambda rows: _best(rows) < 2 * n, TANH),
            ),
        ]
        if size == "quick":
            return checks
        return [
            *checks,
            Check(
                f"neither does the GRU: in every setting the median reach is below {2 * n}",
                lambda t: _each(t, variants, lambda rows: _best(rows) < 2 * n, GRU),
            ),
            Check(
                f"a ReLU RNN counts on, from one start at least: in its best setting the median reach is at least "
                f"{2 * n}",
                lambda t: _each(t, variants, lambda rows: _best(rows) >= 2 * n, RELU, IRNN),
            ),
            Check(
                f"the LSTM counts on: in its best setting the median reach is at least {2 * n}",
                lambda t: _each(t, variants, lambda rows: _best(rows) >= 2 * n, DEFAULT),
            ),
            Check(
                f"the LSTM stops counting far out: in every setting the median reach is below {end}",
                lambda t: _each(t, variants, lambda rows: _best(rows) < end, DEFAULT),
            ),
        ]


def _reaching(row: Row, n: int) -> int:
    """How many seeds are right on every string up to n."""
    return sum(reach >= n for reach in row.values("reach"))


def _best(rows: Sequence[Row]) -> float:
    """The median reach in the best setting; NaN, which meets no criterion, where every seed diverged."""
    return max((row.median("reach") for row in rows if row.values("reach")), default=math.nan)


def _each(t: Rows, variants: Sequence[str], holds: Callable[[Sequence[Row]], bool], *arms: Arm) -> tuple[bool, str]:
    """Whether the rows of these arms, in all settings, hold in each variant; and every row's reach by seed."""
    by_variant = [
        [row for arm in arms for row in t.arm(arm.name) if row.setting.startswith(f"{variant},")]
        for variant in variants
    ]
    told = "; ".join(
        f"{row.arm}, {row.setting}: {' '.join(f'{reach:.0f}' for reach in sorted(row.values('reach')))}"
        for rows in by_variant
        for row in rows
    )
    return all(map(holds, by_variant)), told
