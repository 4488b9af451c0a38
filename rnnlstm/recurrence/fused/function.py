"""The autograd functions behind the fused backend: one node for a whole layer over time, forward and backward.

Dimensions: R replicas, T time steps, B sequences, I input features, H hidden units, V rows of the table, N scored
rows, G blocks, P of them in each product (`kinds.py`).

Pre-activations begin with a row of a table (R, V, G·H): that of the step's token, or with V = 1 the bias.

Both functions have R as a leading dimension and tell `torch.func.vmap` to put its own dimension there, so that
stacked models run as one. Nothing is saved but what backward needs: activations and cell states.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import Function

from rnnlstm.recurrence.fused.engine import engine_for
from rnnlstm.recurrence.fused.gradients import Rows
from rnnlstm.recurrence.fused.kinds import Kind
from rnnlstm.recurrence.lengths import Lengths
from rnnlstm.recurrence.precision import autocast_on

WAY_OUT = "use backend='reference' for them"
PLAIN = 5  # arguments of FusedForward before the tensors that have gradients: kind, lengths, tape, scored, tokens


class Tape:
    """Keeps what a backward pass yields in passing: squared norms of ∂L/∂h_t and ∂L/∂c_t for each sequence, and of
    the gradient for each block of pre-activations (in the layout of `kinds.py`) over batch and units."""

    hidden: Tensor | None = None  #: float64 (R, T, B)
    cell: Tensor | None = None  #: float64 (R, T, B)
    blocks: Tensor | None = None  #: float64 (R, T, G)


class FusedForward(Function):
    """(tokens (R, T, B) or None, x (R, T, B, I), w_x (R, P·H, I), w_h (R, P·H, H), table (R, V, G·H),
    h0, c0 (R, B, H)) → outputs (R, T, B, H), last cell state (R, B, H), activations in the engine's order, cell
    states (R, T, B, H).

    With `scored` (R, N), places in (T·B), the first result is those outputs alone, (R, N, H), and all outputs,
    without a gradient, are the last; a place below 0 stands for nothing."""

    @staticmethod
    def forward(
        kind: Kind,
        lengths: Lengths | None,
        tape: Tape | None,
        scored: Tensor | None,
        tokens: Tensor | None,
        x: Tensor,
        w_x: Tensor,
        w_h: Tensor,
        table: Tensor,
        h0: Tensor,
        c0: Tensor,
    ) -> tuple[Tensor, ...]:
        with _no_autocast(x):
            out, gates, cells = _engine(kind, x).forward(kind, lengths, tokens, x, w_x, w_h, table, h0, c0)
        if not kind.has_cell:
            last = torch.zeros_like(c0)
        else:
            last = cells[:, -1].clone() if lengths is None else lengths.last(cells)
        if scored is None:
            return out, last, gates, cells
        return at_places(out, scored), last, gates, cells, out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.kind, ctx.lengths, ctx.tape, ctx.scored, ctx.tokens, x, w_x, w_h, table, h0, c0 = inputs
        ctx.V = table.shape[1]
        gates, cells = output[2:4]
        out = output[0 if ctx.scored is None else -1]
        ctx.mark_non_differentiable(gates, cells, *output[4:])
        ctx.set_materialize_grads(False)  # or autograd would fill zeros as large as all activations
        ctx.save_for_backward(x, w_x, w_h, h0, c0, out, gates, cells)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_last: Tensor | None, *_: Any) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # once: checkpointing computes them again when they are asked for
        wants_x = ctx.needs_input_grad[PLAIN]
        plain = (ctx.kind, ctx.lengths, ctx.tape, ctx.scored, ctx.tokens, ctx.V, wants_x)
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
        scored: Tensor | None,
        tokens: Tensor | None,
        V: int,
        wants_x: bool,
        x: Tensor,
        w_x: Tensor,
        w_h: Tensor,
        h0: Tensor,
        c0: Tensor,
        out: Tensor,
        gates: Tensor,
        cells: Tensor,
        d_out: Tensor | None,
        d_last: Tensor | None,
    ) -> tuple[Tensor, ...]:
        _refuse_batched(d_out, d_last)
        rows = None if tape is None else Rows.like(out, kind.blocks)
        with _no_autocast(x):
            gradients = _engine(kind, x).backward(
                kind, lengths, scored, tokens, V, x, w_x, w_h, h0, c0, out, gates, cells, d_out, d_last, wants_x, rows
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
        return _over_replicas(FusedBackward, info.batch_size, in_dims, inputs, PLAIN + 2)


class _AsGiven(inspect.Signature):
    """`Function.apply` binds its arguments to forward's signature at every call, which takes as long as a small
    kernel. Here all are given by position, so there is nothing to bind."""

    def bind(self, *args: Any, **_: Any) -> Any:
        return SimpleNamespace(args=args, kwargs={}, apply_defaults=lambda: None)


for _function in (FusedForward, FusedBackward):
    setattr(_function.forward, "__signature__", _AsGiven())  # noqa: B010


def _engine(kind: Kind, x: Tensor) -> ModuleType:
    return engine_for(x, kind.precision)


def at_places(values: Tensor, places: Tensor) -> Tensor:
    """(R, N, …): what `values` (R, T, B, …) has at `places` (R, N) in (T·B); at a place below 0, anything."""
    R, T, B = values.shape[:3]
    rows = places.clamp(min=0) + torch.arange(R, device=places.device)[:, None] * (T * B)
    return values.flatten(0, 2).index_select(0, rows.flatten()).unflatten(0, (R, -1))


def _refuse_batched(*gradients: Tensor | None) -> None:
    """Raises: RuntimeError for gradients that PyTorch's older vmap has stacked (`is_grads_batched`, `vectorize`)."""
    for gradient in gradients:
        if gradient is None:
            continue
        try:
            gradient.untyped_storage()
        except NotImplementedError:
            if not is_functorch_wrapped_tensor(gradient):
                raise RuntimeError(f"the fused backend takes no batch of gradients; {WAY_OUT}") from None


def _no_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """The loops compute in the precision of what they are given."""
    return torch.autocast(x.device.type, enabled=False) if autocast_on(x.device) else nullcontext()


def _over_replicas(
    function: type[Function], size: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...], plain: int
) -> tuple[Any, Any]:
    """Call `function` once for all `size` slices of vmap's dimension, merged into the replicas' own. The first
    `plain` inputs are the same for all."""
    merged: list[Tensor | None] = []
    for tensor, dim in zip(inputs[plain:], in_dims[plain:], strict=True):
        if tensor is None:
            merged.append(None)
            continue
        stacked = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        merged.append(stacked.flatten(0, 1))
    results = function.apply(*inputs[:plain], *merged)
    return tuple(result.unflatten(0, (size, -1)) for result in results), (0,) * len(results)
