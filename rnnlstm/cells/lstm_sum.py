"""The memory as a bare sum: what the LSTM is before it gets its gates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@register_cell("lstm_sum")
@dataclass(frozen=True, kw_only=True)
class SumCell(Cell):
    """c_t = c_{t−1} + tanh(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh)
    h_t = tanh(c_t)

    Nothing is ever forgotten, and nothing kept out: ∂c_t/∂c_{t−1} = 1 along the cell. A first step towards the
    constant error carousel of Hochreiter & Schmidhuber 1997.
    """

    state_names = ("hidden", "cell")

    init: str = option("default", "default (uniform)", choices=("default",))

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        c = c + torch.tanh(projected + self.recurrent(h, w))
        return (torch.tanh(c), c), {}
