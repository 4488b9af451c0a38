"""The fused loops over time as Triton kernels, for a GPU: all time steps of all replicas in one launch.

Dimensions and arguments as in `portable.py`. A program takes a tile of sequences of one replica through time; it
meets no other, so a replica's result does not depend on those beside it, and nothing is summed in an order that
changes.

With few units, *resident*: the recurrent weights are read once and stay on the chip, as do h and c. With more, a step
goes over blocks of units, and reads the weights again, from the cache that all programs share, and the states that
its own program has written. `tiles` says which of the two.

What needs no loop over time is left to large products by PyTorch: the input's before, the weights' gradients after.
These read (P+1)·T·B·H numbers once more. Summed on the chip instead, each program would hold P·H² sums beside as many
weights, which fill it already, and they would have to be added up in a fixed order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from rnnlstm.recurrence.fused import portable
from rnnlstm.recurrence.fused.gradients import Gradients, Rows
from rnnlstm.recurrence.fused.kinds import Kind
from rnnlstm.recurrence.lengths import Lengths

#: Bytes of weights that may stay on the chip, so that all that a program keeps there is below the 166,912 bytes that
#: sm_80 has for one: the backward pass keeps as much again beside them.
KEPT = {"forward": 140_000, "backward": 70_000}
#: Units up to which float32 weights may, forward: beyond, the compiler runs out of registers.
MOST_UNITS = 64


class Tiles(NamedTuple):
    """How a program is laid out."""

    rows: int  #: sequences of a program; a product needs 16, and those beyond the batch are empty
    units: int  #: of a block; all of them, rounded up to a power of two, where weights are resident
    resident: bool
    warps: int


def tiles(kind: Kind, H: int, way: str, norms: bool = False) -> Tiles:
    """Forward or backward, by the shape alone, so that a run resumes to the same bits; `norms`: the pass of an
    instrument, which yields them."""
    units = max(16, triton.next_power_of_2(H))
    fits = kind.product_blocks * units**2 * (2 if kind.precision == "bfloat16" else 4) <= KEPT[way]
    if fits and (kind.precision != "full" or way == "backward" or units <= MOST_UNITS):
        spills = norms and kind.has_cell and kind.precision == "full"  # two registers of eight warps, for sm_80
        return Tiles(16, units, True, 4 if units <= 32 or spills else 8)
    return Tiles(16, 64, False, 8 if kind.precision != "full" or units <= 128 else 16)


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def tanh(x):
    size = tl.abs(x)
    small = tl.exp(-2 * size)
    found = (1 - small) / (1 + small)
    if x.dtype == tl.float32:
        # Near zero that difference has no digits left: there Cephes' polynomial, right to the last place or two.
        s = x * x
        p = -5.70498872745e-3 * s + 2.06390887954e-2
        p = p * s - 5.37397155531e-2
        p = p * s + 1.33314422036e-1
        p = p * s - 3.33332819422e-1
        found = tl.where(size < 0.625, size + size * s * p, found)
    return tl.where(x < 0, -found, found)


@triton.jit
def nonlinearity(a, KIND: tl.constexpr):
    if KIND == "rnn_tanh":
        a = tanh(a)
    elif KIND == "rnn_relu":
        a = tl.where(a < 0, 0.0, a)  # what is no number stays none
    elif KIND == "rnn_sigmoid":
        a = sigmoid(a)
    return a


@triton.jit
def weights(w, block: tl.constexpr, j, k, H: tl.constexpr, FACTOR: tl.constexpr, HELD: tl.constexpr):
    """W_block[j, k], zero outside."""
    inside = (j < H) & (k < H)
    return tl.load(w + block * H * H + j * H + k, mask=inside, other=0.0).to(FACTOR).to(HELD)


@triton.jit
def all_weights(w, j, k, H: tl.constexpr, P: tl.constexpr, FACTOR: tl.constexpr, HELD: tl.constexpr):
    """The P blocks, and the last again for those that there are not."""
    w0 = weights(w, 0, j, k, H, FACTOR, HELD)
    w1, w2, w3 = w0, w0, w0
    if P > 1:
        w1 = weights(w, 1, j, k, H, FACTOR, HELD)
        w2 = weights(w, 2, j, k, H, FACTOR, HELD)
    if P > 3:
        w3 = weights(w, 3, j, k, H, FACTOR, HELD)
    return w0, w1, w2, w3


@triton.jit
def product(h, w, FACTOR: tl.constexpr, HELD: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr):
    return tl.dot(h.to(FACTOR).to(HELD), w, input_precision=PRECISION, out_dtype=SUM)


@triton.jit
def add_products(a0, a1, a2, a3, h, w0, w1, w2, w3, P: tl.constexpr, FACTOR: tl.constexpr, HELD: tl.constexpr,
                 SUM: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """a_p + h W_p, for each of the P products."""
    a0 += product(h, w0, FACTOR, HELD, SUM, PRECISION)
    if P > 1:
        a1 += product(h, w1, FACTOR, HELD, SUM, PRECISION)
        a2 += product(h, w2, FACTOR, HELD, SUM, PRECISION)
    if P > 3:
        a3 += product(h, w3, FACTOR, HELD, SUM, PRECISION)
    return a0, a1, a2, a3


@triton.jit
def open_gates(g, inside, a0, a1, a2, a3, h, c, H: tl.constexpr, KIND: tl.constexpr):
    """From the products of one block of units to its h and c. At `g` lie the pre-activations so far, and then the
    activations."""
    if KIND == "lstm":
        i = sigmoid(a0 + tl.load(g, mask=inside, other=0.0))
        f = sigmoid(a1 + tl.load(g + H, mask=inside, other=0.0))
        n = tanh(a2 + tl.load(g + 2 * H, mask=inside, other=0.0))
        o = sigmoid(a3 + tl.load(g + 3 * H, mask=inside, other=0.0))
        c = f * c + i * n
        h = tanh(c) * o
        tl.store(g, i, mask=inside)
        tl.store(g + H, f, mask=inside)
        tl.store(g + 2 * H, n, mask=inside)
        tl.store(g + 3 * H, o, mask=inside)
    elif KIND == "lstm_1997":
        i = sigmoid(a0 + tl.load(g, mask=inside, other=0.0))
        n = tanh(a1 + tl.load(g + H, mask=inside, other=0.0))
        o = sigmoid(a2 + tl.load(g + 2 * H, mask=inside, other=0.0))
        c = c + i * n
        h = tanh(c) * o
        tl.store(g, i, mask=inside)
        tl.store(g + H, n, mask=inside)
        tl.store(g + 2 * H, o, mask=inside)
    elif KIND == "gru":
        r = sigmoid(a0 + tl.load(g + H, mask=inside, other=0.0))
        z = sigmoid(a1 + tl.load(g + 2 * H, mask=inside, other=0.0))
        n_h = a2 + tl.load(g + 3 * H, mask=inside, other=0.0)
        n = tanh(tl.load(g, mask=inside, other=0.0) + r * n_h)
        h = n + z * (h - n)
        tl.store(g, n, mask=inside)
        tl.store(g + H, r, mask=inside)
        tl.store(g + 2 * H, z, mask=inside)
        tl.store(g + 3 * H, n_h, mask=inside)
    else:
        h = nonlinearity(a0 + tl.load(g, mask=inside, other=0.0), KIND)
    return h, c


@triton.jit
def forward_kernel(gates, out, cells, w_h, h0, c0, T, B, H: tl.constexpr, KIND: tl.constexpr, G: tl.constexpr,
                   P: tl.constexpr, CELL: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr,
                   RESIDENT: tl.constexpr, FACTOR: tl.constexpr, HELD: tl.constexpr, SUM: tl.constexpr,
                   PRECISION: tl.constexpr):  # fmt: skip
    replica = tl.program_id(0).to(tl.int64)
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    unit = tl.arange(0, UNITS)
    w = w_h + replica * P * H * H
    h_before, c_before = h0 + replica * B * H, c0 + replica * B * H
    gates, out, cells = gates + replica * T * B * G * H, out + replica * T * B * H, cells + replica * T * B * H
    nothing = tl.zeros((ROWS, UNITS), SUM)
    if RESIDENT:
        inside, at = (row < B) & (unit[None, :] < H), row * H + unit[None, :]
        w0, w1, w2, w3 = all_weights(w, unit[None, :], unit[:, None], H, P, FACTOR, HELD)
        h = tl.load(h_before + at, mask=inside, other=0.0)
        c = tl.load(c_before + at, mask=inside, other=0.0)
    for _ in range(T):
        if RESIDENT:
            a0, a1, a2, a3 = add_products(
                nothing, nothing, nothing, nothing, h, w0, w1, w2, w3, P, FACTOR, HELD, SUM, PRECISION
            )
            h, c = open_gates(gates + row * G * H + unit[None, :], inside, a0, a1, a2, a3, h, c, H, KIND)
            tl.store(out + at, h, mask=inside)
            if CELL:
                tl.store(cells + at, c, mask=inside)
        else:
            for first in range(0, H, UNITS):
                here = first + unit[None, :]
                inside, at = (row < B) & (here < H), row * H + here
                a0, a1, a2, a3 = nothing, nothing, nothing, nothing
                for start in range(0, H, UNITS):
                    there = start + unit
                    v0, v1, v2, v3 = all_weights(w, here, there[:, None], H, P, FACTOR, HELD)
                    known = (row < B) & (there[None, :] < H)
                    part = tl.load(h_before + row * H + there[None, :], mask=known, other=0.0)
                    a0, a1, a2, a3 = add_products(
                        a0, a1, a2, a3, part, v0, v1, v2, v3, P, FACTOR, HELD, SUM, PRECISION
                    )
                h = tl.load(h_before + at, mask=inside, other=0.0)
                c = nothing
                if CELL:
                    c = tl.load(c_before + at, mask=inside, other=0.0)
                h, c = open_gates(gates + row * G * H + here, inside, a0, a1, a2, a3, h, c, H, KIND)
                tl.store(out + at, h, mask=inside)
                if CELL:
                    tl.store(cells + at, c, mask=inside)
            tl.debug_barrier()  # what one thread has written, others read at the next step
        h_before = out
        if CELL:
            c_before = cells
            cells += B * H
        gates += B * G * H
        out += B * H


@triton.jit
def shut_gates(g, d, d_h, d_c, c_at, c_before_at, h_at, h_before_at, inside, there, H: tl.constexpr,
               KIND: tl.constexpr):  # fmt: skip
    """From ∂L/∂h_t and what reaches c_t through later steps to the gradients of a block's pre-activations, stored at
    `d` and returned in the order of the products; ∂L/∂c_t; what goes back to h_{t−1} beside the products, and to
    c_{t−1}; and the gradient of the GRU's first block, which has no product."""
    d0, d1, d2, d3 = d_h, d_h, d_h, d_h
    at_c, back_c, back_h = d_c, d_c, d_h * 0
    if KIND == "lstm" or KIND == "lstm_1997":
        LAST: tl.constexpr = 3 if KIND == "lstm" else 2
        i = tl.load(g, mask=inside, other=0.0)
        n = tl.load(g + (LAST - 1) * H, mask=inside, other=0.0)
        o = tl.load(g + LAST * H, mask=inside, other=0.0)
        seen = tanh(tl.load(c_at, mask=inside, other=0.0))
        at_c = d_c + d_h * (o * (1 - seen * seen))
        back_c = at_c
        d_o = tl.where(there, d_h * (seen * (o * (1 - o))), 0)
        d_i = tl.where(there, at_c * (n * (i * (1 - i))), 0)
        d_n = tl.where(there, at_c * (i * (1 - n * n)), 0)
        tl.store(d, d_i, mask=inside)
        tl.store(d + (LAST - 1) * H, d_n, mask=inside)
        tl.store(d + LAST * H, d_o, mask=inside)
        if KIND == "lstm":
            f = tl.load(g + H, mask=inside, other=0.0)
            d_f = tl.where(there, at_c * (tl.load(c_before_at, mask=inside, other=0.0) * (f * (1 - f))), 0)
            tl.store(d + H, d_f, mask=inside)
            back_c = at_c * f
            d0, d1, d2, d3 = d_i, d_f, d_n, d_o
        else:
            d0, d1, d2 = d_i, d_n, d_o
        back_c = tl.where(there, back_c, d_c)  # after its end, a sequence's cell state is frozen
    elif KIND == "gru":
        n = tl.load(g, mask=inside, other=0.0)
        r = tl.load(g + H, mask=inside, other=0.0)
        z = tl.load(g + 2 * H, mask=inside, other=0.0)
        n_h = tl.load(g + 3 * H, mask=inside, other=0.0)
        h_before = tl.load(h_before_at, mask=inside, other=0.0)
        d3 = tl.where(there, d_h * ((1 - z) * (1 - n * n)), 0)
        d0 = d3 * (n_h * (r * (1 - r)))
        d1 = tl.where(there, d_h * ((h_before - n) * (z * (1 - z))), 0)
        d2 = d3 * r
        tl.store(d, d3, mask=inside)
        tl.store(d + H, d0, mask=inside)
        tl.store(d + 2 * H, d1, mask=inside)
        tl.store(d + 3 * H, d2, mask=inside)
        back_h = d_h * z
    else:
        if KIND != "rnn_identity":
            h = tl.load(h_at, mask=inside, other=0.0)
            if KIND == "rnn_tanh":
                d0 = d_h * (1 - h * h)
            elif KIND == "rnn_sigmoid":
                d0 = d_h * (h * (1 - h))
            else:
                d0 = d_h * tl.where(h > 0, 1.0, 0.0)
        d0 = tl.where(there, d0, 0)
        tl.store(d, d0, mask=inside)
    return d0, d1, d2, d3, at_c, back_h, back_c


