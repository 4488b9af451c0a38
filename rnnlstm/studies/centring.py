"""The sigmoid's mean, slope and amplitude, one at a time."""

from __future__ import annotations

from rnnlstm.studies.common import common, more_solve
from rnnlstm.studies.study import Arm, Check, Minutes, Rows, Setting, Study, Sweep, register_study

#: φ, with its mean, steepest slope and amplitude (from the least to the largest value).
SHOWN = {
    "tanh": "tanh",  # 0, 1, 2
    "sigmoid": "σ",  # ½, ¼, 1
    "centred_sigmoid": "2σ−1",  # 0, ½, 2
    "steep_sigmoid": "σ(4x)",  # ½, 1, 1
    "centred_steep_sigmoid": "σ(4x)−½",  # 0, 1, 1
    "wide_steep_sigmoid": "2σ(4x)−1",  # 0, 2, 2
}
KERNEL_LESS = "centred_steep_sigmoid"
ARMS = tuple(
    Arm(
        shown,
        ("model=rnn", f"model.nonlinearity={name}", *(("model.backend=reference",) if name == KERNEL_LESS else ())),
    )
    for name, shown in SHOWN.items()
)
SETTING = "keyword T=10"


@register_study("centring")
class Centring(Study):
    title = "Mean, slope and amplitude of the sigmoid"
    question = "Why does tanh learn where the sigmoid does not: its mean at zero, its slope, or its amplitude?"
    reference = (
        "LeCun et al. 1998 (Efficient BackProp) recommend activations centred at zero; tanh' ≤ 1, σ' ≤ 1/4. No table "
        "that changes one of mean, slope and amplitude at a time is known here"
    )
    deviations = (
        "Keyword recall of ten words, no decoys in the test, 64 units. 20 fresh seeds, since five of the study "
        "activations raised the question. σ(4x) and σ(4x)−½ differ in their mean alone; tanh and σ(4x)−½ in "
        "amplitude alone; 2σ(4x)−1 is σ(4x) rescaled to ±1"
    )
    claims = ("C7",)
    caption = "What to see: share of seeds that solve the task, with Wilson's 95 % interval."
    minutes = Minutes(quick=0.5, standard=25)
    figure = "solved"

    def sweep(self, size: str) -> Sweep:
        task = ("task=keyword", "task.length=10", "eval.decoys=[]")
        if size == "quick":
            setting = Setting(SETTING, (*task, "task.num_keywords=4"), ARMS, 300)
            return Sweep(
                (setting,), grid=(3e-3, 1e-2), tuning_seeds=1, one_above=False, final_seeds=10, common=common(size)
            )
        return Sweep((Setting(SETTING, task, ARMS, 2000),), final_seeds=20, first_final=20, common=common(size))

    def checks(self, size: str) -> list[Check]:
        return [
            _more("tanh learns more often than the sigmoid", "tanh", "σ"),
            _more("centring alone, at slope 1 and amplitude 1", "σ(4x)−½", "σ(4x)"),
            _more("centring at half the slope and twice the amplitude", "2σ−1", "σ(4x)"),
            _more("rescaled to ±1", "2σ(4x)−1", "σ(4x)"),
        ]


def _more(words: str, one: str, other: str) -> Check:
    def test(t: Rows) -> tuple[bool, str, float]:
        return more_solve(t(SETTING, one), t(SETTING, other))

    return Check(f"{words}: more seeds of {one} solve it than of {other}", test)
