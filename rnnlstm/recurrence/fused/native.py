"""The native CPU kernel behind the fused backend: `kernel/`, called on plain contiguous tensors."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rnnlstm.recurrence.fused.build import load_kernel
from rnnlstm.recurrence.fused.gradients import Gradients, Rows
from rnnlstm.recurrence.fused.kinds import KINDS, Kind
from rnnlstm.recurrence.fused.pool import aligned_bytes, empty
from rnnlstm.recurrence.lengths import Lengths

Named = dict[str, Tensor | None]
#: Those of the C source's enumeration.
KIND_NUMBERS = {kind.name: number for number, kind in enumerate(KINDS)}
VECTORS = 4  #: in a panel, the C source's NV
REFUSALS = {1: "a token number is outside the table", 2: "a scored position is outside the outputs",
            3: "a position is scored twice"}  # fmt: skip
NUMBERS = ("kind", "R", "T", "B", "I", "H", "V", "N", "slices", "threads")
TENSORS = (
    "lengths", "tokens", "scored", "x", "w_x", "w_h", "table", "h0", "c0", "gates", "out", "cells", "d_out", "d_last",
    "d_x", "d_w_x", "d_w_h", "d_table", "d_h0", "d_c0", "h_rows", "c_rows", "block_rows",
)  # fmt: skip


class _Call(ctypes.Structure):
    """The C source's `Call`: filled anew for each call, so that no pointer outlives its tensor."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in NUMBERS),
        *((name, ctypes.c_void_p) for name in (*TENSORS, "scratch")),
    )


class _Scratch(threading.local):
    """One workspace for each thread that calls the kernel, as large as its largest call so far. Nothing in it
    outlives a call."""

    memory = np.empty(0, np.uint8)

    def of(self, size: int) -> int:
        """The address of `size` bytes of it."""
        if self.memory.nbytes < size:
            self.memory = np.empty(0, np.uint8)  # not both at once
            self.memory = aligned_bytes(size)
        return self.memory.ctypes.data


_SCRATCH = _Scratch()


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
    kind: Kind,
    lengths: Lengths | None,
    tokens: Tensor | None,
    x: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    table: Tensor,
    h0: Tensor,
    c0: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `portable.forward`, but the activations are in the kernel's own order, which `activations` undoes."""
    R, T, B, I = x.shape  # noqa: E741
    H, S = h0.shape[-1], slices(R, B)
    out = empty(x, R, T, B, H)
    cells = empty(x, R, T if kind.has_cell else 0, B, H)
    gates = empty(x, *_gates_shape(kind, x.dtype, R, T, B, H, S))
    if lengths is not None:  # what the kernel skips is zero
        out.zero_(), cells.zero_()
    inputs: Named = {"x": x, "w_x": w_x, "w_h": w_h, "table": table, "h0": h0, "c0": c0, "tokens": tokens}
    sizes = (R, T, B, I, H, table.shape[1], 0, S)
    _check(kind, sizes, inputs)
    _call("forward", kind, lengths, sizes, inputs, {"gates": gates, "out": out, "cells": cells})
    return out, gates, cells


def backward(
    kind: Kind,
    lengths: Lengths | None,
    scored: Tensor | None,
    tokens: Tensor | None,
    V: int,
    x: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    h0: Tensor,
    c0: Tensor,
    out: Tensor,
    gates: Tensor,
    cells: Tensor,
    d_out: Tensor | None,
    d_c: Tensor | None,
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
        w_h.new_empty(R, V, kind.blocks * H),
        h0.new_empty(h0.shape),
        c0.new_empty(c0.shape),
    )
    inputs: Named = {"x": x, "w_x": w_x, "w_h": w_h, "h0": h0, "c0": c0, "gates": gates, "out": out, "cells": cells}
    inputs |= {"tokens": tokens, "scored": scored, "d_out": d_out, "d_last": d_c}
    results: Named = {f"d_{name}": value for name, value in gradients._asdict().items()}
    if rows is not None:
        results |= {"h_rows": rows.hidden, "c_rows": rows.cell, "block_rows": rows.blocks}
    sizes = (R, T, B, I, H, V, 0 if scored is None else scored.shape[1], gates.shape[1])
    _check(kind, sizes, inputs)
    _call("backward", kind, lengths, sizes, inputs, results)
    return gradients


