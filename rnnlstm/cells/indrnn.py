"""IndRNN: each unit sees its own state alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@register_cell("indrnn")
@dataclass(frozen=True, kw_only=True)
class IndRNNCell(Cell):
    """h_t = φ(W_ih x_t + b_ih + u ⊙ h_{t−1})

    ∂h_t/∂h_{t−1} = diag(φ' u): each unit's gradient vanishes or explodes by itself. Source: Li, Li, Cook, Zhu & Gao
    2018, with ReLU and u uniform on 0 … 1 at the start. `weight_hh` (H,) is u.
    """

    nonlinearity: str = option("relu", "the nonlinearity φ", choices=("relu", "tanh"))
    init: str = option("uniform", "u on 0 … 1, or default (uniform on ±1/√H)", choices=("uniform", "default"))

    def parameter_shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (hidden_size, input_size), "weight_hh": (hidden_size,)}
        return shapes | ({"bias_ih": (hidden_size,)} if bias else {})

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "uniform":
            torch.nn.init.uniform_(w["weight_hh"], 0.0, 1.0, generator=generator)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        a = projected + w["weight_hh"] * self.seen(state[0], w)
        return (torch.relu(a) if self.nonlinearity == "relu" else torch.tanh(a),), {}
