"""The plain (Elman 1990) recurrent network, and the linear one, which is what is left without the nonlinearity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell, torch_arguments
from rnnlstm.config.options import option

#: Name: (φ, the steepest slope it has anywhere). The last four tell slope, amplitude and zero-centring of the sigmoid
#: apart.
NONLINEARITIES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "tanh": (torch.tanh, 1.0),
    "relu": (torch.relu, 1.0),
    "sigmoid": (torch.sigmoid, 0.25),
    "identity": (lambda a: a, 1.0),
    "centred_sigmoid": (lambda a: 2 * torch.sigmoid(a) - 1, 0.5),
    "steep_sigmoid": (lambda a: torch.sigmoid(4 * a), 1.0),
    "centred_steep_sigmoid": (lambda a: torch.sigmoid(4 * a) - 0.5, 1.0),
    "wide_steep_sigmoid": (lambda a: 2 * torch.sigmoid(4 * a) - 1, 2.0),
}


@register_cell("rnn")
@dataclass(frozen=True, kw_only=True)
class RNNCell(Cell):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh)

    φ is tanh, ReLU, the logistic sigmoid σ or the identity; or centred_sigmoid, 2σ(x) − 1, with its mean at zero and
    slope up to ½, or steep_sigmoid, σ(4x), with a slope up to 1 as tanh has it but a mean of ½ and half of tanh's
    amplitude; centred_steep_sigmoid, σ(4x) − ½, moves that mean to zero, and wide_steep_sigmoid, 2σ(4x) − 1, gives it
    tanh's amplitude, too, at slope 2.
    Source: Elman 1990; as `torch.nn.RNN` computes it.
    """

    nonlinearity: str = option("tanh", "the nonlinearity φ", choices=tuple(NONLINEARITIES))
    init: str = option(
        "default",
        "default (PyTorch's), orthogonal or identity (IRNN)",
        choices=("default", "orthogonal", "identity"),
    )
    gain: float = option(
        1.0, "factor of that matrix", at_least=0, at_most=1000, acts_if={"init": ["orthogonal", "identity"]}
    )

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)
        elif self.init == "identity":
            initialisation.identity(w, self.gain, generator)

    @property
    def phi(self) -> Callable[[Tensor], Tensor]:
        """The nonlinearity, on pre-activations of any shape."""
        return NONLINEARITIES[self.nonlinearity][0]

    @property
    def steepest(self) -> float:
        """The largest |φ'| there is: γ in the bound ‖∂h_t/∂h_k‖ ≤ (γ σ_max(W))^(t−k)."""
        return NONLINEARITIES[self.nonlinearity][1]

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        h = self.phi(projected + self.recurrent(h, w))
        return (h,), {}

    @property
    def has_torch_layer(self) -> bool:
        return self.nonlinearity in ("tanh", "relu")

    def torch_layer(
        self, x: Tensor, state: State, w: Weights, batch_sizes: Tensor | None = None
    ) -> tuple[Tensor, State]:
        layer = torch.rnn_tanh if self.nonlinearity == "tanh" else torch.rnn_relu
        outputs, h = layer(*torch_arguments(x, state[0][None], w, batch_sizes))
        return outputs, (h[0],)


@register_cell("linear")
@dataclass(frozen=True, kw_only=True)
class LinearCell(Cell):
    """h_t = W_ih x_t + b_ih + W_hh h_{t−1} + b_hh

    Every Jacobian is W_hh: gradients grow or shrink with its eigenvalues, whatever the input. The default is an
    orthogonal W_hh, which keeps their norm (Saxe, McClelland & Ganguli 2013; White, Lee & Sompolinsky 2004).
    """

    init: str = option("orthogonal", "orthogonal or default (uniform)", choices=("orthogonal", "default"))
    gain: float = initialisation.gain_option()

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        return (projected + self.recurrent(h, w),), {}