def activations(kind: Kind, lengths: Lengths | None, gates: Tensor, B: int, H: int) -> Tensor:
    """(R, T, B, G·H): what `portable.forward` keeps, from the kernel's order; zero after a sequence's end."""
    R, S, T, panels, rows, _, lanes = gates.shape
    if not panels:
        return gates.new_empty(R, T, B, 0)
    sizes = [B * (part + 1) // S - B * part // S for part in range(S)]
    by_row = gates.permute(0, 2, 1, 4, 5, 3, 6).reshape(R, T, S, rows, VECTORS, panels * lanes)
    kept = torch.cat([by_row[:, :, part, :size] for part, size in enumerate(sizes)], 2)  # (R, T, B, …)
    kept = kept[:, :, :, : kind.blocks, :H].flatten(3)
    return kept if lengths is None else kept.masked_fill(~lengths.mask[..., None], 0)


def _check(kind: Kind, sizes: tuple[int, ...], inputs: Named) -> None:
    """Raises: RuntimeError for a tensor that is not of the shape and type that the kernel reads."""
    R, T, B, I, H, V, N, S = sizes  # noqa: E741
    real, P, G = inputs["x"].dtype, kind.product_blocks * H, kind.blocks * H  # type: ignore[union-attr]
    shapes = {
        "tokens": (R, T, B),
        "scored": (R, N),
        "x": (R, T, B, I),
        "w_x": (R, P, I),
        "w_h": (R, P, H),
        "table": (R, V, G),
        "h0": (R, B, H),
        "c0": (R, B, H),
        "gates": _gates_shape(kind, real, R, T, B, H, S),
        "out": (R, T, B, H),
        "cells": (R, T if kind.has_cell else 0, B, H),
        "d_out": (R, T, B, H) if inputs.get("scored") is None else (R, N, H),
        "d_last": (R, B, H),
    }
    for name, tensor in inputs.items():
        dtype = torch.int64 if name in ("tokens", "scored") else real
        if tensor is not None and (tensor.dtype != dtype or tensor.shape != shapes[name]):
            had, needed = f"{tensor.dtype} {tuple(tensor.shape)}", f"{dtype} {shapes[name]}"
            raise RuntimeError(f"the kernel's {name} must be {needed}, not {had}")


def squares(tensors: Sequence[Tensor]) -> Tensor | None:
    """float64 (P, R): sums of squares of the rows of P tensors (R, …), in one pass; None for what the kernel doesn't
    know."""
    first = tensors[0]
    if not all(
        t.device.type == "cpu" and t.dtype == first.dtype and t.is_contiguous() and type(t) is Tensor for t in tensors
    ):
        return None
    if first.dtype not in (torch.float32, torch.float64) or (kernel := load_kernel(first.dtype)) is None:
        return None
    P, R = len(tensors), len(first)
    sums = torch.empty(P, R, dtype=torch.float64)
    pointers = (ctypes.c_void_p * P)(*(_pointer(t) for t in tensors))
    sizes = (ctypes.c_int64 * P)(*(t.numel() // R for t in tensors))
    kernel.squares(ctypes.c_int64(P), ctypes.c_int64(R), pointers, sizes, ctypes.c_void_p(sums.data_ptr()))
    return sums


def _gates_shape(kind: Kind, dtype: torch.dtype, R: int, T: int, B: int, H: int, S: int) -> tuple[int, ...]:
    """Of the activations in the kernel's order, for S slices; an RNN keeps none."""
    kernel = load_kernel(dtype)
    assert kernel is not None
    lanes = int(kernel.vector_lanes())
    return R, S, T, 0 if kind.blocks == 1 else math.ceil(H / lanes), math.ceil(B / S), VECTORS, lanes


def _call(
    name: str,
    kind: Kind,
    lengths: Lengths | None,
    sizes: tuple[int, ...],
    inputs: Named,
    results: Named,
) -> None:
    """Raises: IndexError for token numbers or scored positions that are out of range, or scored twice."""
    kernel = load_kernel(results["out" if name == "forward" else "d_h0"].dtype)  # type: ignore[union-attr]
    assert kernel is not None
    each = None if lengths is None else lengths.each
    held = {key: tensor.contiguous() for key, tensor in {**inputs, "lengths": each}.items() if tensor is not None}
    if (kept := held.get("gates")) is not None and kept.data_ptr() % (kept.shape[-1] * kept.element_size()):
        held["gates"] = kept.clone()  # hooks on saved tensors may bring them back at any address
    pointers = {key: _pointer(tensor) for key, tensor in {**held, **results}.items()}  # `held` lives until the end
    call = _Call(KIND_NUMBERS[kind.name], *sizes, torch.get_num_threads(), **pointers)
    call.scratch = _SCRATCH.of(kernel.scratch_bytes(ctypes.byref(call), ctypes.c_int(name == "forward")))
    if refused := getattr(kernel, name)(ctypes.byref(call)):
        raise IndexError(REFUSALS[refused])


def _pointer(tensor: Tensor | None) -> int | None:
    """Raises: RuntimeError where the tensor's memory is not there, or not this machine's."""
    if tensor is None or not tensor.numel():
        return None
    end = (tensor.storage_offset() + tensor.numel()) * tensor.element_size()
    if tensor.device.type != "cpu" or tensor.untyped_storage().nbytes() < end:
        raise RuntimeError(
            f"a tensor of shape {tuple(tensor.shape)} on {tensor.device} has no memory to compute with"
        )
    return tensor.data_ptr()
