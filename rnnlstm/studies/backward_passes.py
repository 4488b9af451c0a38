"""The tanh RNN with another backward pass: its forward pass is the project's own, its gradient is given or taken.

Only a loss at the last step is possible. With g_t = ∂L/∂h_t, a row for each sequence, and D_t = diag(1 − h_t²), BPTT
is g_{t−1} = g_t D_t W_hh. It is computed as a direction ĝ_t = g_t/‖g_t‖ and a norm:

    v = ĝ_t D_t W_hh,   r_t = ‖v‖,   ĝ_{t−1} = v/r_t,   ‖g_{t−1}‖ = ‖g_t‖ r_t,   ∂L/∂a_t = ‖g_t‖ ĝ_t D_t

so that no direction underflows, however small the norm. Methods:

- `plain`: this.
- `rescaled`: ‖g_t‖ is ‖g_{T−1}‖ at every step back, so that ∂L/∂a_t = ‖g_{T−1}‖ ĝ_t D_t.
- `misdirected`: `rescaled`, but ĝ_{T−2} is that of the sequence before it in the batch: as much gradient, of a
  sequence with another answer. A control.
- `regularised`: `plain`, and λ ∂⁺Ω/∂W_hh is added to W_hh's gradient. Ω is the mean of (r_t − 1)² over steps and
  sequences. ∂⁺ is the immediate derivative, which takes h and g as constants: the mean of
  2 (r_t − 1) (ĝ_t D_t)ᵀ ĝ_{t−1}.

Source of Ω: Pascanu, Mikolov & Bengio 2013, equations 9 and 10 (from memory), where it is a sum over steps. Their
code (github.com/pascanur/trainingRNNs, RNN.py) takes the mean, has λ = 2 by default, uses the ratio of squared norms,
and leaves out steps with ‖g_t‖² < 1e-20. Here only steps with g_t = 0 are left out.

Dimensions: R replicas, T time steps, B sequences, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rnnlstm.models import Replicas

METHODS = ("plain", "rescaled", "misdirected", "regularised")


class GivenGradient(Replicas):
    """`model`'s replicas of a tanh RNN with one layer, whose weights it shares; training uses the backward pass of
    `method`. `one`, which evaluates, is the project's own."""

    def __init__(self, model: Replicas, method: str, weight: float = 0.0) -> None:
        """`weight`: λ. Raises: ValueError for another network or method."""
        recurrence = model.shell.recurrence
        if getattr(recurrence.cell, "nonlinearity", None) != "tanh" or recurrence.num_layers > 1:
            raise ValueError("only the tanh RNN with one layer has other backward passes")
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
        self.__dict__.update(vars(model))
        self.method, self.weight = method, weight

    def __call__(
        self, inputs: Sequence[Tensor], noise: Any = None, scored: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Tokens (T, B) of each replica → its answers at the last step, (B, O); no others may be `scored`."""
        T, B = inputs[0].shape
        last = torch.arange((T - 1) * B, T * B)
        if scored is None or not all(torch.equal(rows, last) for rows in scored):
            raise ValueError("other backward passes need a loss at the last step alone")
        h = LastState.apply(
            self._projected(torch.stack(list(inputs))), self._of("weight_hh"), self.method, self.weight
        )
        w, b = self.parameters["readout.weight"], self.parameters["readout.bias"]
        return list(torch.baddbmm(b.unsqueeze(1), h, w.mT).unbind(0))

    def _projected(self, tokens: Tensor) -> Tensor:
        """W_ih x_t + b_ih + b_hh, (R, T, B, H): rows of a table of all tokens."""
        bias = (self._of("bias_ih") + self._of("bias_hh")).unsqueeze(1)
        table = torch.baddbmm(bias, self.parameters["embedding.weight"], self._of("weight_ih").mT)  # (R, V, H)
        R, V = table.shape[:2]
        return F.embedding(tokens + V * torch.arange(R).view(R, 1, 1), table.flatten(0, 1))

    def _of(self, name: str) -> Tensor:
        return self.parameters[f"recurrence.{name}_l0"]


class LastState(Function):
    """(projected (R, T, B, H), W_hh (R, H, H), method, λ) → h_{T−1} (R, B, H) from h_{−1} = 0."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, w: Tensor, method: str, weight: float) -> Tensor:
        hs = torch.empty_like(projected)
        torch.tanh(projected[:, 0], out=hs[:, 0])
        for t in range(1, projected.shape[1]):
            torch.baddbmm(projected[:, t], hs[:, t - 1], w.mT, out=hs[:, t]).tanh_()
        ctx.save_for_backward(hs, w)
        ctx.method, ctx.weight = method, weight
        return hs[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hs, w = ctx.saved_tensors
        passed = passed_back(hs, w, g, ctx.method == "misdirected")
        given = ctx.method in ("rescaled", "misdirected")
        norms = passed["norms"][:, -1:] if given else passed["norms"]  # (R, T or 1, B, 1)
        d_a = passed["deltas"] * norms
        d_w = _outer(d_a[:, 1:], hs[:, :-1])
        if ctx.method == "regularised":
            d_w = d_w + ctx.weight * omega_gradient(passed)
        return d_a, d_w, None, None


def passed_back(hs: Tensor, w: Tensor, g: Tensor, misdirected: bool = False) -> Mapping[str, Tensor]:
    """Backpropagation of `g` = ∂L/∂h_{T−1} (R, B, H) through states `hs` (R, T, B, H), by name: `units` ĝ_t and
    `deltas` ĝ_t D_t (R, T, B, H), `norms` ‖g_t‖ (R, T, B, 1), and `ratios` r_t (R, T, B, 1), that of the first step
    being 1. `misdirected`: each sequence passes ĝ_{T−2} on to the next."""
    R, T, B, _ = hs.shape
    units, deltas, slopes = torch.empty_like(hs), torch.empty_like(hs), 1 - hs.square()
    norms, ratios = hs.new_empty(R, T, B, 1), hs.new_ones(R, T, B, 1)
    norms[:, -1] = g.norm(dim=-1, keepdim=True)
    units[:, -1] = g / _never_zero(norms[:, -1])
    for t in range(T - 1, -1, -1):
        torch.mul(units[:, t], slopes[:, t], out=deltas[:, t])
        if t > 0:
            v = torch.bmm(deltas[:, t], w)
            torch.linalg.vector_norm(v, dim=-1, keepdim=True, out=ratios[:, t])
            torch.div(v, _never_zero(ratios[:, t]), out=units[:, t - 1])
            torch.mul(norms[:, t], ratios[:, t], out=norms[:, t - 1])
            if misdirected and t == T - 1:
                units[:, t - 1] = units[:, t - 1].roll(1, dims=1)
    return {"units": units, "deltas": deltas, "norms": norms, "ratios": ratios}


def omega(passed: Mapping[str, Tensor]) -> Tensor:
    """Ω of each replica, (R,)."""
    there = _there(passed)
    return ((passed["ratios"][:, 1:] - 1).square() * there).sum((1, 2, 3)) / there.sum((1, 2, 3)).clamp(min=1)


def omega_gradient(passed: Mapping[str, Tensor]) -> Tensor:
    """∂⁺Ω/∂W_hh, (R, H, H)."""
    there = _there(passed)
    factors = 2 * (passed["ratios"][:, 1:] - 1) * there / there.sum((1, 2, 3), keepdim=True).clamp(min=1)
    return _outer(passed["deltas"][:, 1:] * factors, passed["units"][:, :-1])


def _there(passed: Mapping[str, Tensor]) -> Tensor:
    """1 where g_t is not 0, of t = 1 … T−1, (R, T−1, B, 1). Exactly 0 it is behind units that are saturated to ±1."""
    units = passed["units"][:, 1:]
    return units.any(-1, keepdim=True).to(units.dtype)


def _never_zero(norms: Tensor) -> Tensor:
    """What a vector is divided by: 0 stays 0."""
    return norms.clamp(min=torch.finfo(norms.dtype).tiny)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Σ over steps and sequences of leftᵀ right, (R, H, H)."""
    return left.flatten(1, 2).mT.bmm(right.flatten(1, 2))
