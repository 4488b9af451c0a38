"""The LSTM with uniform gate initialisation and refine gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@register_cell("lstm_refine")
@dataclass(frozen=True, kw_only=True)
class RefineCell(Cell):
    """f = σ(P_f + b),   r = σ(P_r − b),   k = 2 r ⊙ f + (1 − 2r) ⊙ f²
    c_t = k ⊙ c_{t−1} + (1 − k) ⊙ tanh(P_g)
    h_t = σ(P_o) ⊙ tanh(c_t)

    where P is the LSTM's pre-activation of x_t and h_{t−1}. The refine gate r moves the effective gate k within
    f² … 1 − (1 − f)², so that it can move where f alone is saturated; b is such that σ(b) is uniform on 1/H … 1 −
    1/H. Source: Gu, Gulcehre, Paine, Hoffman & Pascanu 2020 (UR-LSTM). Gates: `forget` is k.
    """

    state_names = ("hidden", "cell")
    gate_names = ("forget", "output")
    blocks = 4  # in the order forget, refine, candidate, output

    init: str = option("uniform", "uniform gates, or default (uniform weights alone)", choices=("uniform", "default"))

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "uniform":
            H = w["weight_hh"].shape[-1]
            low = 1 / max(H, 2)
            u = torch.full((H,), 0.5, dtype=torch.float32)
            if H > 2:
                u.uniform_(low, 1 - low, generator=generator)
            bias = torch.logit(u)
            initialisation.set_bias(w, 0, bias, self.init)
            initialisation.set_bias(w, 1, -bias, self.init)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        f, r, g, o = (projected + self.recurrent(h, w)).chunk(4, -1)
        f, r = torch.sigmoid(f), torch.sigmoid(r)
        k, o = self.gate("forget", 2 * r * f + (1 - 2 * r) * f * f), self.gate("output", torch.sigmoid(o))
        c = k * c + (1 - k) * torch.tanh(g)
        return (o * torch.tanh(c), c), {"forget": k, "output": o}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂c_t/∂c_{t−1} along the cell: k_t."""
        return gates["forget"]
