"""The native CPU kernel behind the fused backend: `kernels.c`, called on plain contiguous tensors."""

from __future__ import annotations

import ctypes
import threading

import torch
from torch import Tensor

from rnnlstm.recurrence.fused.build import load_kernel
from rnnlstm.recurrence.fused.kinds import Kind

#: In the order of the C source's enumeration.
KINDS = ("rnn_tanh", "rnn_relu", "rnn_sigmoid", "rnn_identity", "lstm", "gru")
#: Rows that one thread takes through time together: enough to use a panel of weights well while it is cached.
ROWS = 33


def available(dtype: torch.dtype) -> bool:
    """Whether the kernel runs here; builds it at the first call."""
    return load_kernel(dtype) is not None


def slices(R: int, B: int) -> int:
    """Slices of a replica's rows, by the shape alone: then results are the same for any number of threads."""
    by_rows = round(B / ROWS)
    return max(1, by_rows, min(2, B // 4) if R == 1 else 1)


def forward(
    kind: Kind, x: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `portable.forward`."""
    R, T, B, I = x.shape  # noqa: E741
    H = h0.shape[-1]
    gates, out = x.new_empty(R, T, B, kind.blocks * H), x.new_empty(R, T, B, H)
    cells = x.new_empty(R, T if kind.has_cell else 0, B, H)
    _call("forward", kind, (R, T, B, I, H), (x, w_x, w_h, b, h0, c0), (gates, out, cells))
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
    """As `portable.backward`."""
    R, T, B, H = out.shape
    d_gates = _workspace(gates)
    # Not by empty_like, which would take over the strides of what it is given.
    d_h0, d_c0 = h0.new_empty(h0.shape), c0.new_empty(c0.shape)
    inputs = (w_h, h0, c0, gates, out, cells, d_out, d_c)
    results = (d_gates, d_h0, d_c0, *((None, None) if rows is None else rows.unbind(0)))
    _call("backward", kind, (R, T, B, 0, H), inputs, results)
    return d_gates, d_h0, d_c0


_LOCAL = threading.local()


def _workspace(like: Tensor) -> Tensor:
    """A buffer for the gradients of the pre-activations, the same at each call of a thread: it is used up before the
    backward function returns, and fresh memory of this size costs as much as a tenth of the pass in page faults."""
    held: Tensor | None = getattr(_LOCAL, "buffer", None)
    if held is None or held.dtype != like.dtype or held.numel() < like.numel():
        held = _LOCAL.buffer = like.new_empty(like.numel())
    return held[: like.numel()].view(like.shape)


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
