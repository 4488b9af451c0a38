"""The RNN whose recurrent matrix stays orthogonal as it learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@register_cell("orthogonal")
@dataclass(frozen=True, kw_only=True)
class OrthogonalCell(Cell):
    """h_t = φ(W_ih x_t + b_ih + Q h_{t−1}),   Q = exp(A − Aᵀ)

    exp of a skew-symmetric matrix is orthogonal, so that plain gradient steps on A keep Q orthogonal: the map that
    `torch.nn.utils.parametrizations.orthogonal` calls `matrix_exp`. Source: Lezcano-Casado & Martínez-Rubio 2019
    (expRNN), with Henaff, Szlam & LeCun's start, rotations by angles uniform on −π … π. φ is modReLU, sign(a)
    ReLU(|a| + β) with a bias β for each unit (Arjovsky, Shah & Bengio 2016; Helfrich, Willmott & Ye 2018), tanh, or
    the identity. `weight_hh` is A; `bias_hh` is β, there only if φ is modReLU.
    """

    nonlinearity: str = option("modrelu", "the nonlinearity φ", choices=("modrelu", "tanh", "identity"))
    init: str = option("rotations", "rotations, or default (uniform A)", choices=("rotations", "default"))

    def parameter_shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        shapes = super().parameter_shapes(input_size, hidden_size, bias)
        return {n: s for n, s in shapes.items() if n != "bias_hh" or self.nonlinearity == "modrelu"}

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        A = w["weight_hh"]
        H = A.shape[-1]
        with torch.no_grad():
            if self.init == "rotations":
                if "bias_hh" in w:
                    w["bias_hh"].mul_(0.01)
                angles = torch.empty(H // 2, dtype=torch.float32).uniform_(-math.pi, math.pi, generator=generator)
                A.zero_()
                index = torch.arange(H // 2) * 2
                A[index, index + 1] = angles.to(A)

    def prepare(self, w: Weights) -> Weights:
        A = w["weight_hh"]
        return {**w, "weight_hh": torch.matrix_exp(A - A.mT)}

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        (h,) = state
        a = projected + F.linear(self.seen(h, w), w["weight_hh"])
        if self.nonlinearity == "tanh":
            return (torch.tanh(a),), {}
        if self.nonlinearity == "identity":
            return (a,), {}
        size = a.abs() + w["bias_hh"] if "bias_hh" in w else a.abs()
        return (torch.sign(a) * torch.relu(size),), {}
