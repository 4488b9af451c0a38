"""The tanh RNN with its gradient given back: is the vanished gradient the cause, or the forward pass?"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.reporting.statistics import wilson
from rnnlstm.studies.common import common, each, few_solve, flow_and_units, most_solve, solved
from rnnlstm.studies.loop import kept_rows, plan_of, train_row
from rnnlstm.studies.study import Check, Minutes, Row, Rows, Study, register_study

if TYPE_CHECKING:
    from rnnlstm.training.step import Trainer

#: By arm: the backward pass of `backward_passes.py`, and λ.
PLAIN = "tanh RNN"
RESCALED = "gradient rescaled"
MISDIRECTED = "rescaled, of another text"
METHODS: dict[str, tuple[str, float]] = {
    PLAIN: ("plain", 0.0),
    RESCALED: ("rescaled", 0.0),
    MISDIRECTED: ("misdirected", 0.0),
    "Ω, λ = 0.5": ("regularised", 0.5),
    "Ω, λ = 2": ("regularised", 2.0),
}
OMEGA = tuple(arm for arm, (method, _) in METHODS.items() if method == "regularised")
GIVEN = (RESCALED, *OMEGA)
RATES = (3e-3, 1e-2)
#: By size: lengths, updates, seeds, and further overrides.
SIZES = {
    "quick": ((12, 30), 300, 5, ("task.num_keywords=4", "eval.every=25", "eval.samples=512")),
    "standard": ((20, 50, 100), 2000, 10, ()),
}


@register_study("restored_gradient")
class RestoredGradient(Study):
    title = "The gradient given back to the tanh RNN"
    question = "Does a tanh RNN learn long lags once its gradient no longer vanishes, its forward pass unchanged?"
    reference = (
        "Pascanu, Mikolov & Bengio 2013, equations 9 and 10 (from memory): a regulariser Ω keeps the gradient's norm "
        "from step to step; with it and clipping, SGD solves temporal order up to length 200 in all trials. Their "
        "code (github.com/pascanur/trainingRNNs, RNN.py) was read. No paper is known here that rescales each step's "
        "gradient for this question"
    )
    deviations = (
        "Keyword recall with Adam at two fixed rates, clipping by norm at 1, PyTorch's start, ten seeds in lockstep "
        "(quick: five). Ω is the mean over steps and sequences, as in their code, of the ratio of norms, as in the "
        "paper; their code squares the norms. Its weight λ is 2, the code's default, and 0.5. Rescaled: at each step "
        "back, each sequence's ∂L/∂h_t gets the norm that it has at the last step. Control: the same with the "
        "gradient of another text of the batch."
    )
    claims = ("C5", "C8")
    caption = (
        "What to see: share of seeds that solve the task, with Wilson's 95 % interval: the gradient as it is, "
        "rescaled, and kept by Ω. Where a given gradient solves what the plain one does not, the gradient was the "
        "cause."
    )
    minutes = Minutes(quick=0.7, standard=25)
    figure = "solved"
    columns = ("log10_gradient_kept", "saturated")

    def settings(self, size: str) -> tuple[str, ...]:
        return tuple(f"T={length}" for length in SIZES[size][0])

    def measured(self, size: str, setting: str, folder: Path) -> list[Row]:
        """The rows; each is kept in `folder` once it is there, and then read. Other budgets have other names."""
        _, steps, seeds, _ = SIZES[size]
        here = [at for at in conditions(size) if names(*at)[0] == setting]
        budget = f"{steps} updates, {seeds} seeds"
        wanted = {f"{', '.join(names(*at))}, {budget}": functools.partial(trained, size, *at) for at in here}
        return kept_rows(folder, wanted)

    def checks(self, size: str) -> list[Check]:
        short, *longer = SIZES[size][0]
        learnt = Check(
            f"at T={short} most seeds of the plain tanh RNN solve the task at one of the rates",
            lambda t: (any(map(most_solve, _rows(t, short, PLAIN))), solved(_rows(t, short, PLAIN))),
        )
        given = Check(
            f"at T={longer[-1]}, both rates, Ω with λ = 2 leaves more gradient at the first step than plain training",
            lambda t: _kept(t, longer[-1]),
        )
        return [learnt, *(check for length in longer for check in _cause(length)), given]


def _cause(length: int) -> list[Check]:
    """That the vanished gradient is why the plain network fails."""

    def fails(t: Rows) -> tuple[bool, str]:
        rows = [row for arm in (PLAIN, MISDIRECTED) for row in _rows(t, length, arm)]
        return all(map(few_solve, rows)), solved(rows)

    def helps(t: Rows) -> tuple[bool, str]:
        """Each rate by itself, since one seed at two rates is not independent."""
        plain = {row.rate: wilson(row.solved_count, row.n)[1] for row in _rows(t, length, PLAIN)}
        given = [row for arm in GIVEN for row in _rows(t, length, arm)]
        return any(wilson(row.solved_count, row.n)[0] > plain[row.rate] for row in given), solved(given)

    return [
        Check(
            f"at T={length} at most one seed in five of the plain tanh RNN solves it, at either rate, and no more "
            "with as much gradient of another text",
            fails,
        ),
        Check(
            f"at T={length}, at one of the rates, more seeds solve it with the gradient rescaled, or kept by Ω, than "
            "without: the 95 % intervals are apart",
            helps,
        ),
    ]


def conditions(size: str) -> list[tuple[int, float, str]]:
    """Length, rate and arm of each row."""
    return [(length, rate, arm) for length in SIZES[size][0] for rate in RATES for arm in METHODS]


def names(length: int, rate: float, arm: str) -> tuple[str, str]:
    """Setting and arm of a row."""
    return f"T={length}", f"{arm}, lr {rate:g}"


def trained(size: str, length: int, rate: float, arm: str) -> Row:
    """All seeds of one condition, trained in lockstep."""
    from rnnlstm.studies.backward_passes import GivenGradient

    def give(trainer: Trainer) -> None:
        trainer.model = GivenGradient(trainer.model, *METHODS[arm])

    _, steps, seeds, further = SIZES[size]
    task = ("task=keyword", f"task.length={length}", "model=rnn")
    numbers = (f"optimizer.lr={rate}", f"train.steps={steps}", f"seeds={seeds}", "device=cpu", "threads=1")
    plan = plan_of(*common(size), *task, *numbers, *further)
    return train_row(plan, *names(length, rate, arm), change=give, inside=_inside)


def _inside(trainer: Trainer, r: int) -> dict[str, float]:
    """`columns` of a trained replica."""
    network = trainer.plan.network(trainer.seeds[r])
    network.load_state_dict(trainer.model.weights(r))
    values = flow_and_units(trainer.plan, network, trainer.seeds[r])
    return {name: values[name] for name in RestoredGradient.columns if math.isfinite(values[name])}


def _rows(t: Rows, length: int, arm: str) -> list[Row]:
    return [t(*names(length, rate, arm)) for rate in RATES]


def _kept(t: Rows, length: int) -> tuple[bool, str]:
    name = "log10_gradient_kept"
    pairs = list(zip(_rows(t, length, PLAIN), _rows(t, length, OMEGA[-1]), strict=True))
    told = f"log10 of the first step's share of the last's: {each((row for pair in pairs for row in pair), name)}"
    return all(given.median(name) > plain.median(name) for plain, given in pairs), told
