"""The linear recurrent network: what is left of an RNN without its nonlinearity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@register_cell("linear")
@dataclass(frozen=True, kw_only=True)
class LinearCell(Cell):
    """h_t = W_ih x_t + b_ih + W_hh h_{t−1} + b_hh

    Every Jacobian is W_hh: gradients grow or shrink with its eigenvalues, whatever the input. Orthogonal by default,
    so that they do neither (Saxe, McClelland & Ganguli 2013; White, Lee & Sompolinsky 2004).
    """

    init: str = option("orthogonal", "orthogonal or default (uniform)", choices=("orthogonal", "default"))
    gain: float = option(1.0, "factor of the orthogonal matrix, with init=orthogonal", at_least=0, at_most=1000)

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        return (projected + self.recurrent(h, w),), {}
