"""First keyword recall with decoys: the forget gate's bias, and which dish is named by mistake."""

from __future__ import annotations

import itertools

from rnnlstm.studies.common import CHRONO, TANH, common, each, few_solve, forget_bias, most_solve, solved
from rnnlstm.studies.study import FIRST, Check, Minutes, Rows, Setting, Study, Sweep, register_study

BIASES = tuple(forget_bias(b) for b in (0, 1, 3, 5))
ARMS = (TANH, *BIASES, CHRONO)
WITHOUT = "without decoys"
CHANCE = 1 / 8


@register_study("keyword")
class Keyword(Study):
    title = "Keyword recall and the forget gate's bias"
    question = "How far open must the forget gate start, and is a later dish named instead of the first?"
    reference = (
        "No published table of this task; nearest are Hochreiter & Schmidhuber 1997, 2a–2c. Memory of a bias "
        "b: 1/(1−σ(b)) steps, "
        "2, 3.7, 21, 149 for b = 0, 1, 3, 5 (Gers et al. 2000; Tallec & Ollivier 2018). Measured before, one "
        "seed each, lr 3e-3: bias 1 at "
        "chance at T=30, 50, 100; bias 5 solved T=100 in 322 updates, chrono in 418"
    )
    deviations = (
        "Fillers come from the project's grammar; 64 units, batch 32, 8 dishes, decoys at 5 % of places. "
        "Quick: T=20, 32 units, 4 dishes."
    )
    claims = ("C10", "C15")
    caption = (
        "What to see: accuracy by bias; chance is 1/8 (quick: 1/4). The gate's bias alone moves the LSTM from "
        "chance to solved."
    )
    minutes = Minutes(quick=0.4, standard=55)
    columns = (
        "eval/recency_error",
        "eval/recency_share_of_errors",
        "eval_decoys0.05/accuracy",
        "eval_decoys0.05/recency_error",
        "eval_decoys0.05/recency_share_of_errors",
    )

    def sweep(self, size: str) -> Sweep:
        task = ("task=keyword", "eval.decoys=[]")
        free = ("task=keyword", "task.decoys=0", "eval.decoys=[0.05]")
        if size == "quick":
            four = ("task.num_keywords=4", "task.length=20")
            few = (
                Setting("T=20", (*task, *four), ARMS, 400),
                Setting(
                    WITHOUT,
                    ("task=keyword", "task.decoys=0", "eval.decoys=[0.05]", "task.num_keywords=4", "task.length=12"),
                    (TANH, CHRONO),
                    400,
                ),
            )
            return Sweep(few, **FIRST | {"grid": (3e-3, 1e-2), "tuning_seeds": 1}, common=common(size))
        settings = (
            Setting("T=50", (*task, "task.length=50"), ARMS, 2000),
            Setting("T=100", (*task, "task.length=100"), ARMS, 2000),
            Setting("T=200", (*task, "task.length=200"), ARMS, 2000, rates_of="T=100"),
            Setting(WITHOUT, (*free, "task.length=20"), ARMS, 2000),
        )
        return Sweep(settings, common=common(size), **FIRST)

    def checks(self, size: str) -> list[Check]:
        five, one = BIASES[3].name, BIASES[1].name
        recency = Check(
            "trained without decoys where most seeds solve it, then tested with them: the later dish is named "
            "in more than "
            "1 in 8 of the tests that have one by the tanh RNN, and more often than by the chrono LSTM",
            _recency,
        )
        if size == "quick":
            return [
                Check(
                    "at T=20 most seeds of forget bias 5 and chrono solve the task",
                    lambda t: _most(t, "T=20", (five, CHRONO.name)),
                ),
                Check(
                    "at T=20 chrono needs fewer updates than forget bias 1, at each one's best rate (medians)",
                    lambda t: (
                        t("T=20", CHRONO.name).median_steps < t("T=20", one).median_steps,
                        f"{t('T=20', CHRONO.name).median_steps:,.0f} against {t('T=20', one).median_steps:,.0f}",
                    ),
                ),
                recency,
            ]
        lengths = ("T=50", "T=100", "T=200")
        return [
            Check(
                "at T=50, 100 and 200 most seeds of forget bias 5 and of chrono solve the task",
                lambda t: _every(t, lengths, (five, CHRONO.name)),
            ),
            Check(
                "at T=50 and 100 forget bias 1 fails at its best rate: at most one seed in five solves it, "
                "median accuracy < 0.25",
                lambda t: (
                    all(few_solve(t(s, one)) and t(s, one).median("metric") < 2 * CHANCE for s in lengths[:2]),
                    f"{solved(t(s, one) for s in lengths[:2])}; accuracy {each(t(s, one) for s in lengths[:2])}",
                ),
            ),
            Check(
                "at T=100 the accuracy does not fall with the bias: 0 ≤ 1 ≤ 3 ≤ 5, to 2 %",
                lambda t: (
                    _ordered([t("T=100", arm.name).median("metric") for arm in BIASES]),
                    each(t("T=100", arm.name) for arm in BIASES),
                ),
            ),
            Check(
                "at T=100 the tanh RNN solves it with at most one seed in five",
                lambda t: (few_solve(t("T=100", TANH.name)), solved([t("T=100", TANH.name)])),
            ),
            recency,
        ]


def _most(t: Rows, setting: str, arms: tuple[str, ...]) -> tuple[bool, str]:
    rows = [t(setting, arm) for arm in arms]
    return all(map(most_solve, rows)), solved(rows)


def _every(t: Rows, settings: tuple[str, ...], arms: tuple[str, ...]) -> tuple[bool, str]:
    outcomes = [_most(t, setting, arms) for setting in settings]
    shown = "; ".join(f"{s}: {text}" for s, (_, text) in zip(settings, outcomes, strict=True))
    return all(ok for ok, _ in outcomes), shown


def _ordered(values: list[float]) -> bool:
    return all(before <= after + 0.02 for before, after in itertools.pairwise(values))


def _recency(t: Rows) -> tuple[bool, str]:
    name = "eval_decoys0.05/recency_error"
    tanh, chrono = t(WITHOUT, TANH.name), t(WITHOUT, CHRONO.name)
    told = f"recency error {each((tanh, chrono), name)}; {solved((tanh, chrono))}"
    return most_solve(tanh) and tanh.median(name) > max(CHANCE, chrono.median(name)), told
