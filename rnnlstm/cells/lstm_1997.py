"""Long short-term memory without a forget gate: a bare sum, and the gated sum that was published first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@register_cell("lstm_sum")
@dataclass(frozen=True, kw_only=True)
class SumCell(Cell):
    """c_t = c_{t−1} + tanh(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh)
    h_t = tanh(c_t)

    It never forgets, and takes in every input: ∂c_t/∂c_{t−1} = 1 along the cell. A first step towards the
    constant error carousel of Hochreiter & Schmidhuber 1997.
    """

    state_names = ("hidden", "cell")

    init: str = option("default", "default (uniform)", choices=("default",))

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        c = c + torch.tanh(projected + self.recurrent(h, w))
        return (torch.tanh(c), c), {}


@register_cell("lstm_1997")
@dataclass(frozen=True, kw_only=True)
class LSTM1997Cell(Cell):
    """i_t = σ(W_ii x_t + b_ii + W_hi h_{t−1} + b_hi)        input gate
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t−1} + b_hg)     candidate
    o_t = σ(W_io x_t + b_io + W_ho h_{t−1} + b_ho)        output gate
    c_t = c_{t−1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)

    Source: Hochreiter & Schmidhuber 1997, with tanh where they squash to ±2 and ±1. The cell state
    never forgets: ∂c_t/∂c_{t−1} = 1 along the cell, and c may grow without bound.
    """

    state_names = ("hidden", "cell")
    gate_names = ("input", "output")
    gate_blocks = (0, 2)
    blocks = 3  # in the order input, candidate, output

    init: str = option("default", "default (PyTorch's) or orthogonal", choices=("default", "orthogonal"))
    gain: float = initialisation.gain_option()

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        i, g, o = (projected + self.recurrent(h, w)).chunk(3, -1)
        i, g, o = self.gate("input", torch.sigmoid(i)), torch.tanh(g), self.gate("output", torch.sigmoid(o))
        c = c + i * g
        h = o * torch.tanh(c)
        return (h, c), {"input": i, "output": o}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂c_t/∂c_{t−1} along the cell: 1."""
        return torch.ones_like(gates["input"])
