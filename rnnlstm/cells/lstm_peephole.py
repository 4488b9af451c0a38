"""The LSTM whose gates see the cell state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.cells.lstm import FORGET, INPUT
from rnnlstm.config.options import option


@register_cell("lstm_peephole")
@dataclass(frozen=True, kw_only=True)
class PeepholeCell(Cell):
    """i_t = σ(… + p_i ⊙ c_{t−1})
    f_t = σ(… + p_f ⊙ c_{t−1})
    c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t
    o_t = σ(… + p_o ⊙ c_t)
    h_t = o_t ⊙ tanh(c_t)

    where … is the LSTM's own pre-activation. Source: Gers & Schmidhuber 2000. `weight_ch` (3·H,) holds p_i, p_f, p_o.
    """

    state_names = ("hidden", "cell")
    gate_names = ("input", "forget", "output")
    gate_blocks = (0, 1, 3)
    blocks = 4

    init: str = option("default", "default (uniform) or chrono", choices=("default", "chrono"))
    max_lag: int | None = initialisation.max_lag_option()

    def parameter_shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        return super().parameter_shapes(input_size, hidden_size, bias) | {"weight_ch": (3 * hidden_size,)}

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, opened=FORGET, shut=INPUT)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        i, f, g, o = (projected + self.recurrent(h, w)).chunk(4, -1)
        p_i, p_f, p_o = w["weight_ch"].chunk(3, -1)
        i, f = self.gate("input", torch.sigmoid(i + p_i * c)), self.gate("forget", torch.sigmoid(f + p_f * c))
        c = f * c + i * torch.tanh(g)
        o = self.gate("output", torch.sigmoid(o + p_o * c))
        return (o * torch.tanh(c), c), {"input": i, "forget": f, "output": o}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """f_t. The further path from c_{t−1} to c_t through the peepholes is not counted."""
        return gates["forget"]
