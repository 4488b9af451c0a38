"""What an analysis works on: a network in float64, and a batch of sequences."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rnnlstm.cells import Cell, Weights
from rnnlstm.instruments.probe import last_scored
from rnnlstm.models import Network
from rnnlstm.recurrence import Trace, traced
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch


@dataclass(frozen=True)
class AnalysedNetwork:
    """`network` and `batch` on the CPU; `batch` has the task's own mask."""

    task: Task
    network: Network
    batch: Batch

    @classmethod
    def of(cls, task: Task, network: Network, batch: Batch) -> AnalysedNetwork:
        """Copies the network to float64, where identities hold to rounding."""
        network = copy.deepcopy(network).to("cpu", torch.float64)
        return cls(task, network.requires_grad_(), in_double(batch.to(torch.device("cpu"))))

    @property
    def cell(self) -> Cell:
        return self.network.recurrence.cell

    @property
    def layers(self) -> int:
        return self.network.recurrence.num_layers

    def weights(self, layer: int) -> Weights:
        """A layer's weights by the cell's names, detached."""
        return {name: w.detach() for name, w in self.network.recurrence.layer_weights(layer).items()}

    @cached_property
    def at_last(self) -> Batch:
        """The batch with only the last scored position of each sequence left in the mask."""
        return last_scored(self.batch)

    @cached_property
    def path(self) -> Path:
        """A forward pass without gradients: the inputs of each layer, and every state."""
        trace = Trace(step_by_step=True)
        with torch.no_grad(), traced(self.network.recurrence, trace):
            x = self.network.embed(self.batch.inputs)
            outputs = self.network.answer(x)
        states = [trace.states(layer) for layer in range(trace.layers)]
        inputs = [x, *(s[self.cell.state_names[0]] for s in states[:-1])]
        return Path(inputs, states, [trace.gates(layer) for layer in range(trace.layers)], outputs)


@dataclass(frozen=True)
class Path:
    """By layer: inputs (T, B, I), states and gates (T, B, H) by name; outputs of the network (T, B, O)."""

    inputs: list[Tensor]
    states: list[dict[str, Tensor]]
    gates: list[dict[str, Tensor]]
    outputs: Tensor


def in_double(batch: Batch) -> Batch:
    """The batch with float values in float64."""
    values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return Batch(
        **{k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in values.items()}
    )
