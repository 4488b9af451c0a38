"""Measurements on a trained network: other lengths, a gate held, the half-life, dead units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnnlstm.config.schema import Surgery
    from rnnlstm.models import Network
    from rnnlstm.tasks import Task
    from rnnlstm.training.plan import Plan


def network_of(folder: Path, seed: int) -> tuple[Plan, Network]:
    """The plan and the trained network of one seed of a run."""
    from rnnlstm.training.weights import load_network

    run = load_network(str(folder / f"seed_{seed}"))
    return run.plan, run.network()


def score(task: Task, network: Network, seed: int, samples: int, surgery: Surgery | None = None) -> float:
    """The headline metric on held-out sequences, those of evaluation, with gates held as `surgery` says."""
    from rnnlstm.instruments.operations import operate
    from rnnlstm.training.evaluation import evaluate

    other = operate(network, surgery) if surgery is not None else network
    return evaluate(other, task, seed, samples)[0][task.metric_name]


def flow_and_units(plan: Plan, network: Network, seed: int) -> dict[str, float]:
    """On 32 sequences, in float64: `half_life_at_start` of ∂L/∂h in steps, before training; of the trained network
    `log10_gradient_kept`, at the first step against the last, and the shares of dead and saturated units."""
    from rnnlstm.instruments.flow import flow
    from rnnlstm.instruments.probe import half_life
    from rnnlstm.instruments.subject import Subject
    from rnnlstm.instruments.units import unit_shares

    task = plan.task
    before, after = (
        Subject.of(task, net, task.sample(seed, 0, "probe", 32)) for net in (plan.network(seed), network)
    )
    norms = flow(after).total["hidden"][-1]
    return {
        "half_life_at_start": half_life(flow(before).total["hidden"][-1]),
        "log10_gradient_kept": (norms[-1] / norms[0]).log10().item(),
        **unit_shares(after, after.layers - 1),
    }
