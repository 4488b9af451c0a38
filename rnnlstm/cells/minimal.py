"""minGRU and minLSTM: gates that see the input alone, so that all time steps can be computed at once.

Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024, "Were RNNs all we needed?". Computed by a parallel scan in
training, else step by step, with equal results.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, linear_scan, register_cell
from rnnlstm.config.options import option


@dataclass(frozen=True, kw_only=True)
class MinimalCell(Cell):
    """h_t = a_t ⊙ h_{t−1} + b_t, with a and b from x_t alone: no weights on the state."""

    init: str = option("default", "default (uniform) or chrono", choices=("default", "chrono"))
    max_lag: int | None = initialisation.max_lag_option()

    def parameter_shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        rows = self.blocks * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size)}
        return shapes | ({"bias_ih": (rows,)} if bias else {})

    @abstractmethod
    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """a, b and the gates, from pre-activations (…, G·H)."""

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        a, b, gates = self.coefficients(projected)
        return (a * state[0] + b,), gates

    def scan(self, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
        a, b, _ = self.coefficients(self.project(x, w))
        outputs = linear_scan(a, b, state[0])
        return outputs, (outputs[-1],)


@register_cell("min_gru")
@dataclass(frozen=True, kw_only=True)
class MinGRUCell(MinimalCell):
    """z_t = σ(W_z x_t + b_z)
    h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ (W_h x_t + b_h)
    """

    gate_names = ("update",)
    blocks = 2

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, shut=0)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        z, new = projected.chunk(2, -1)
        z = self.gate("update", torch.sigmoid(z))
        return 1 - z, z * new, {"update": z}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂h_t/∂h_{t−1}, the whole of it: 1 − z_t."""
        return 1 - gates["update"]


@register_cell("min_lstm")
@dataclass(frozen=True, kw_only=True)
class MinLSTMCell(MinimalCell):
    """f_t = σ(W_f x_t + b_f),   i_t = σ(W_i x_t + b_i)
    h_t = f_t/(f_t + i_t) ⊙ h_{t−1} + i_t/(f_t + i_t) ⊙ (W_h x_t + b_h)

    `forget` and `input` are the gates before they are normalised.
    """

    gate_names = ("forget", "input")
    blocks = 3

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, opened=0, shut=1)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        f, i, new = projected.chunk(3, -1)
        f, i = self.gate("forget", torch.sigmoid(f)), self.gate("input", torch.sigmoid(i))
        kept = f / (f + i)
        return kept, (1 - kept) * new, {"forget": f, "input": i}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂h_t/∂h_{t−1}, the whole of it: f/(f + i)."""
        return gates["forget"] / (gates["forget"] + gates["input"])
