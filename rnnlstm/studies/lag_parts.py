"""Which parts of the network of 1997 make 2a and 2b easy? The LSTM of 1997 with each of three, and without."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.studies.common import LSTM_1997, all_solve, common, few_solve, solved
from rnnlstm.studies.loop import kept_rows, plan_of, train_row
from rnnlstm.studies.study import Check, Minutes, Row, Rows, Study, register_study

if TYPE_CHECKING:
    from rnnlstm.training.step import Trainer

VARIANTS = ("2a", "2b")
#: The paper's parts, in the order of their names.
DIRECT, SQUARED, DELAYED = "direct connection", "squared error", "cell delayed"
PARTS = (DIRECT, SQUARED, DELAYED)
#: Every choice of them, from none to all.
CHOICES = tuple(choice for count in range(4) for choice in itertools.combinations(PARTS, count))
RATE, SEEDS = 3e-3, 5
#: By size: p, updates, sequences that confirm a solution, choices, and further overrides.
SIZES = {
    "quick": (20, 400, 512, tuple(c for c in CHOICES if len(c) != 2), ("eval.every=50",)),
    "standard": (100, 3000, 10_000, CHOICES, ("eval.every=100", "eval.samples=1024")),
}


@register_study("lag_parts")
class LagParts(Study):
    title = "What makes 2a and 2b easy"
    question = "Which of the paper's parts is it that the LSTM of 1997 misses in 2a and 2b?"
    reference = (
        "Hochreiter & Schmidhuber 1997, experiments 2a and 2b (from memory; sections not seen): direct connections "
        "from input to output, logistic outputs and squared error, memory cell and input gate added once the error "
        "stops falling; solved by 100 % of trials"
    )
    deviations = (
        f"As `long_lag`, where 2 and 1 of 5 seeds met the criterion, at the rate that was chosen there ({RATE:g}), "
        "and all else as there: Adam, 64 units with an output gate, embedded symbols, batches of 32. The direct "
        "connection starts at 0; the squared error is summed over the outputs. The cell is added when the mean loss "
        "of 100 updates is less than 1 % below that of the 100 before; until then outputs are direct connection and "
        "bias alone. The criterion is tried on 1,024 sequences, and met if it holds on 10,000 (quick: 512)."
    )
    caption = "What to see: updates until the paper's criterion is met, with each choice of the paper's three parts."
    minutes = Minutes(quick=0.7, standard=50)
    figure = "steps"
    columns = ("cell_added_at",)

    def settings(self, size: str) -> tuple[str, ...]:
        return tuple(f"{variant}, {SIZES[size][0]}" for variant in VARIANTS)

    def measured(self, size: str, setting: str, folder: Path) -> list[Row]:
        """The rows; each is kept in `folder` once it is there, and then read. Other budgets have other names."""
        _, steps, _, choices, _ = SIZES[size]
        wanted = {
            f"{setting}, {arm_of(choice)}, {steps} updates, {SEEDS} seeds": functools.partial(
                trained, size, setting, choice
            )
            for choice in choices
        }
        return kept_rows(folder, wanted)

    def checks(self, size: str) -> list[Check]:
        return [check for setting in self.settings(size) for check in _explained(setting)]


def _explained(setting: str) -> list[Check]:
    def all_parts(t: Rows) -> tuple[bool, str]:
        row = t(setting, arm_of(PARTS))
        return all_solve(row), solved([row])

    def none(t: Rows) -> tuple[bool, str]:
        row = t(setting, arm_of(()))
        return not all_solve(row), solved([row])

    def one(t: Rows) -> tuple[bool, str]:
        rows = [t(setting, arm_of((part,))) for part in PARTS]
        return sum(map(all_solve, rows)) == 1 and sum(map(few_solve, rows)) == 2, solved(rows)

    return [
        Check(f"{setting}: with all three parts every seed meets the criterion", all_parts),
        Check(f"{setting}: without any, some seed does not", none),
        Check(f"{setting}: one part alone is enough for every seed, the others for at most one in five", one),
    ]


def arm_of(choice: tuple[str, ...]) -> str:
    return ", ".join(choice) or LSTM_1997.name


def trained(size: str, setting: str, choice: tuple[str, ...]) -> Row:
    """All seeds of one condition, trained in lockstep."""
    from rnnlstm.studies.lag_network import Growth, LagNetwork, with_squared_error
    from rnnlstm.training.optimizers import make_optimizer

    p, steps, confirm, _, further = SIZES[size]
    task = ("task=long_lag", f"task.variant={setting.split(',')[0]}", f"task.length={p}")
    numbers = (f"optimizer.lr={RATE}", f"train.steps={steps}", f"seeds={SEEDS}", "device=cpu", "threads=1")
    plan = plan_of(*common(size), *task, *LSTM_1997.overrides, *numbers, *further)
    if SQUARED in choice:
        plan = with_squared_error(plan)
    growth = Growth(SEEDS)

    def change(trainer: Trainer) -> None:
        trainer.model = LagNetwork(trainer.model, DIRECT in choice, growth if DELAYED in choice else None)
        trainer.optimizer = make_optimizer(plan.config.optimizer, trainer.model.parameters.values())

    def inside(trainer: Trainer, r: int) -> dict[str, float]:
        at = growth.added_at[r]
        return {"cell_added_at": float(at)} if DELAYED in choice and at is not None else {}

    return train_row(plan, setting, arm_of(choice), change=change, watch=growth.watch, confirm=confirm, inside=inside)
