"""The autograd functions behind the fused backend: one node for a whole layer over time, forward and backward.

Dimensions: R replicas, T time steps, B sequences, I input features, H hidden units, G blocks, P of
them in each product (`kinds.py`).

Both functions have R as a leading dimension and tell `torch.func.vmap` to put its own dimension there, so that
stacked models run as one. Nothing is saved but what backward needs: activations and cell states.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from rnnlstm.recurrence.fused import portable
from rnnlstm.recurrence.fused.engine import engine_for
from rnnlstm.recurrence.fused.gradients import Rows
from rnnlstm.recurrence.fused.kinds import Kind


class Tape:
    """Keeps what a backward pass yields in passing: squared norms of ∂L/∂h_t and ∂L/∂c_t for each sequence, and of
    the gradient for each block of pre-activations (in the layout of `kinds.py`) over batch and units."""

    hidden: Tensor | None = None  #: float64 (R, T, B)
    cell: Tensor | None = None  #: float64 (R, T, B)
    blocks: Tensor | None = None  #: float64 (R, T, G)


class FusedForward(Function):
    """(x (R, T, B, I), w_x (R, P·H, I), w_h (R, P·H, H), b (R, G·H), h0, c0 (R, B, H)) →
    outputs (R, T, B, H), last cell state (R, B, H), activations (R, T, B, G·H), cell states (R, T, B, H)."""

    @staticmethod
    def forward(
        kind: Kind, tape: Tape | None, x: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor, h0: Tensor, c0: Tensor
    ) -> tuple[Tensor, ...]:
        out, gates, cells = _engine(kind, x).forward(kind, x, w_x, w_h, b, h0, c0)
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
        rows = None if tape is None else Rows.like(out, kind.blocks)
        gradients = _engine(kind, x).backward(
            kind, x, w_x, w_h, h0, c0, out, gates, cells, d_out, d_last, wants_x, rows
        )
        if tape is not None and rows is not None:
            tape.hidden, tape.cell, tape.blocks = rows.hidden, rows.cell, rows.blocks.sum(2) * kind.scale**2
        d_x, *others = gradients
        return (x.new_zeros(()).expand(x.shape) if d_x is None else d_x, *others)

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


# `Function.apply` asks for forward's signature at every call, which took as long as a small kernel; Python looks
# here first.
for _function in (FusedForward, FusedBackward):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010


def _engine(kind: Kind, x: Tensor) -> ModuleType:
    """The native kernel knows full precision only."""
    return portable if kind.rounded else engine_for(x)


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
