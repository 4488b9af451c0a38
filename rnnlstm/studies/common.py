"""What several studies share: networks by name, overrides of every run, measurements on trained networks, wording."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.studies.study import Arm, Row, name_of

if TYPE_CHECKING:
    from rnnlstm.config.schema import Surgery
    from rnnlstm.models import Network
    from rnnlstm.tasks import Task
    from rnnlstm.training.plan import Plan

TANH = Arm("tanh RNN", ("model=rnn",))
RELU = Arm("ReLU RNN", ("model=rnn", "model.nonlinearity=relu"))
ORTHOGONAL_TANH = Arm("tanh RNN, orthogonal", ("model=rnn", "model.init=orthogonal"))
IRNN = Arm("IRNN", ("model=rnn", "model.nonlinearity=relu", "model.init=identity"))
DEFAULT = Arm("LSTM, default", ("model=lstm", "model.init=default"))
CHRONO = Arm("LSTM, chrono", ("model=lstm", "model.init=chrono"))
LSTM_1997 = Arm("LSTM of 1997", ("model=lstm_1997",))
GRU = Arm("GRU", ("model=gru",))
#: On a CPU these are faster step by step than by their scan.
LRU = Arm("LRU", ("model=lru", "model.backend=reference"))


def forget_bias(bias: float) -> Arm:
    return Arm(f"LSTM, forget bias {bias:g}", ("model=lstm", "model.init=forget_bias", f"model.forget_bias={bias:g}"))


#: Of every run: no probes, and few lines beside the evaluations.
QUIET = ("probe=off", "log.every=50")
#: One thread: networks this small gain little from a second one, and become ten times slower if another process
#: uses its core.
SMALL = (
    *QUIET,
    "threads=1",
    "model.hidden_size=32",
    "model.embedding_size=16",
    "train.batch_size=32",
    "eval.samples=512",
    "eval.every=25",
)
STANDARD = (*QUIET, "train.batch_size=32")


def common(size: str) -> tuple[str, ...]:
    return SMALL if size == "quick" else STANDARD


def network_of(folder: Path, seed: int) -> tuple[Plan, Network]:
    """The plan and the trained network of one seed of a run."""
    from rnnlstm.training.weights import load_network

    run = load_network(str(folder / f"seed_{seed}"))
    return run.plan, run.network()


def score(task: Task, network: Network, seed: int, samples: int, surgery: Surgery | None = None) -> float:
    """The headline metric on held-out sequences, those of evaluation, with gates held as `surgery` says."""
    return scores(task, network, seed, samples, surgery)[task.metric_name]


def scores(task: Task, network: Network, seed: int, samples: int, surgery: Surgery | None = None) -> dict[str, float]:
    """Every metric, and `loss`, on the same sequences."""
    from rnnlstm.instruments.surgery_table import operate
    from rnnlstm.training.evaluation import evaluate

    other = operate(network, surgery) if surgery is not None else network
    return evaluate(other, task, seed, samples)[0]


def flow_and_units(plan: Plan, network: Network, seed: int) -> dict[str, float]:
    """On 32 sequences, in float64: before training `half_life_at_start` of ∂L/∂h in steps, and `dead_at_start`, the
    share of dead units; of the trained network `log10_gradient_kept`, at the first step against the last, and the
    shares of dead and saturated units."""
    from rnnlstm.instruments.analysed_network import AnalysedNetwork
    from rnnlstm.instruments.flow import flow
    from rnnlstm.instruments.measurement import unit_shares
    from rnnlstm.instruments.probe import half_life

    task = plan.task
    before, after = (
        AnalysedNetwork.of(task, net, task.sample(seed, 0, "probe", 32)) for net in (plan.network(seed), network)
    )
    norms = flow(after).total["hidden"][-1]
    return {
        "half_life_at_start": half_life(flow(before).total["hidden"][-1]),
        "dead_at_start": unit_shares(before, before.layers - 1)["dead"],
        "log10_gradient_kept": (norms[-1] / norms[0]).log10().item(),
        **unit_shares(after, after.layers - 1),
    }


def each(rows: Iterable[Row], name: str = "metric", form: str = ".3g") -> str:
    """`tanh RNN 0.167, IRNN 0.165`: medians."""
    return ", ".join(f"{row.arm} {row.median(name):{form}}" for row in rows)


def solved(rows: Iterable[Row]) -> str:
    """`tanh RNN 0 of 5, GRU 5 of 5`."""
    return ", ".join(f"{row.arm} {row.solved_count} of {row.n}" for row in rows)


#: What a check that compares returns: whether the difference has the sign that its sentence says, what was measured,
#: and the two-sided p-value.
Comparison = tuple[bool, str, float]


def more_solve(row: Row, other: Row) -> Comparison:
    """Does a larger share of the seeds of `row` solve the task? Fisher's exact test."""
    from rnnlstm.reporting.statistics import fisher_exact

    a, b = row.solved_count, other.solved_count
    p = fisher_exact(a, row.n - a, b, other.n - b)
    told = f"solved {_both(row, other, *(f'{r.solved_count} of {r.n}' for r in (row, other)))}"
    return a * other.n > b * row.n, told, p


