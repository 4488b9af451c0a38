"""JANET: just another network, the LSTM with a forget gate alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@register_cell("janet")
@dataclass(frozen=True, kw_only=True)
class JanetCell(Cell):
    """s_t = W_if x_t + b_if + W_hf h_{t−1} + b_hf
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t−1} + b_hg)
    h_t = σ(s_t) ⊙ h_{t−1} + (1 − σ(s_t − β)) ⊙ g_t

    With β = 1 a unit takes in a little more than it forgets. Source: van der Westhuizen & Lasenby 2018, with chrono
    initialisation.
    """

    gate_names = ("forget",)
    gate_blocks = (0,)
    blocks = 2  # in the order forget, candidate

    init: str = option("chrono", "chrono or default (uniform)", choices=("chrono", "default"))
    beta: float = option(
        1.0, "β: the candidate's weight is 1 − σ(s − β), s the forget gate's input", at_least=0, at_most=100
    )
    max_lag: int | None = initialisation.max_lag_option()

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, opened=0)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        s, g = (projected + self.recurrent(h, w)).chunk(2, -1)
        f = self.gate("forget", torch.sigmoid(s))
        return (f * h + (1 - torch.sigmoid(s - self.beta)) * torch.tanh(g),), {"forget": f}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂h_t/∂h_{t−1} along the leak alone: f_t."""
        return gates["forget"]
