"""Copy memory: does the LSTM win here?"""

from __future__ import annotations

import math

from rnnlstm.studies.common import CHRONO, DEFAULT, ORTHOGONAL_TANH, TANH, common, each, forget_bias
from rnnlstm.studies.study import FIRST, Arm, Check, Minutes, Rows, Setting, Study, Sweep, register_study

ORTHOGONAL = Arm("linear, orthogonal", ("model=linear", "model.init=orthogonal"))
BIAS_1 = forget_bias(1)
ARMS = (TANH, DEFAULT, BIAS_1, CHRONO, ORTHOGONAL_TANH, ORTHOGONAL)


@register_study("copy")
class Copy(Study):
    title = "Copy memory by delay"
    question = "Who gets below the baseline 10·ln 8/(T+20), and does the LSTM win?"
    reference = (
        "Arjovsky, Shah & Bengio 2016, figure of the copying task: LSTM with 40 units at T=100 at about 0.145 "
        "(baseline 0.173) after "
        "50,000 updates, at T=500 on the baseline 0.040, the tanh RNN on the baseline. Tallec & Ollivier "
        "2018: chrono LSTM with 128 "
        "units below the baseline at T=500 and 2000. Vorontsov et al. 2017: orthogonal linear networks solve it"
    )
    deviations = (
        "Adam, batch 32, all networks with the parameters of an LSTM of 64 units (quick: 32), a tenth of the "
        "updates or fewer. Chrono's longest lag is the sequence's length, T+20; which one Tallec & Ollivier took, "
        "and Henaff, Szlam & LeCun 2016 on this task, was not seen."
    )
    caption = (
        "What to see: held-out loss; the baseline is 10·ln 8/(T+20): 0.693 at T=10, 0.520 at 20, 0.297 at 50, "
        "0.173 at 100. Zero is solved."
    )
    minutes = Minutes(quick=0.7, standard=80, long=300)
    columns = ("loss",)
    figure = "loss"

    def sweep(self, size: str) -> Sweep:
        shared = (*common(size), "match=parameters")
        if size == "quick":
            return Sweep((_at(10, 500),), **FIRST | {"grid": (1e-3, 1e-2), "tuning_seeds": 1}, common=shared)
        if size == "long":
            return Sweep((_at(100, 5000), _at(200, 10000, "T=100"), _at(500, 10000, "T=100")), common=shared, **FIRST)
        return Sweep((_at(20, 4000), _at(50, 4000), _at(100, 5000, "T=50")), common=shared, **FIRST)

    def checks(self, size: str) -> list[Check]:
        near, far = {"quick": ("T=10", "T=10"), "standard": ("T=20", "T=100"), "long": ("T=100", "T=500")}[size]
        checks = [
            Check(
                f"at {near} the chrono LSTM's median loss is under 0.9 of the baseline",
                lambda t: (over(t, near, CHRONO.name) < 0.9, _overs(t, near)),
            ),
            Check(
                f"at {far} the tanh RNN stays at the baseline: median loss over 0.9 of it",
                lambda t: (over(t, far, TANH.name) > 0.9, f"{over(t, far, TANH.name):.2f} of the baseline"),
            ),
            Check(
                f"at {far} an orthogonal network has a lower median loss than each LSTM: the LSTM does not win here",
                lambda t: (
                    min(over(t, far, a.name) for a in (ORTHOGONAL, ORTHOGONAL_TANH))
                    < min(over(t, far, a.name) for a in (DEFAULT, BIAS_1, CHRONO)),
                    _overs(t, far),
                ),
            ),
        ]
        if size != "quick":
            checks.append(
                Check(
                    f"at {far} the chrono LSTM has a lower median loss than forget bias 1",
                    lambda t: (
                        over(t, far, CHRONO.name) < over(t, far, BIAS_1.name),
                        each((t(far, BIAS_1.name), t(far, CHRONO.name)), "loss"),
                    ),
                )
            )
        return checks


def _at(delay: int, steps: int, rates_of: str | None = None) -> Setting:
    return Setting(f"T={delay}", ("task=copy", f"task.length={delay}"), ARMS, steps, rates_of=rates_of)


def over(t: Rows, setting: str, arm: str) -> float:
    """The median loss as a share of the baseline."""
    row = t(setting, arm)
    return row.median("loss") / row.baseline if row.baseline else math.nan


def _overs(t: Rows, setting: str) -> str:
    return "loss / baseline: " + ", ".join(f"{a.name} {over(t, setting, a.name):.2f}" for a in ARMS)
