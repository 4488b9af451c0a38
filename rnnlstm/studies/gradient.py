"""The gradient through untrained networks; nothing is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from rnnlstm.studies.common import CHRONO, DEFAULT, IRNN, ORTHOGONAL_TANH, TANH, forget_bias
from rnnlstm.studies.loop import plan_of
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Study, register_study

FIVE, ONE = forget_bias(5), forget_bias(1)
ARMS = (TANH, ORTHOGONAL_TANH, IRNN, DEFAULT, ONE, FIVE, CHRONO)
#: ‖∂L/∂h_t‖ (chrono: ∂L/∂c_t) at t = 0, 100, 150, 199, from a separate measurement made before: adding, T=200, H=128.
EXPECTED = {
    TANH.name: (0.0, 0.0, 6e-14, 0.16),
    ORTHOGONAL_TANH.name: (2.6e-6, 5e-4, 9e-3, 0.16),
    IRNN.name: (0.095, 0.095, 0.095, 0.15),
    DEFAULT.name: (0.0, 5e-21, 1e-11, 0.16),
    ONE.name: (2e-14, 2e-8, 2e-5, 0.15),
    FIVE.name: (1.7, 0.018, 0.008, 0.19),
    CHRONO.name: (0.019, 0.038, 0.057, 0.10),
}
PLACES = (0, 100, 150, 199)
LSTMS = (DEFAULT, ONE, FIVE, CHRONO)


MEMORY = " (memory)"


def memory(arm: str) -> str:
    """The row of ∂L/∂c of an LSTM, beside that of ∂L/∂h, which has the network's name."""
    return arm + MEMORY


UNITS = {"quick": 64, "standard": 128}
SEEDS = 5


@register_study("gradient")
class Gradient(Study):
    title = "Gradient at initialisation"
    question = "How much of the last answer's gradient reaches the first step before anything is learned?"
    reference = (
        "Hochreiter 1991, Bengio et al. 1994, Pascanu et al. 2013: it decays or grows exponentially unless "
        "the Jacobian's norm stays at 1. "
        "Numbers of a separate earlier measurement (adding, T=200, 128 units, ‖∂L/∂h_t‖ at t=0 and 100): tanh "
        "0 and 0; orthogonal 2.6e-6 and "
        "5e-4; IRNN .095 and .095; LSTM default 0 and 5e-21, forget bias 1 2e-14 and 2e-8, bias 5 1.7 and "
        ".018; chrono, ∂L/∂c, .019 and .038"
    )
    deviations = (
        "Float64, so that what was 0 in float32 is a number; the Frobenius norm over 64 sequences of a mean "
        "loss; median of 5 seeds. Of an LSTM both ∂L/∂h and, in the rows named memory, ∂L/∂c. No paper orders these "
        "networks: the orders are this project's, from how far open the gates start"
    )
    claims = ("C5", "C15", "C17")
    caption = (
        "What to see: the gradient of the last answer at the first time step, each dot an untrained network; "
        "the axis is logarithmic."
    )
    minutes = Minutes(quick=0.1, standard=0.3)
    log_scale = True
    figure = "at_the_first_step"
    columns = ("at_the_first_step", "half_way", "three_quarters", "at_the_last_step", "half_life")

    def measured(self, size: str, setting: str, folder: Path) -> list[Row]:
        rows = [row for arm in ARMS for row in _rows(size, arm)]
        return sorted(rows, key=lambda row: row.arm.endswith(MEMORY))  # stable: ∂L/∂h of all first

    def checks(self, size: str) -> list[Check]:
        order = Check(
            "order of ∂L/∂h at the first step: tanh < LSTM default < forget bias 1 < orthogonal < IRNN",
            lambda t: _rising(t, [arm.name for arm in (TANH, DEFAULT, ONE, ORTHOGONAL_TANH, IRNN)]),
        )
        opened = Check(
            "order of ∂L/∂c at the first step: LSTM default < forget bias 1 < chrono < forget bias 5",
            lambda t: _rising(t, [memory(arm.name) for arm in (DEFAULT, ONE, CHRONO, FIVE)]),
        )
        if size == "quick":
            return [
                order,
                opened,
                Check(
                    "the default LSTM's gradient at the first step is under a millionth of the last step's",
                    lambda t: _share(t, DEFAULT.name, 1e-6),
                ),
                Check("chrono's memory keeps more than a hundredth", lambda t: _kept(t, memory(CHRONO.name), 1e-2)),
            ]
        return [
            order,
            opened,
            Check(
                "every number above 1e-25 of the earlier measurement is met within one decade (0 there: below "
                "1e-25 here)",
                _decades,
            ),
            Check(
                "forget bias 5 grows on the way back: more at the first step than at the last",
                lambda t: _kept(t, FIVE.name, 1.0),
            ),
        ]


