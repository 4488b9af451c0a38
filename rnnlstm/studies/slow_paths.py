"""Slow paths without gates that look at the input: what is due to the path, and what to the gates."""

from __future__ import annotations

from rnnlstm.studies.common import (
    CHRONO,
    GRU,
    TANH,
    all_solve,
    common,
    few_solve,
    more_solve,
    most_solve,
    smaller,
    solved,
)
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

SPREAD = Arm("GRU, chrono", ("model=gru", "model.init=chrono"))
LEAKY = "leaky tanh RNN"
#: By size: lengths of keyword recall, of adding, and updates.
SIZES = {"quick": ((10, 20), 20, 300), "standard": ((20, 50, 100, 200, 400), 100, 1500)}


def leaky(length: int) -> Arm:
    return Arm(LEAKY, ("model=leaky_rnn", f"model.max_lag={length}"))


def arms(length: int) -> tuple[Arm, ...]:
    return (TANH, leaky(length), GRU, SPREAD, CHRONO)


@register_study("slow_paths")
class SlowPaths(Study):
    title = "Slow paths with and without gates"
    question = "How much of an LSTM's memory is due to a slow path, and how much to gates that look at the word?"
    reference = (
        "Tallec & Ollivier 2018 derive leaky units and gates from invariance to time warping: a leak for uniform "
        "warping, a gate for warping that varies, with biases spread over the lags (from memory). Leaky units with "
        "spread time constants: Mozer 1992, Jaeger 2001 (from memory). No table that sets both beside each other on "
        "one task is known here"
    )
    deviations = (
        "The leak is fixed, not learned; time constants are log-uniform on 1 … T. The GRU's update biases, and the "
        "LSTM's, are chrono's: log of a uniform number, so that most are near T. Keyword recall with 5 % decoys; "
        "reach is the longest of its lengths that most seeds solve. Rates are tuned at each length up to 100."
    )
    claims = ("C10", "C12", "C15")
    caption = (
        "What to see: the share of seeds that solve the task, with Wilson's 95 % interval. From the tanh RNN to the "
        "leaky one: a slow path alone. From there to GRU and LSTM with chrono's start: gates on that path."
    )
    minutes = Minutes(quick=0.9, standard=80)
    figure = "solved"

    def sweep(self, size: str) -> Sweep:
        lengths, added, steps = SIZES[size]
        few = ("task.num_keywords=4",) if size == "quick" else ()
        recall = ("task=keyword", *few, "eval.decoys=[]")
        settings = [
            Setting(
                f"keyword T={T}",
                (*recall, f"task.length={T}"),
                arms(T),
                steps,
                rates_of="keyword T=100" if T > 100 else None,
            )
            for T in lengths
        ]
        settings.append(Setting(f"adding T={added}", ("task=adding", f"task.length={added}"), arms(added), 2 * steps))
        if size == "quick":
            return Sweep(tuple(settings), grid=(3e-3, 1e-2), tuning_seeds=1, one_above=False, common=common(size))
        return Sweep(tuple(settings), final_seeds=20, common=common(size))

    def checks(self, size: str) -> list[Check]:
        added = SIZES[size][1]
        if size == "quick":
            return [
                Check(
                    "keyword T=20: the leaky RNN's reach is at least the tanh RNN's, and at most that of the LSTM "
                    "with chrono's start",
                    lambda t: (_reach(t, TANH.name) <= _reach(t, LEAKY) <= _reach(t, CHRONO.name), _reaches(t)),
                ),
                Check(
                    "keyword T=20: most seeds of the LSTM with chrono's start solve it",
                    lambda t: (most_solve(t("keyword T=20", CHRONO.name)), solved(t.of("keyword T=20"))),
                ),
            ]
        adding = f"adding T={added}"
        return [
            Check(
                "a slow path alone: at T=50 of keyword more seeds of the leaky RNN solve it than of the tanh RNN",
                lambda t: more_solve(t("keyword T=50", LEAKY), t("keyword T=50", TANH.name)),
            ),
            Check(
                "the start of the GRU's update gate: at T=100 more seeds with chrono's biases solve it than from "
                "PyTorch's start",
                lambda t: more_solve(t("keyword T=100", SPREAD.name), t("keyword T=100", GRU.name)),
            ),
            Check(
                "gates on a slow path: at T=200 more seeds of the LSTM with chrono's start solve it than of the "
                "leaky RNN",
                lambda t: more_solve(t("keyword T=200", CHRONO.name), t("keyword T=200", LEAKY)),
            ),
            Check(
                "at T=200 more seeds of the GRU with chrono's biases solve it than of the leaky RNN",
                lambda t: more_solve(t("keyword T=200", SPREAD.name), t("keyword T=200", LEAKY)),
            ),
            Check(
                "a leak can't choose: on adding the leaky RNN's mean squared error is larger than that of the GRU "
                "with chrono's biases",
                lambda t: smaller(t(adding, SPREAD.name), t(adding, LEAKY)),
            ),
            Check(
                "on adding every seed of the GRU with chrono's biases solves the task, and at most one in five of "
                "the leaky RNN",
                lambda t: (all_solve(t(adding, SPREAD.name)) and few_solve(t(adding, LEAKY)), solved(t.of(adding))),
            ),
            Check(
                "reach: the leaky RNN's is longer than the tanh RNN's, shorter than the LSTM's with chrono's start",
                lambda t: (_reach(t, TANH.name) < _reach(t, LEAKY) < _reach(t, CHRONO.name), _reaches(t)),
            ),
        ]


def _reach(t: Rows, arm: str) -> int:
    """The longest length of keyword recall that most seeds solve; 0 for none."""
    return max(
        (_length(row) for row in t.arm(arm) if row.setting.startswith("keyword") and most_solve(row)), default=0
    )


def _reaches(t: Rows) -> str:
    return "reach: " + ", ".join(f"{arm.name} {_reach(t, arm.name)}" for arm in arms(100))


def _length(row: Row) -> int:
    return int(row.setting.partition("T=")[2])
