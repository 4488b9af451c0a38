"""The plain (Elman 1990) recurrent network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.options import option

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda a: a,
}


@register_cell("rnn")
@dataclass(frozen=True, kw_only=True)
class RNNCell(Cell):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh)

    φ is tanh, ReLU, the logistic sigmoid or the identity. Source: Elman 1990; as `torch.nn.RNN` computes it.
    """

    nonlinearity: str = option("tanh", "φ", choices=tuple(NONLINEARITIES))
    init: str = option(
        "default",
        "default (PyTorch's), orthogonal or identity (IRNN)",
        choices=("default", "orthogonal", "identity"),
    )
    gain: float = option(1.0, "factor of the orthogonal or identity matrix", at_least=0, at_most=1000)

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)
        elif self.init == "identity":
            initialisation.identity(w, self.gain, generator)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        h = NONLINEARITIES[self.nonlinearity](projected + F.linear(h, w["weight_hh"], w.get("bias_hh")))
        return (h,), {}

    @property
    def has_torch_layer(self) -> bool:
        return self.nonlinearity in ("tanh", "relu")

    def torch_layer(self, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
        layer = torch.rnn_tanh if self.nonlinearity == "tanh" else torch.rnn_relu
        # The arguments after the weights: has_biases, num_layers, dropout, train, bidirectional, batch_first.
        outputs, h = layer(x, state[0][None], list(w.values()), "bias_ih" in w, 1, 0.0, False, False, False)
        return outputs, (h[0],)
