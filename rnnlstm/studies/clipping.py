"""Clipping: does it prevent divergence, and does it help to solve the task?"""

from __future__ import annotations

from rnnlstm.reporting.statistics import wilson
from rnnlstm.studies.common import common, more_diverge
from rnnlstm.studies.study import FIRST, Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

TANH = ("model=rnn", "model.init=orthogonal")
IRNN = ("model=rnn", "model.nonlinearity=relu", "model.init=identity")
KINDS = ("none", "norm", "value")
NONE, NORM, VALUE = (f"clip {kind}" for kind in KINDS)
SGD = ("optimizer=sgd",)


@register_study("clipping")
class Clipping(Study):
    title = "Clipping, by kind and length"
    question = "How many seeds diverge, and how many solve the task, without clipping, by norm, and by value?"
    reference = (
        "Pascanu, Mikolov & Bengio 2013, figure of the success rate on temporal order by length (from "
        "memory): plain SGD falls to "
        "zero as sequences grow, SGD with norm clipping keeps solving longer ones; clipping and a regulariser "
        "together reach 100 % "
        "up to length 200"
    )
    deviations = (
        "Temporal order and adding with Adam, orthogonal tanh RNN, rate tuned for each kind; the paper has "
        "SGD at 0.01 with 50 units and up "
        "to 5 million updates. Divergences are counted with SGD, as there: IRNN on adding, at fixed rates"
    )
    claims = ("C4",)
    caption = (
        "What to see: share of seeds that solve the task, with Wilson's 95 % interval; the intervals of the "
        "three kinds overlap unless said otherwise."
    )
    minutes = Minutes(quick=0.2, standard=40)
    figure = "solved"

    def sweep(self, size: str) -> Sweep:
        if size == "quick":
            few = (
                _setting("order T=20", ("task=temporal_order", "task.variant=pascanu", "task.length=20"), TANH, 400),
                _setting("adding T=50, SGD at 0.01", ("task=adding", "task.length=50", *SGD), IRNN, 150, 1e-2),
            )
            return Sweep(few, **FIRST | {"grid": (3e-3, 1e-2), "tuning_seeds": 1}, final_seeds=8, common=common(size))
        order = ("task=temporal_order", "task.variant=pascanu")
        settings = (
            *(_setting(f"order T={T}", (*order, f"task.length={T}"), TANH, 2000) for T in (20, 50, 100)),
            *(_setting(f"adding T={T}", ("task=adding", f"task.length={T}"), TANH, 2000) for T in (20, 50)),
            *(
                _setting(f"adding T=100, SGD at {rate:g}", ("task=adding", "task.length=100", *SGD), IRNN, 500, rate)
                for rate in (1e-3, 1e-2)
            ),
        )
        return Sweep(settings, final_seeds=20, common=common(size), **FIRST)

    def checks(self, size: str) -> list[Check]:
        sgd = "adding T=50, SGD at 0.01" if size == "quick" else "adding T=100, SGD at 0.01"
        checks = [
            Check(
                f"{sgd}, IRNN: more seeds diverge without clipping than by norm",
                lambda t: more_diverge(t(sgd, NONE), t(sgd, NORM)),
            ),
        ]
        if size == "quick":
            return [
                *checks,
                Check(
                    "temporal order T=20: as many seeds solve it by norm as without clipping, or more",
                    lambda t: (
                        t("order T=20", NORM).solved_count >= t("order T=20", NONE).solved_count,
                        _shares(t, "order T=20"),
                    ),
                ),
            ]
        return [
            *checks,
            Check(
                "at some length of temporal order the success rate by norm is above that without, the 95 % "
                "intervals apart",
                lambda t: (
                    any(_apart(t(s, NORM), t(s, NONE)) for s in _orders(t)),
                    "; ".join(_shares(t, s) for s in _orders(t)),
                ),
            ),
            Check(
                "at no length, of either task, is the rate by norm below that without, the intervals apart",
                lambda t: (
                    not any(_apart(t(s, NONE), t(s, NORM)) for s in t.settings),
                    "; ".join(_shares(t, s) for s in t.settings if "SGD" not in s),
                ),
            ),
            Check(
                "temporal order: success without clipping falls with length: fewer seeds at T=100 than at T=20",
                lambda t: (
                    t("order T=100", NONE).solved_count < t("order T=20", NONE).solved_count,
                    f"{t('order T=20', NONE).solved_count}, {t('order T=100', NONE).solved_count} of 20",
                ),
            ),
        ]


def _setting(
    name: str, task: tuple[str, ...], model: tuple[str, ...], steps: int, rate: float | None = None
) -> Setting:
    arms = tuple(Arm(f"clip {kind}", (*model, f"clip={kind}")) for kind in KINDS)
    return Setting(name, task, arms, steps, rate=rate)


def _orders(t: Rows) -> list[str]:
    return [setting for setting in t.settings if setting.startswith("order")]


def _apart(more: Row, less: Row) -> bool:
    return wilson(more.solved_count, more.n)[0] > wilson(less.solved_count, less.n)[1]


def _shares(t: Rows, setting: str) -> str:
    return f"{setting}: " + ", ".join(
        f"{row.arm.removeprefix('clip ')} {row.solved_count}/{row.n}" for row in t.of(setting)
    )