@triton.jit
def sum_of_squares(d, inside):
    d = tl.where(inside, d, 0.0).to(tl.float64)
    return tl.sum(d * d, 1)[:, None]


@triton.jit
def backward_kernel(d_gates, d_h0, d_c0, h_rows, c_rows, gates, out, cells, w_h, h0, c0, d_out, lengths,
                    T, B, H: tl.constexpr, KIND: tl.constexpr, G: tl.constexpr, P: tl.constexpr, CELL: tl.constexpr,
                    DENSE: tl.constexpr, ENDS: tl.constexpr, NORMS: tl.constexpr, ROWS: tl.constexpr,
                    UNITS: tl.constexpr, RESIDENT: tl.constexpr, FACTOR: tl.constexpr, HELD: tl.constexpr,
                    SUM: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """`d_h0`, zero at first, and `d_c0`, at first what reaches the last cell state, become the gradients of the
    initial states. Beyond the resident kernel they are what goes back at each step."""
    replica = tl.program_id(0).to(tl.int64)
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    unit = tl.arange(0, UNITS)
    w = w_h + replica * P * H * H
    h0, c0, d_h0, d_c0 = h0 + replica * B * H, c0 + replica * B * H, d_h0 + replica * B * H, d_c0 + replica * B * H
    end = tl.zeros((ROWS, 1), tl.int32) + T
    if ENDS:
        end = tl.load(lengths + row, mask=row < B, other=0).to(tl.int32)
    nothing = tl.zeros((ROWS, UNITS), SUM)
    none = tl.zeros((ROWS, 1), tl.float64)
    if RESIDENT:
        inside, at = (row < B) & (unit[None, :] < H), row * H + unit[None, :]
        w0, w1, w2, w3 = all_weights(w, unit[:, None], unit[None, :], H, P, FACTOR, HELD)
        d_h = nothing
        d_c = nothing
        if CELL:
            d_c = tl.load(d_c0 + at, mask=inside, other=0.0)
    for back in range(T):
        t = T - 1 - back
        step = replica * T + t
        there = t < end
        g, d = gates + step * B * G * H + row * G * H, d_gates + step * B * G * H + row * G * H
        h_before, c_before = h0, c0
        if t > 0:
            h_before = out + (step - 1) * B * H
            if CELL:
                c_before = cells + (step - 1) * B * H
        norm_h, norm_c = none, none
        for first in range(0, H, UNITS):
            here = first + unit[None, :]
            inside, at = (row < B) & (here < H), row * H + here
            if not RESIDENT:
                d_h = tl.load(d_h0 + at, mask=inside, other=0.0)
                d_c = nothing
                if CELL:
                    d_c = tl.load(d_c0 + at, mask=inside, other=0.0)
            if DENSE:
                d_h += tl.load(d_out + step * B * H + at, mask=inside, other=0.0)
            if NORMS:
                norm_h += sum_of_squares(d_h, inside)
            d0, d1, d2, d3, at_c, back_h, back_c = shut_gates(
                g + here, d + here, d_h, d_c, cells + step * B * H + at, c_before + at, out + step * B * H + at,
                h_before + at, inside, there, H, KIND,
            )  # fmt: skip
            if NORMS and CELL:
                norm_c += sum_of_squares(at_c, inside)
            if RESIDENT:
                d_h = back_h + product(d0, w0, FACTOR, HELD, SUM, PRECISION)
                if P > 1:
                    d_h += product(d1, w1, FACTOR, HELD, SUM, PRECISION)
                    d_h += product(d2, w2, FACTOR, HELD, SUM, PRECISION)
                if P > 3:
                    d_h += product(d3, w3, FACTOR, HELD, SUM, PRECISION)
                d_c = back_c
            else:
                tl.store(d_h0 + at, back_h, mask=inside)
                if CELL:
                    tl.store(d_c0 + at, back_c, mask=inside)
        if NORMS:
            place = (replica * T + t) * B + row
            counts = (row < B) & there
            tl.store(h_rows + place, norm_h, mask=counts)
            if CELL:
                tl.store(c_rows + place, norm_c, mask=counts)
        if not RESIDENT:
            tl.debug_barrier()  # what one thread has written, others read
            for first in range(0, H, UNITS):
                here = first + unit[None, :]
                inside, at = (row < B) & (here < H), row * H + here
                total = tl.load(d_h0 + at, mask=inside, other=0.0)
                for start in range(0, H, UNITS):
                    from_unit = start + unit
                    known = (row < B) & (from_unit[None, :] < H)
                    for block in tl.static_range(P):
                        part = tl.load(d + (G - P + block) * H + from_unit[None, :], mask=known, other=0.0)
                        v = weights(w, block, from_unit[:, None], here, H, FACTOR, HELD)
                        total += product(part, v, FACTOR, HELD, SUM, PRECISION)
                tl.store(d_h0 + at, total, mask=inside)
            tl.debug_barrier()
    if RESIDENT:
        inside, at = (row < B) & (unit[None, :] < H), row * H + unit[None, :]
        tl.store(d_h0 + at, d_h, mask=inside)
        if CELL:
            tl.store(d_c0 + at, d_c, mask=inside)


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
    """As `portable.forward`."""
    R, T, B = x.shape[:3]
    H = h0.shape[-1]
    gates = portable.pre_activations(kind, tokens, x, w_x, table)
    out = gates if kind.blocks == 1 else x.new_empty(R, T, B, H)
    cells = x.new_empty(R, T if kind.has_cell else 0, B, H)
    _launch("forward", kind, w_h, gates, out, cells, w_h.contiguous(), h0.contiguous(), c0.contiguous(), T, B)
    return portable.shown(kind, lengths, out, gates, cells)


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
    T, B = out.shape[1:3]
    d_out = portable.at_every_step(scored, d_out, out)
    d = out.new_empty(*out.shape[:3], kind.blocks * out.shape[-1])
    d_h0 = torch.zeros_like(h0, memory_format=torch.contiguous_format)
    d_c0 = torch.zeros_like(c0) if d_c is None else d_c.clone(memory_format=torch.contiguous_format)
    norms = (rows.hidden, rows.cell) if rows is not None else (out, out)  # never written to
    _launch(
        "backward", kind, w_h, d, d_h0, d_c0, *norms, gates, out, cells, w_h.contiguous(), h0.contiguous(),
        c0.contiguous(), out if d_out is None else d_out.contiguous(),
        out if lengths is None else lengths.each.to(out.device), T, B,
        DENSE=d_out is not None, ENDS=lengths is not None, NORMS=rows is not None,
    )  # fmt: skip
    if rows is not None:
        rows.blocks.copy_(portable.squares(kind, d))
    # All rows at once: some hundred at a time, as on the CPU, would be many launches.
    return portable.of_weights(kind, tokens, V, x, w_x, h0, out, d, d_h0, d_c0, wants_x, rows_at_once=T * B)


def constants(kind: Kind, H: int, way: str, dtype: torch.dtype) -> dict[str, Any]:
    """What a kernel is compiled for, beside the types of its arguments."""
    real = tl.float64 if dtype == torch.float64 else tl.float32
    rows, units, resident, _ = tiles(kind, H, way)
    factor = tl.bfloat16 if kind.precision == "bfloat16" else real
    # The interpreter's tl.dot takes the bits of bfloat16 numbers for integers.
    held = real if isinstance(forward_kernel, InterpretedFunction) else factor
    return {
        "H": H, "KIND": kind.name, "G": kind.blocks, "P": kind.product_blocks, "CELL": kind.has_cell, "ROWS": rows,
        "UNITS": units, "RESIDENT": resident, "FACTOR": factor, "HELD": held, "SUM": real,
        "PRECISION": "tf32" if kind.precision == "tf32" else "ieee",
    }  # fmt: skip


def _launch(way: str, kind: Kind, w_h: Tensor, *arguments: Tensor | int, **more: bool) -> None:
    """The arguments end with T and B."""
    R, H = len(w_h), w_h.shape[-1]
    tile = tiles(kind, H, way, more.get("NORMS", False))
    compiled_for = constants(kind, H, way, w_h.dtype)
    kernel = forward_kernel if way == "forward" else backward_kernel
    kernel[R, triton.cdiv(arguments[-1], tile.rows)](*arguments, **compiled_for, **more, num_warps=tile.warps)
