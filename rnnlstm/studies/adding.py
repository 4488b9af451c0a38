"""The adding problem by length: which networks leave the baseline 1/6, and which pass the plateau 1/12."""

from __future__ import annotations

from rnnlstm.studies.common import (
    CHRONO,
    DEFAULT,
    GRU,
    IRNN,
    TANH,
    common,
    each,
    few_solve,
    forget_bias,
    most_solve,
    solved,
)
from rnnlstm.studies.study import FIRST, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

BASELINE, PLATEAU = 1 / 6, 1 / 12
BIAS_1 = forget_bias(1)
ARMS = (TANH, IRNN, DEFAULT, BIAS_1, CHRONO, GRU)
GATED = (DEFAULT.name, BIAS_1.name, CHRONO.name, GRU.name)


@register_study("adding")
class Adding(Study):
    title = "Adding problem by length"
    question = (
        "Which networks leave the baseline 1/6 (answer 1), which stay on the plateau 1/12 (one operand stored)?"
    )
    reference = (
        "Arjovsky, Shah & Bengio 2016, figure of the adding problem: at T=100, 200, 400 the LSTM with forget "
        "bias 1 is at about "
        "0.01 after 8,000, 15,000 and 12,000–20,000 updates, the tanh RNN stays at 0.167; at T=750 the LSTM "
        "stays near 0.085. "
        "Tallec & Ollivier 2018: chrono initialisation about 7 times faster at T=750"
    )
    deviations = (
        "Adam in place of RMSprop, 64 units, batch 32, norm clipped at 1, far fewer updates; quick: 32 units."
    )
    caption = (
        "What to see: dots at 0.167 have learned nothing but the mean, dots at 0.083 store one operand, below "
        "0.01 is solved."
    )
    minutes = Minutes(quick=0.5, standard=70, long=360)

    def sweep(self, size: str) -> Sweep:
        if size == "quick":
            return Sweep(
                (Setting("T=30", ("task=adding", "task.length=30"), ARMS, 600),),
                **FIRST | {"grid": (3e-3, 1e-2), "tuning_seeds": 1},
                common=common(size),
            )
        if size == "long":
            settings = (
                Setting("T=100", ("task=adding", "task.length=100"), ARMS, 3000),
                Setting("T=400", ("task=adding", "task.length=400"), ARMS, 6000, rates_of="T=100"),
                Setting("T=750", ("task=adding", "task.length=750"), ARMS, 10000, rates_of="T=100"),
            )
            return Sweep(settings, common=common(size), **FIRST)
        settings = (
            Setting("T=50", ("task=adding", "task.length=50"), ARMS, 1500),
            Setting("T=100", ("task=adding", "task.length=100"), ARMS, 3000),
            Setting("T=200", ("task=adding", "task.length=200"), ARMS, 4000, rates_of="T=100"),
        )
        return Sweep(settings, common=common(size), **FIRST)

    def checks(self, size: str) -> list[Check]:
        if size == "quick":
            return [
                Check(
                    "at T=30 most seeds of LSTM with forget bias 1, chrono and GRU get below 1/12",
                    lambda t: _below(t, "T=30", GATED[1:], PLATEAU),
                ),
                Check(
                    "at T=30 the tanh RNN's median is above 1/24, half the plateau: it has not solved the task",
                    lambda t: (t("T=30", TANH.name).median("metric") > PLATEAU / 2, _tanh(t("T=30", TANH.name))),
                ),
                Check(
                    "chrono needs no more updates than PyTorch's default (medians)",
                    lambda t: _no_slower(t("T=30", CHRONO.name), t("T=30", DEFAULT.name)),
                ),
            ]
        far = {"standard": "T=200", "long": "T=750"}[size]
        near = "T=100"
        checks = [
            Check(
                f"at {near} most seeds of LSTM with forget bias 1, chrono and GRU solve the task (mse < 0.01)",
                lambda t: (all(most_solve(t(near, arm)) for arm in GATED[1:]), solved(t(near, a) for a in GATED)),
            ),
            Check(
                f"the tanh RNN solves it with at most one seed in five at {near} and {far}, median within 10 % "
                f"of 1/6 at {far}",
                lambda t: (
                    few_solve(t(near, TANH.name))
                    and few_solve(t(far, TANH.name))
                    and abs(t(far, TANH.name).median("metric") / BASELINE - 1) < 0.1,
                    _tanh(t(far, TANH.name)),
                ),
            ),
            Check(
                f"at {far} chrono needs no more updates than forget bias 1 (medians, over all seeds)",
                lambda t: _no_slower(t(far, CHRONO.name), t(far, BIAS_1.name)),
            ),
        ]
        if size == "long":
            checks.append(
                Check(
                    "at T=750 the LSTM with forget bias 1 stays on the plateau: median within 25 % of 1/12",
                    lambda t: (
                        abs(t(far, BIAS_1.name).median("metric") / PLATEAU - 1) < 0.25,
                        each([t(far, BIAS_1.name)]),
                    ),
                )
            )
        return checks


def _below(t: Rows, setting: str, arms: tuple[str, ...], level: float) -> tuple[bool, str]:
    rows = [t(setting, arm) for arm in arms]
    shares = [sum(value < level for value in row.values("metric")) for row in rows]
    return all(2 * k > row.n for k, row in zip(shares, rows, strict=True)), f"medians {each(rows)}"


def _tanh(row: Row) -> str:
    return f"mse {row.median('metric'):.3f}, solved {row.solved_count} of {row.n}"


def _no_slower(row: Row, other: Row) -> tuple[bool, str]:
    """Solved by most, in no more updates than the other's."""
    return row.median_steps <= other.median_steps and most_solve(row), (
        f"{row.arm} {row.median_steps:,.0f}, {other.arm} {other.median_steps:,.0f} (inf: most seeds did not solve it)"
    )
