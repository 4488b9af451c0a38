"""The autograd functions behind the fused backend: one node for a whole layer over time, forward and backward.

Dimensions: R replicas, T time steps, B sequences, I input features, H hidden units, G blocks, P of
them in each product (`kinds.py`).

Both functions have R as a leading dimension and tell `torch.func.vmap` to put its own dimension there, so that
stacked models run as one. Nothing is saved but what backward needs: activations and cell states.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import Function

from rnnlstm.recurrence.fused import portable
from rnnlstm.recurrence.fused.engine import engine_for
from rnnlstm.recurrence.fused.gradients import Rows
from rnnlstm.recurrence.fused.kinds import Kind
from rnnlstm.recurrence.lengths import Lengths
from rnnlstm.recurrence.precision import autocast_on

WAY_OUT = "use backend='reference' for them"
PLAIN = 3  # arguments of FusedForward before the tensors: kind, lengths, tape


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
        kind: Kind,
        lengths: Lengths | None,
        tape: Tape | None,
        x: Tensor,
        w_x: Tensor,
        w_h: Tensor,
        b: Tensor,
        h0: Tensor,
        c0: Tensor,
    ) -> tuple[Tensor, ...]:
        with _no_autocast(x):
            out, gates, cells = _engine(kind, x).forward(kind, lengths, x, w_x, w_h, b, h0, c0)
        if not kind.has_cell:
            last = torch.zeros_like(c0)
        else:
            last = cells[:, -1].clone() if lengths is None else lengths.last(cells)
        return out, last, gates, cells

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kind, ctx.lengths, ctx.tape, x, w_x, w_h, _, h0, c0 = inputs
        out, _, gates, cells = output
        ctx.mark_non_differentiable(gates, cells)
        ctx.set_materialize_grads(False)  # or autograd would fill zeros as large as all activations
        ctx.save_for_backward(x, w_x, w_h, h0, c0, out, gates, cells)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_last: Tensor | None, *_: Any) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # once: checkpointing computes them again when they are asked for
        *_, c0, out, _, _ = saved
        d_out = torch.zeros_like(out) if d_out is None else d_out
        d_last = torch.zeros_like(c0) if d_last is None else d_last
        plain = (ctx.kind, ctx.lengths, ctx.tape, ctx.needs_input_grad[PLAIN])  # the last: whether x needs one
        return (*(None,) * PLAIN, *FusedBackward.apply(*plain, *saved, d_out, d_last))

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(f"the fused backend has no forward-mode derivatives; {WAY_OUT}")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _over_replicas(FusedForward, info.batch_size, in_dims, inputs, PLAIN)


class FusedBackward(Function):
    """The gradients of `FusedForward`, and no further ones."""

    @staticmethod
    def forward(
        kind: Kind,
        lengths: Lengths | None,
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
        _refuse_batched(d_out)
        rows = None if tape is None else Rows.like(out, kind.blocks)
        with _no_autocast(x):
            gradients = _engine(kind, x).backward(
                kind, lengths, x, w_x, w_h, h0, c0, out, gates, cells, d_out, d_last, wants_x, rows
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
        raise RuntimeError(f"the fused backend has no second derivatives; {WAY_OUT}")

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(f"the fused backend has no second derivatives; {WAY_OUT}")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _over_replicas(FusedBackward, info.batch_size, in_dims, inputs, PLAIN + 1)


# `Function.apply` asks for forward's signature at every call, which took as long as a small kernel; Python looks
# here first.
for _function in (FusedForward, FusedBackward):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010


def _engine(kind: Kind, x: Tensor) -> ModuleType:
    """The native kernel knows full precision only."""
    return portable if kind.rounded else engine_for(x)


def _refuse_batched(d_out: Tensor) -> None:
    """Raises: RuntimeError for gradients that PyTorch's older vmap has stacked (`is_grads_batched`, `vectorize`)."""
    try:
        d_out.untyped_storage()
    except NotImplementedError:
        if not is_functorch_wrapped_tensor(d_out):
            raise RuntimeError(f"the fused backend takes no batch of gradients; {WAY_OUT}") from None


def _no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """The loops compute in the precision of what they are given."""
    return torch.autocast(x.device.type, enabled=False) if autocast_on(x.device) else nullcontext()


def _over_replicas(
    function: type[Function], size: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...], plain: int
) -> tuple[Any, Any]:
    """Call `function` once for all `size` slices of vmap's dimension, merged into the replicas' own. The first
    `plain` inputs are no tensors."""
    merged = []
    for tensor, dim in zip(inputs[plain:], in_dims[plain:], strict=True):
        stacked = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        merged.append(stacked.flatten(0, 1))
    results = function.apply(*inputs[:plain], *merged)
    return tuple(result.unflatten(0, (size, -1)) for result in results), (0,) * len(results)
