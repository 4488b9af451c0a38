"""The autograd functions behind the fused backend: one node for a whole layer over time, forward and backward.

Dimensions: R replicas, T time steps, B sequences, I input features, H hidden units, G blocks (`kinds.py`).

Both functions have R as a leading dimension and tell `torch.func.vmap` to put its own dimension there, so that
stacked models run as one. Nothing is saved but what backward needs: activations and cell states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from rnnlstm.recurrence.fused.engine import engine_for
from rnnlstm.recurrence.fused.kinds import Kind

#: Rows (time steps × sequences) of a chunk when weight gradients are summed.
ROWS_AT_ONCE = 256


class Tape:
    """Keeps what a backward pass yields in passing: squared norms of ∂L/∂h_t and ∂L/∂c_t for each sequence, and of
    the gradient for each block of pre-activations (in the layout of `kinds.py`) over batch and units."""

    hidden: Tensor | None = None  #: float64 (R, T, B)
    cell: Tensor | None = None  #: float64 (R, T, B)
    blocks: Tensor | None = None  #: float64 (R, T, G)


class FusedForward(Function):
    """(x (R, T, B, I), w_x (R, ·, I), w_h (R, ·, H), b (R, G·H), h0, c0 (R, B, H)) →
    outputs (R, T, B, H), last cell state (R, B, H), activations (R, T, B, G·H), cell states (R, T, B, H)."""

    @staticmethod
    def forward(
        kind: Kind, tape: Tape | None, x: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor, h0: Tensor, c0: Tensor
    ) -> tuple[Tensor, ...]:
        out, gates, cells = engine_for(x).forward(kind, x, w_x, w_h, b, h0, c0)
        last = cells[:, -1].clone() if kind.has_cell else torch.zeros_like(c0)
        return out, last, gates, cells

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kind, ctx.tape, x, w_x, w_h, _, h0, c0 = inputs
        out, _, gates, cells = output
        ctx.mark_non_differentiable(gates, cells)
        ctx.set_materialize_grads(False)  # or autograd would fill zeros as large as all activations
        ctx.save_for_backward(x, w_x, w_h, h0, c0, out, gates, cells)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_last: Tensor | None, *_: Any) -> tuple[Any, ...]:
        *_, c0, out, _, _ = ctx.saved_tensors
        d_out = torch.zeros_like(out) if d_out is None else d_out
        d_last = torch.zeros_like(c0) if d_last is None else d_last
        wants_x = ctx.needs_input_grad[2]
        gradients = FusedBackward.apply(ctx.kind, ctx.tape, wants_x, *ctx.saved_tensors, d_out, d_last)
        return (None, None, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], kind: Kind, tape: Tape | None, *tensors: Tensor) -> Any:
        return _over_replicas(FusedForward, info.batch_size, in_dims[2:], (kind, tape), tensors)


class FusedBackward(Function):
    """The gradients of `FusedForward`, and no further ones."""

    @staticmethod
    def forward(
        kind: Kind,
        tape: Tape | None,
        wants_x: bool,
        x: Tensor,
        w_x: Tensor,
        w_h: Tensor,
        h0: Tensor,
        c0: Tensor,
        out: Tensor,
        gates: Tensor,
        cells: Tensor,
        d_out: Tensor,
        d_last: Tensor,
    ) -> tuple[Tensor, ...]:
        R, T, B, H = out.shape
        rows = None if tape is None else out.new_empty(2, R, T, B, dtype=torch.float64)
        d, d_h0, d_c0 = engine_for(x).backward(kind, gates, w_h, h0, c0, out, cells, d_out, d_last, rows)
        if tape is not None and rows is not None:
            tape.hidden, tape.cell = rows
            tape.blocks = d.view(R, T, B, kind.blocks, H).double().square().sum((2, 4))
        d_flat = d.flatten(1, 2)  # (R, T·B, G·H)
        into_x, into_h = w_x.shape[1], w_h.shape[1]
        # xᵀ d: with the few columns of x on the left, several times quicker than dᵀ x.
        d_w_x = _products(x.new_zeros(R, x.shape[-1], into_x), x, d[..., :into_x]).mT
        d_w_h = _products(d[:, 0, :, -into_h:].mT.bmm(h0), d[:, 1:, :, -into_h:], out[:, :-1])
        d_x = d_flat[..., :into_x].bmm(w_x).view_as(x) if wants_x else torch.zeros_like(x)
        return d_x, d_w_x, d_w_h, d.sum((1, 2)), d_h0, d_c0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError("the fused backend has no second derivatives; use backend='reference' for them")

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], kind: Kind, tape: Tape | None, wants_x: bool, *tensors: Tensor
    ) -> Any:
        return _over_replicas(FusedBackward, info.batch_size, in_dims[3:], (kind, tape, wants_x), tensors)


def _products(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """total (R, M, N) += Σ over time steps and sequences of leftᵀ right, (R, T, B, M) and (R, T, B, N).

    Some hundred rows at a time, each chunk summed from zero and then added: the rounding error of one long sum is
    several times larger.
    """
    steps = max(1, ROWS_AT_ONCE // max(1, left.shape[2]))
    for start in range(0, left.shape[1], steps):
        chunk = slice(start, start + steps)
        total.baddbmm_(left[:, chunk].flatten(1, 2).mT, right[:, chunk].flatten(1, 2))
    return total


def _over_replicas(
    function: type[Function], size: int, in_dims: tuple[Any, ...], plain: tuple[Any, ...], tensors: tuple[Tensor, ...]
) -> tuple[Any, Any]:
    """Call `function` once for all `size` slices of vmap's dimension, merged into the replicas' own."""
    merged = []
    for tensor, dim in zip(tensors, in_dims, strict=True):
        stacked = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        merged.append(stacked.flatten(0, 1))
    results = function.apply(*plain, *merged)
    return tuple(result.unflatten(0, (size, -1)) for result in results), (0,) * len(results)
