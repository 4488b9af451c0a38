"""Operations on a trained LSTM: which gate has to be open, which has to choose, and is a gate a switch?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnlstm.studies.common import CHRONO, Comparison, common, higher_within, most_solve, solved, together
from rnnlstm.studies.study import Check, Minutes, Row, Setting, Study, Sweep, register_study

GATES = ("forget", "input", "output")
QUICK = "keyword T=20"
HOW = ("open", "shut", "freeze", "round", "cut")
AS_IT_IS, ALL_ROUNDED, ALL_BLIND = "as_it_is", "all_round", "all_cut"
#: Columns, and what the figure calls them.
OPERATIONS = {
    AS_IT_IS: "as it is",
    **{
        f"{gate}_{how}": f"{gate} gate {said}"
        for gate in GATES
        for how, said in zip(
            HOW, ("open (1)", "shut (0)", "frozen at its mean", "rounded", "blind to h"), strict=True
        )
    },
    ALL_ROUNDED: "all gates rounded",
    ALL_BLIND: "all gates blind to h",
}


@register_study("surgery")
class SurgeryStudy(Study):
    title = "Surgery on trained LSTMs"
    question = "Which gate has to be open, which has to choose, and do they act as switches?"
    reference = (
        "No published table of these operations on one trained network. Greff et al. 2017 leave gates out in "
        "training. The article (claim C16) calls gates switches from 0 to 1"
    )
    deviations = (
        "Chrono start, one rate (0.01), ten seeds (quick: five), each stopped once it has solved the task. An "
        "operation acts in the test alone, on 2,048 texts. Frozen: each unit's gate at its mean over the texts at "
        "that step. Rounded: to 0 or 1, at each step, unit and text."
    )
    claims = ("C12", "C16")
    caption = (
        "What to see: the headline metric of the same trained networks after each operation; every seed a dot, the "
        "median a bar."
    )
    minutes = Minutes(quick=0.2, standard=8)
    columns = tuple(name for name in OPERATIONS if name != AS_IT_IS)

    def sweep(self, size: str) -> Sweep:
        arms = (CHRONO,)
        if size == "quick":
            task = ("task=keyword", "task.length=20", "task.num_keywords=4")
            return Sweep((Setting(QUICK, task, arms, 300, rate=1e-2),), common=common(size))
        settings = tuple(
            Setting(f"{task} T={T}", (f"task={task}", f"task.length={T}"), arms, 1500, rate=1e-2)
            for task, T in (("keyword", 50), ("keyword", 100), ("adding", 50))
        )
        return Sweep(settings, final_seeds=10, common=common(size))

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """The headline metric after each operation."""
        from rnnlstm.config.schema import Surgery
        from rnnlstm.instruments.surgery_table import operate
        from rnnlstm.studies.common import network_of
        from rnnlstm.training.evaluation import evaluate

        plan, network = network_of(folder, seed)
        operations = {
            AS_IT_IS: Surgery(),
            ALL_ROUNDED: Surgery(round=list(GATES)),
            ALL_BLIND: Surgery(cut=list(GATES)),
        }
        held: list[dict[str, Any]] = [{how: [gate]} for gate in GATES for how in HOW]
        operations |= {f"{gate}_{how}": Surgery(**one) for one in held for how, (gate,) in one.items()}
        samples = 512 if size == "quick" else 2048
        return {
            name: evaluate(operate(network, surgery), plan.task, seed, samples, stream="test")[0][
                plan.task.metric_name
            ]
            for name, surgery in operations.items()
        }

    def checks(self, size: str) -> list[Check]:
        if size == "quick":
            solves = Check(
                "most seeds solve the task", lambda t: (most_solve(t(QUICK, CHRONO.name)), solved(t.of(QUICK)))
            )
            return [_open_is_enough(QUICK), solves]
        keywords = ("keyword T=50", "keyword T=100")
        unlike = Check(
            "adding T=50: there they are not: with all gates rounded the median error is over four times as large",
            lambda t: _ratio(t("adding T=50", CHRONO.name)),
        )
        return [*map(_open_is_enough, keywords), *map(_chooses, keywords), *map(_switches, keywords), unlike]

    def draw(self, rows: Sequence[Row], path: Path) -> bool:
        from rnnlstm.studies.figure import save_figure

        operated = [
            dataclasses.replace(row, arm=said, metric=row.scores[name])
            for row in rows
            for name, said in OPERATIONS.items()
            if name in row.scores
        ]
        save_figure(self, operated, path)
        return True


def _open_is_enough(setting: str) -> Check:
    return Check(
        f"{setting}: the forget gate only has to be open: held at 1 it costs less than 1 % of the texts, at 0 at "
        "least half of them",
        lambda t: _need(t(setting, CHRONO.name), "forget_open", "forget_shut"),
    )


def _chooses(setting: str) -> Check:
    def higher(row: Row) -> Comparison:
        return together(*(higher_within(row, AS_IT_IS, f"input_{how}") for how in ("open", "freeze")))

    return Check(
        f"{setting}: the input gate has to choose: the accuracy is higher as it is than with it held open, and than "
        "with it frozen at its mean",
        lambda t: higher(t(setting, CHRONO.name)),
    )


def _switches(setting: str) -> Check:
    return Check(
        f"{setting}: gates are switches: rounded to 0 or 1, all of them, they cost less than 5 % of the texts",
        lambda t: _lost(t(setting, CHRONO.name), ALL_ROUNDED, 0.05),
    )


def _lost(row: Row, name: str, at_most: float) -> tuple[bool, str]:
    lost = row.median(AS_IT_IS) - row.median(name)
    return lost < at_most, f"as it is {row.median(AS_IT_IS):.3g}, {OPERATIONS[name]} {row.median(name):.3g}"


def _need(row: Row, held: str, shut: str) -> tuple[bool, str]:
    open_enough, told = _lost(row, held, 0.01)
    return open_enough and row.median(AS_IT_IS) - row.median(shut) >= 0.5, (
        f"{told}, {OPERATIONS[shut]} {row.median(shut):.3g}"
    )


def _ratio(row: Row) -> tuple[bool, str]:
    ratio = row.median(ALL_ROUNDED) / row.median(AS_IT_IS)
    return ratio > 4, f"mse as it is {row.median(AS_IT_IS):.3g}, rounded {row.median(ALL_ROUNDED):.3g}"
