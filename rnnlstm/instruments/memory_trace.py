"""The memory trace: how well a linear readout names a sequence's answer from the state at each time step.

The readout is a ridge regression of the answer's one-hot vector on the state, in closed form, fitted on some
sequences and scored on others:

    W = (XᵀX/N + λ I)⁻¹ XᵀY/N

X holds the states, each unit with mean 0 and variance 1 over the fitted sequences, Y the answers without their mean.
Accuracy is the share of new sequences whose largest output is the answer's; chance is 1/K. Source: the linear
classifier probes of Alain & Bengio 2016 (from memory), with ridge regression, so that nothing has to be trained.

Dimensions: T time steps, N sequences, H hidden units, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.models import Network
from rnnlstm.recurrence import Trace, traced
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch

SEQUENCES = 1024  #: that the readout is fitted on, and as many that it is scored on
RIDGE = 1e-3  #: λ
SAME = 1e-7  #: a unit that varies by less, relative to its largest value, is taken as constant: float32 rounds so


@dataclass(frozen=True)
class MemoryTrace:
    """Of the last layer."""

    accuracy: dict[str, Tensor]  #: by state (`hidden`, `cell`), float64 (T,)
    variance_ratio: dict[str, float]  #: by state, at the last step


def memory_trace(task: Task, network: Network, seed: int, sequences: int = SEQUENCES) -> MemoryTrace:
    """The trace of a task whose sequences have one answer each, a class.

    Raises: ValueError for another task.
    """
    fitted, new = (task.sample(seed, step, "probe", sequences) for step in (1, 2))
    y, z = answers(fitted), answers(new)
    K = task.output_size
    states, unseen = states_of(network, fitted), states_of(network, new)
    return MemoryTrace(
        {name: readout_accuracy(states[name], y, unseen[name], z, K) for name in states},
        {name: variance_ratio(state[-1], y, K) for name, state in states.items()},
    )


def answers(batch: Batch) -> Tensor:
    """The class of each sequence's answer, (N,). Raises: ValueError if a sequence has none or several."""
    if batch.targets.is_floating_point() or not (batch.mask.sum(0) == 1).all():
        raise ValueError("a memory trace needs sequences with one answer each, a class")
    return batch.targets.gather(0, batch.mask.int().argmax(0)[None])[0]


def states_of(network: Network, batch: Batch) -> dict[str, Tensor]:
    """The last layer's states by name, (T, N, H)."""
    trace = Trace()
    with torch.no_grad(), traced(network.recurrence, trace):
        network(batch.inputs)
    return trace.states(trace.layers - 1)


def readout_accuracy(fitted: Tensor, y: Tensor, new: Tensor, z: Tensor, classes: int, ridge: float = RIDGE) -> Tensor:
    """Accuracy at each time step, (T,): fitted on states (T, N, H) with answers `y`, scored on `new` with `z`."""
    mean, spread = fitted.double().mean(1, keepdim=True), fitted.double().std(1, correction=0, keepdim=True)
    largest = fitted.double().abs().amax(1, keepdim=True)
    scale = torch.where(spread > SAME * largest, 1 / spread, 0.0)
    x, unseen = (fitted.double() - mean) * scale, (new.double() - mean) * scale
    one_hot = F.one_hot(y, classes).double()
    share = one_hot.mean(0)
    N, H = x.shape[1:]
    gram = x.mT @ x / N + ridge * torch.eye(H, dtype=torch.float64)
    w = torch.linalg.solve(gram, x.mT @ (one_hot - share) / N)  # (T, H, K)
    return ((unseen @ w + share).argmax(-1) == z).double().mean(1)


def variance_ratio(state: Tensor, y: Tensor, classes: int) -> float:
    """Between-class over within-class variance of a state (N, H) with answers `y` (N,), each summed over the units.

    Without any trace it is about (K−1)/(N−K), from the classes' means being estimated. NaN if nothing varies within.
    """
    x = state.double()
    members = F.one_hot(y, classes).double()  # (N, K)
    counts = members.sum(0)
    means = (members.T @ x) / counts.clamp(min=1).unsqueeze(1)  # (K, H)
    between = (counts.unsqueeze(1) * (means - x.mean(0)).square()).sum()
    within = (x - means[y]).square().sum()
    return (between / within).item()
