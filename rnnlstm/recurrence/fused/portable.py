"""The fused loops over time in plain PyTorch: in place, on preallocated buffers, for any device and precision.

Dimensions: R replicas, T time steps, B sequences, I inputs, H hidden units, G blocks (`kinds.py`). `forward` keeps
the activations; `backward` turns gradients for the outputs into gradients for the pre-activations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnnlstm.recurrence.fused.kinds import Kind

RNN_ACTIVATIONS = {
    "rnn_tanh": torch.tanh_,
    "rnn_relu": torch.relu_,
    "rnn_sigmoid": torch.sigmoid_,
    "rnn_identity": lambda a: a,
}


def forward(
    kind: Kind, x: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x (R, T, B, I), w_x (R, ·, I), w_h (R, ·, H), b (R, G·H), initial h, c (R, B, H) → outputs (R, T, B, H),
    activations (R, T, B, G·H), cell states (R, T, B, H), of no time step where there is none."""
    R, T, B, _ = x.shape
    H = h.shape[-1]
    gates = b.new_empty(R, T, B, b.shape[-1]).copy_(b[:, None, None])
    gates.flatten(1, 2)[..., : w_x.shape[1]].baddbmm_(x.flatten(1, 2), w_x.mT)
    out = x.new_empty(R, T, B, H)
    cells = x.new_empty(R, T if kind.has_cell else 0, B, H)
    w = w_h.mT  # (R, H, ·)
    for t in range(T):
        a = gates[:, t]
        a[..., -w.shape[-1] :].baddbmm_(h, w)
        if kind.name == "lstm":
            a[..., : 2 * H].sigmoid_(), a[..., 2 * H : 3 * H].tanh_(), a[..., 3 * H :].sigmoid_()
            i, f, g, o = _blocks(a, H)
            c = torch.mul(f, c, out=cells[:, t]).addcmul_(i, g)
            h = torch.tanh(c, out=out[:, t]).mul_(o)
        elif kind.name == "gru":
            a[..., H : 3 * H].sigmoid_()
            n, r, z, n_h = _blocks(a, H)
            n.addcmul_(r, n_h).tanh_()
            h = torch.lerp(n, h, z, out=out[:, t])
        else:
            h = out[:, t].copy_(RNN_ACTIVATIONS[kind.name](a))
    return out, gates, cells


def backward(
    kind: Kind,
    gates: Tensor,
    w_h: Tensor,
    h0: Tensor,
    c0: Tensor,
    out: Tensor,
    cells: Tensor,
    d_out: Tensor,
    d_c: Tensor,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for the pre-activations (R, T, B, G·H), for h0 and for c0. `d_out` (R, T, B, H) reaches the outputs
    directly, `d_c` (R, B, H) the last cell state. `rows`, float64 (2, R, T, B), is filled with the squared norms of
    the rows of ∂L/∂h_t and ∂L/∂c_t."""
    T, H = out.shape[1], out.shape[3]
    d_gates = torch.empty_like(gates)
    if rows is not None:
        rows.zero_()
    d_h = torch.zeros_like(h0)  # through later steps
    for t in range(T - 1, -1, -1):
        a, d = gates[:, t], d_gates[:, t]
        d_h = d_h + d_out[:, t]
        if rows is not None:
            rows[0, :, t] = d_h.double().square().sum(-1)
        h_before = out[:, t - 1] if t else h0
        if kind.name == "lstm":
            d_c, through = _lstm_step(a, d, d_h, d_c, cells[:, t], cells[:, t - 1] if t else c0)
            if rows is not None:
                rows[1, :, t] = through.double().square().sum(-1)
            d_h = d.bmm(w_h)
        elif kind.name == "gru":
            kept = _gru_step(a, d, d_h, h_before)
            d_h = torch.baddbmm(kept, d[..., H:], w_h)
        else:
            torch.mul(d_h, _slope(kind.name, a), out=d)
            d_h = d.bmm(w_h)
    return d_gates, d_h, d_c


def _blocks(a: Tensor, H: int) -> list[Tensor]:
    """The blocks of H columns. (Not by `chunk`: autograd forbids changes in place to what returns several views.)"""
    return [a[..., start : start + H] for start in range(0, a.shape[-1], H)]


def _slope(name: str, h: Tensor) -> Tensor:
    """φ'(a) from h = φ(a)."""
    if name == "rnn_tanh":
        return 1 - h * h
    if name == "rnn_sigmoid":
        return h * (1 - h)
    return (h > 0).to(h.dtype) if name == "rnn_relu" else torch.ones_like(h)


def _lstm_step(a: Tensor, d: Tensor, d_h: Tensor, d_c: Tensor, c: Tensor, c_before: Tensor) -> tuple[Tensor, Tensor]:
    """Fill d with the gradients for the pre-activations of i, f, g, o; returns ∂L/∂c_{t−1} and ∂L/∂c_t."""
    i, f, g, o = _blocks(a, c.shape[-1])
    tanh_c = c.tanh()
    d_c = torch.addcmul(d_c, d_h * o, 1 - tanh_c * tanh_c)
    d_i, d_f, d_g, d_o = _blocks(d, c.shape[-1])
    torch.mul(d_c * g, i * (1 - i), out=d_i)
    torch.mul(d_c * c_before, f * (1 - f), out=d_f)
    torch.mul(d_c * i, 1 - g * g, out=d_g)
    torch.mul(d_h * tanh_c, o * (1 - o), out=d_o)
    return d_c * f, d_c


def _gru_step(a: Tensor, d: Tensor, d_h: Tensor, h_before: Tensor) -> Tensor:
    """Fill d with the gradients for n_x, r, z, n_h; returns what reaches h_{t−1} by being kept, z ⊙ ∂L/∂h_t."""
    n, r, z, n_h = _blocks(a, d_h.shape[-1])
    d_n, d_r, d_z, d_n_h = _blocks(d, d_h.shape[-1])
    torch.mul(d_h * (1 - z), 1 - n * n, out=d_n)
    torch.mul(d_n * n_h, r * (1 - r), out=d_r)
    torch.mul(d_h * (h_before - n), z * (1 - z), out=d_z)
    torch.mul(d_n, r, out=d_n_h)
    return d_h * z