def _rows(size: str, arm: Arm) -> list[Row]:
    """An untrained network of each seed on 64 sequences: the rows of ∂L/∂h and, of an LSTM, of ∂L/∂c."""
    from rnnlstm.instruments.analysed_network import AnalysedNetwork
    from rnnlstm.instruments.flow import flow
    from rnnlstm.instruments.probe import half_life

    T = PLACES[-1] + 1
    plan = plan_of("task=adding", f"task.length={T}", f"model.hidden_size={UNITS[size]}", *arm.overrides)
    names = {"hidden": arm.name} | ({"cell": memory(arm.name)} if arm in LSTMS else {})
    rows = [
        Row(
            setting=f"T={T}",
            arm=name,
            seeds=list(range(SEEDS)),
            scores={column: [] for column in Gradient.columns},
            parameters=plan.cost.parameters,
        )
        for name in names.values()
    ]
    for seed in range(SEEDS):
        analysed = AnalysedNetwork.of(plan.task, plan.network(seed), plan.task.sample(seed, 0, "probe", 64))
        total = flow(analysed).total
        for state, row in zip(names, rows, strict=True):
            norms = total[state][0]  # (K,), by lag
            for column, place in zip(Gradient.columns, PLACES, strict=False):
                row.scores[column].append(norms[T - 1 - place].item())
            life = half_life(norms)
            row.scores["half_life"].append(life if math.isfinite(life) else None)
    return rows


def _of(t: Rows, arm: str) -> Row:
    (setting,) = t.settings
    return t(setting, arm)


def _first(t: Rows, arm: str) -> float:
    return _of(t, arm).median("at_the_first_step")


def _rising(t: Rows, arms: Sequence[str]) -> tuple[bool, str]:
    values = [_first(t, arm) for arm in arms]
    return all(a < b for a, b in itertools.pairwise(values)), ", ".join(f"{value:.1e}" for value in values)


def _kept(t: Rows, arm: str, share: float) -> tuple[bool, str]:
    row = _of(t, arm)
    ratio = row.median("at_the_first_step") / row.median("at_the_last_step")
    return ratio > share, f"{ratio:.2g} of the last step's"


def _share(t: Rows, arm: str, share: float) -> tuple[bool, str]:
    kept, told = _kept(t, arm, share)
    return not kept, told


def _decades(t: Rows) -> tuple[bool, str]:
    """Also says which numbers are furthest off."""
    off, count, misses = 0, 0, []
    for arm, numbers in EXPECTED.items():
        row = _of(t, memory(arm) if arm == CHRONO.name else arm)
        for name, expected in zip(Gradient.columns, numbers, strict=False):
            measured, count = row.median(name), count + 1
            right = measured < 1e-25 if expected == 0 else abs(math.log10(measured / expected)) < 1
            off += not right
            if not right:
                misses.append(f"{arm} {name.replace('_', ' ')} {measured:.1e} for {expected:.1e}")
    return off == 0, f"{count - off} of {count}" + (f"; not: {'; '.join(misses)}" if misses else "")
