"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell, torch_arguments
from rnnlstm.config.options import option

UPDATE = 1  # block of the stacked weights, in PyTorch's order: reset, update, candidate


@register_cell("gru")
@dataclass(frozen=True, kw_only=True)
class GRUCell(Cell):
    """r_t = σ(W_ir x_t + b_ir + W_hr h_{t−1} + b_hr)              reset gate
    z_t = σ(W_iz x_t + b_iz + W_hz h_{t−1} + b_hz)              update gate
    n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t−1} + b_hn))   candidate
    h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t−1}

    Source: Cho et al. 2014, with the reset gate applied after the product as in cuDNN and `torch.nn.GRU`. An
    update gate near one keeps h, as an open forget gate keeps the LSTM's c.
    """

    gate_names = ("reset", "update")
    gate_blocks = (0, 1)
    blocks = 3

    init: str = option(
        "default",
        "default (PyTorch's), orthogonal or chrono (Tallec & Ollivier 2018)",
        choices=("default", "orthogonal", "chrono"),
    )
    gain: float = initialisation.gain_option()
    max_lag: int | None = initialisation.max_lag_option()

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)
        elif self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, opened=UPDATE)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        r_x, z_x, n_x = projected.chunk(3, -1)
        r_h, z_h, n_h = self.recurrent(h, w).chunk(3, -1)
        r, z = self.gate("reset", torch.sigmoid(r_x + r_h)), self.gate("update", torch.sigmoid(z_x + z_h))
        n = torch.tanh(n_x + r * n_h)
        return ((1 - z) * n + z * h,), {"reset": r, "update": z}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂h_t/∂h_{t−1} along the leak alone: z_t."""
        return gates["update"]

    def torch_layer(
        self, x: Tensor, state: State, w: Weights, batch_sizes: Tensor | None = None
    ) -> tuple[Tensor, State]:
        outputs, h = torch.gru(*torch_arguments(x, state[0][None], w, batch_sizes))
        return outputs, (h[0],)
