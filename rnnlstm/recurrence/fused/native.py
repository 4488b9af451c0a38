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
from rnnlstm.recurrence.lengths import Lengths

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
    kind: Kind, lengths: Lengths | None, x: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `portable.forward`."""
    R, T, B, I = x.shape  # noqa: E741
    H = h0.shape[-1]
    out = empty(x, R, T, B, H)
    gates = empty(x, R, T, B, 0 if kind.blocks == 1 else kind.blocks * H)
    cells = empty(x, R, T if kind.has_cell else 0, B, H)
    if lengths is not None:  # what the kernel skips is zero
        for result in (out, gates, cells):
            result.zero_()
    _call("forward", kind, lengths, (R, T, B, I, H), (x, w_x, w_h, b, h0, c0), (gates, out, cells))
    return out, gates, cells


def backward(
    kind: Kind,
    lengths: Lengths | None,
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
        (empty(x, *x.shape) if lengths is None else x.new_zeros(x.shape)) if wants_x else None,
        w_x.new_empty(w_x.shape),
        w_h.new_empty(w_h.shape),
        w_h.new_empty(R, kind.blocks * H),
        h0.new_empty(h0.shape),
        c0.new_empty(c0.shape),
    )
    inputs = (x, w_x, w_h, h0, c0, gates, out, cells, d_out, d_c)
    results = (*gradients, *((None,) * 3 if rows is None else rows))
    _call("backward", kind, lengths, (R, T, B, I, H), inputs, results)
    return gradients


def _call(
    name: str,
    kind: Kind,
    lengths: Lengths | None,
    sizes: tuple[int, ...],
    inputs: tuple[Tensor, ...],
    results: tuple[Tensor | None, ...],
) -> None:
    kernel = load_kernel(inputs[0].dtype)
    assert kernel is not None
    R, _, B, _, _ = sizes
    shape = (ctypes.c_int64 * 7)(KINDS.index(kind.name), *sizes, slices(R, B))
    held = [tensor.contiguous() for tensor in inputs]  # alive until the call is over
    each = None if lengths is None else lengths.each.contiguous()
    pointers = [_pointer(tensor) for tensor in (each, *held, *results)]
    if getattr(kernel, name)(shape, *pointers, ctypes.c_int(torch.get_num_threads())):
        raise MemoryError("the fused kernel could not get its working memory")


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Raises: RuntimeError where the tensor's memory is not there, or not this machine's."""
    if tensor is None or not tensor.numel():
        return ctypes.c_void_p(None)
    end = (tensor.storage_offset() + tensor.numel()) * tensor.element_size()
    if tensor.device.type != "cpu" or tensor.untyped_storage().nbytes() < end:
        raise RuntimeError(
            f"a tensor of shape {tuple(tensor.shape)} on {tensor.device} has no memory to compute with"
        )
    return ctypes.c_void_p(tensor.data_ptr())
