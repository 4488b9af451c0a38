"""Measurements on a trained network: other lengths, a gate held, the half-life, dead units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnlstm.models import Network
    from rnnlstm.sections import Surgery
    from rnnlstm.tasks import Task
    from rnnlstm.training.plan import Plan

#: Time steps × sequences that go through the network at once.
CHUNK = 100_000


def network_of(folder: Path, seed: int) -> tuple[Plan, Network]:
    """The plan and the trained network of one seed of a run."""
    from rnnlstm.training.saved import load_run, restored

    run = load_run(str(folder / f"seed_{seed}"))
    return run[0], restored(*run)


def score(task: Task, network: Network, seed: int, samples: int, surgery: Surgery | None = None) -> dict[str, float]:
    """The task's metrics on held-out sequences, those of evaluation, with gates held as `surgery` says."""
    import torch

    from rnnlstm.analysis.operations import operate

    other = operate(network, surgery) if surgery is not None else network
    size = max(1, min(samples, CHUNK // task.sequence_length))
    sums: dict[str, float] = {}
    done = 0
    with torch.no_grad():
        for step, start in enumerate(range(0, samples, size)):
            batch = task.sample(seed, step, "eval", min(size, samples - start))
            for name, value in task.metrics(other(batch.inputs), batch).items():
                sums[name] = sums.get(name, 0.0) + value * batch.mask.shape[1]
            done += batch.mask.shape[1]
    return {name: value / done for name, value in sums.items()}


def flow_and_units(task: Task, network: Network, seed: int) -> dict[str, float]:
    """`half_life` of ∂L/∂h in steps and the shares of dead and saturated units, on 32 sequences, in float64."""
    from rnnlstm.analysis.flow import flow
    from rnnlstm.analysis.subject import Subject
    from rnnlstm.analysis.units import unit_shares
    from rnnlstm.probes import half_life

    subject = Subject.of(task, network, task.sample(seed, 0, "probe", 32))
    found: dict[str, Any] = {"half_life": half_life(flow(subject).total["hidden"][-1])}
    return found | unit_shares(subject, subject.layers - 1)
