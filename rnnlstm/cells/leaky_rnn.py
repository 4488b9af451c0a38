"""The leaky RNN: a slow path beside the nonlinearity, with fixed time constants and no gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option

KEPT = "kept"


@register_cell("leaky_rnn")
@dataclass(frozen=True, kw_only=True)
class LeakyRNNCell(Cell):
    """h_t = a ⊙ h_{t−1} + (1 − a) ⊙ tanh(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh)

    a is fixed, not learned. The time constants 1/(1 − a) of the H units are log-uniform on 1 … max_lag steps:
    1/(1 − a_k) = max_lag^((k + ½)/H), k = 0 … H − 1. So the network has slow paths, as a GRU or LSTM that starts with
    chrono's biases, but nothing that looks at the input to open or shut them; what chrono's gates do beyond a slow
    path shows in the difference. With max_lag 1 it is the plain RNN. Source: leaky integration, Jaeger 2001; with
    time constants spread over units, Mozer 1992 (both from memory).
    """

    gate_names = (KEPT,)  # the gate that it has not got: instruments show the time constants in its place

    init: str = option("default", "default (PyTorch's) or orthogonal", choices=("default", "orthogonal"))
    gain: float = initialisation.gain_option()
    max_lag: int = option(100, "time constants are spread over 1 … max_lag steps", at_least=1)

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)

    def prepare(self, w: Weights) -> Weights:
        H = w["weight_hh"].shape[-1]
        rank = (torch.arange(H, dtype=torch.float64, device=w["weight_hh"].device) + 0.5) / H
        return {**w, KEPT: (1 - float(self.max_lag) ** -rank).to(w["weight_hh"])}

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        new = torch.tanh(projected + self.recurrent(h, w))
        a = self.gate(KEPT, w[KEPT].expand_as(h))
        return (a * h + (1 - a) * new,), {KEPT: a}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂h_t/∂h_{t−1} along the leak alone: a."""
        return gates[KEPT]
