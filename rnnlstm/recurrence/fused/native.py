"""The native CPU kernel behind the fused backend: `kernel/`, called on plain contiguous tensors."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from rnnlstm.recurrence.fused.build import load_kernel
from rnnlstm.recurrence.fused.gradients import Gradients, Rows
from rnnlstm.recurrence.fused.kinds import Kind
from rnnlstm.recurrence.fused.pool import empty

#: In the order of the C source's enumeration.
KINDS = ("rnn_tanh", "rnn_relu", "rnn_sigmoid", "rnn_identity", "lstm", "lstm_1997", "gru")


def available(dtype: torch.dtype) -> bool:
    """Whether the kernel runs here; builds it at the first call."""
    return load_kernel(dtype) is not None


def slices(R: int, B: int) -> int:
    """Slices of a replica's rows, by the shape alone: then results are the same for any number of threads.

    Slices of 16 rows, fewer to a batch below 32, keep up to 16 cores busy; with more replicas than that, slices of 48
    rows use each panel of weights a little better while it is cached.
    """
    for_cores = min(max(round(B / 16), min(2, B // 4)), math.ceil(16 / R))
    return max(1, round(B / 48), for_cores)


def forward(
    kind: Kind, x: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `portable.forward`."""
    R, T, B, I = x.shape  # noqa: E741
    H = h0.shape[-1]
    out = empty(x, R, T, B, H)
    gates = empty(x, R, T, B, 0 if kind.blocks == 1 else kind.blocks * H)
    cells = empty(x, R, T if kind.has_cell else 0, B, H)
    _call("forward", kind, (R, T, B, I, H), (x, w_x, w_h, b, h0, c0), (gates, out, cells))
    return out, gates, cells


def backward(
    kind: Kind,
    x: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    h0: Tensor,
    c0: Tensor,
    out: Tensor,
    gates: Tensor,
    cells: Tensor,
    d_out: Tensor,
    d_c: Tensor,
    wants_x: bool,
    rows: Rows | None = None,
) -> Gradients:
    """As `portable.backward`."""
    R, T, B, I = x.shape  # noqa: E741
    H = out.shape[-1]
    # Not by empty_like, which would take over the strides of what it is given.
    gradients = Gradients(
        empty(x, *x.shape) if wants_x else None,
        w_x.new_empty(w_x.shape),
        w_h.new_empty(w_h.shape),
        w_h.new_empty(R, kind.blocks * H),
        h0.new_empty(h0.shape),
        c0.new_empty(c0.shape),
    )
    inputs = (x, w_x, w_h, h0, c0, gates, out, cells, d_out, d_c)
    _call("backward", kind, (R, T, B, I, H), inputs, (*gradients, *((None,) * 3 if rows is None else rows)))
    return gradients


def _call(
    name: str, kind: Kind, sizes: tuple[int, ...], inputs: tuple[Tensor, ...], results: tuple[Tensor | None, ...]
) -> None:
    kernel = load_kernel(inputs[0].dtype)
    assert kernel is not None
    R, _, B, _, _ = sizes
    shape = (ctypes.c_int64 * 7)(KINDS.index(kind.name), *sizes, slices(R, B))
    held = [tensor.contiguous() for tensor in inputs]  # alive until the call is over
    pointers = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in (*held, *results)]
    if getattr(kernel, name)(shape, *pointers, ctypes.c_int(torch.get_num_threads())):
        raise MemoryError("the fused kernel could not get its working memory")