def more_diverge(row: Row, other: Row) -> Comparison:
    """Does a larger share of the seeds of `row` diverge? Fisher's exact test."""
    from rnnlstm.reporting.statistics import fisher_exact

    a, b = row.diverged_count, other.diverged_count
    p = fisher_exact(a, row.n - a, b, other.n - b)
    told = f"diverged {_both(row, other, *(f'{r.diverged_count} of {r.n}' for r in (row, other)))}"
    return a * other.n > b * row.n, told, p


def sooner(row: Row, other: Row) -> Comparison:
    """Does `row` solve the task in fewer updates? Mann & Whitney's test; unsolved runs are tied behind all others.

    Raises: ValueError if the budgets differ: what is unsolved in one might be solved in the other.
    """
    from rnnlstm.reporting.statistics import mann_whitney, share_above, unsolved_last

    if row.steps != other.steps:
        raise ValueError(f"budgets of {row.steps:,} and {other.steps:,} updates can't be compared")
    steps = [unsolved_last(r.steps_to_solve) for r in (row, other)]
    medians = (f"{r.median_steps:,.0f}" if math.isfinite(r.median_steps) else f"> {r.steps:,}" for r in (row, other))
    return share_above(*steps) < 0.5, f"updates to solve {_both(row, other, *medians)}", mann_whitney(*steps)


def larger(row: Row, other: Row, name: str = "metric") -> Comparison:
    """Is a score larger in `row`? Mann & Whitney's test over the seeds that have it; p = 1 if a row has none."""
    from rnnlstm.reporting.statistics import mann_whitney, share_above

    values = [r.values(name) for r in (row, other)]
    told = _both(row, other, *(f"{r.median(name):.3g}" for r in (row, other)))
    return share_above(*values) > 0.5, f"{name_of(name)} {told}", mann_whitney(*values)


def smaller(row: Row, other: Row, name: str = "metric") -> Comparison:
    """As `larger`, with the other sign."""
    _, told, p = larger(row, other, name)
    return larger(other, row, name)[0], told, p


def higher_within(row: Row, name: str, other: str) -> Comparison:
    """Is the score `name` larger than the score `other` of the same seeds? The exact sign test over those that have
    both: two scores of one network are not independent, as Mann & Whitney's test needs them."""
    from rnnlstm.reporting.statistics import sign_test

    pairs = zip(row.scores.get(name, []), row.scores.get(other, []), strict=False)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    above, below = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    told = f"{row.arm}: {name_of(name)} {row.median(name):.3g}, {name_of(other)} {row.median(other):.3g}"
    return above > below, f"{told}; larger in {above} of {len(differences)} seeds", sign_test(above, below)


def together(*comparisons: Comparison) -> Comparison:
    """A sentence that makes several comparisons holds if all do; its p is the largest (Berger 1982)."""
    holds, told, p = zip(*comparisons, strict=True)
    return all(holds), "; ".join(told), max(p)


def _both(row: Row, other: Row, mine: str, theirs: str) -> str:
    """`tanh RNN 0 of 5, GRU 5 of 5`; the settings' names where the network is the same."""
    a, b = (row.arm, other.arm) if row.arm != other.arm else (row.setting, other.setting)
    return f"{a} {mine}, {b} {theirs}"


def all_solve(row: Row) -> bool:
    return row.n > 0 and row.solved_count == row.n


def most_solve(row: Row) -> bool:
    return 2 * row.solved_count > row.n


def few_solve(row: Row) -> bool:
    """At most one seed in five."""
    return 5 * row.solved_count <= row.n
