"""The linear recurrent unit: a diagonal, complex, linear recurrence that starts on a ring near the unit circle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.cells.cell import Cell, State, Weights, linear_scan, register_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import option

RING = {"init": ["ring"]}


@register_cell("lru")
@dataclass(frozen=True, kw_only=True)
class LRUCell(Cell):
    """z_t = λ ⊙ z_{t−1} + γ ⊙ (B x_t),   λ = exp(−exp(ν) + i exp(θ)),   γ = √(1 − |λ|²)
    h_t = tanh(Re(C z_t) + D x_t)

    z has H complex numbers, kept as the states `real` and `imaginary`. |λ| < 1 whatever ν is, and starts uniform by
    area on the ring `smallest` … `largest`; the angle starts on 0 … `phase`. Source: Orvieto, Smith, Gu, Fernando,
    Gulcehre, Pascanu & De 2023; they put a position-wise block behind each layer, here that is tanh. ∂z_t/∂z_{t−1} =
    diag(λ) at every step: linear, so that all steps can be computed at once.
    """

    state_names = ("hidden", "real", "imaginary")
    blocks = 3  # of weight_ih: Re B, Im B, D

    init: str = option("ring", "ring, or default (uniform)", choices=("ring", "default"))
    smallest: float = option(0.9, "least |λ| at the start", at_least=0, at_most=1, acts_if=RING)
    largest: float = option(0.999, "largest |λ| at the start", above=0, at_most=1, acts_if=RING)
    phase: float = option(0.314, "largest angle at the start, radians", above=0, at_most=2 * math.pi, acts_if=RING)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.largest < self.smallest:
            raise OptionError("largest", self.largest, f"must be at least smallest, {self.smallest:g}")

    def parameter_shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        H = hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (3 * H, input_size), "weight_hh": (H, 2 * H), "nu": (H,), "theta": (H,),
        }  # fmt: skip
        return shapes | ({"bias_ih": (3 * H,)} if bias else {})

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "ring":
            with torch.no_grad():
                low, high = self.smallest**2, self.largest**2
                square = torch.empty_like(w["nu"]).uniform_(low, high, generator=generator).clamp(1e-12, 1 - 1e-7)
                w["nu"].copy_((-0.5 * square.log()).log())
                angle = torch.empty_like(w["theta"]).uniform_(0, self.phase, generator=generator)
                w["theta"].copy_(angle.clamp(min=1e-6).log())

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        _, real, imaginary = state
        size, cosine, sine, scale = _eigenvalues(w)
        b_real, b_imaginary, through = projected.chunk(3, -1)
        new_real = size * (cosine * real - sine * imaginary) + scale * b_real
        new_imaginary = size * (sine * real + cosine * imaginary) + scale * b_imaginary
        return (_output(new_real, new_imaginary, through, w), new_real, new_imaginary), {}

    def scan(self, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
        size, cosine, sine, scale = _eigenvalues(w)
        b_real, b_imaginary, through = self.project(x, w).chunk(3, -1)
        eigenvalue = torch.complex(size * cosine, size * sine).expand_as(b_real)
        z = linear_scan(eigenvalue, torch.complex(scale * b_real, scale * b_imaginary), torch.complex(*state[1:]))
        outputs = _output(z.real, z.imag, through, w)
        return outputs, (outputs[-1], z[-1].real, z[-1].imag)


def _eigenvalues(w: Weights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """|λ|, cos and sin of its angle, γ: (H,) each."""
    size, angle = torch.exp(-torch.exp(w["nu"])), torch.exp(w["theta"])
    # −expm1(−2 exp ν) = 1 − |λ|² without cancellation near the circle.
    return size, angle.cos(), angle.sin(), torch.sqrt(-torch.expm1(-2 * torch.exp(w["nu"])))


def _output(real: Tensor, imaginary: Tensor, through: Tensor, w: Weights) -> Tensor:
    """tanh(Re(C z) + D x), with C's real and negative imaginary part side by side in `weight_hh`."""
    return torch.tanh(F.linear(torch.cat([real, imaginary], -1), w["weight_hh"]) + through)
