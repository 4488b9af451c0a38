"""The fused loops over time in plain PyTorch: in place, on preallocated buffers, for any device and precision.

Dimensions: R replicas, T time steps, B sequences, I inputs, H hidden units, V rows of the table, G blocks of
pre-activations, P of them in each product (`kinds.py`). `forward` keeps the activations. `backward` computes in bulk,
for all time steps at once, the factors between ∂L/∂h_t, ∂L/∂c_t and the gradients of the pre-activations; its loop
only multiplies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnnlstm.recurrence.fused.gradients import Gradients, Rows
from rnnlstm.recurrence.fused.kinds import Kind
from rnnlstm.recurrence.lengths import Lengths
from rnnlstm.recurrence.precision import as_factor, product

RNN_ACTIVATIONS = {
    "rnn_tanh": torch.tanh_,
    "rnn_relu": torch.relu_,
    "rnn_sigmoid": torch.sigmoid_,
    "rnn_identity": lambda a: a,
}
#: Rows (time steps × sequences) of a chunk when weight gradients are summed.
ROWS_AT_ONCE = 256


def forward(
    kind: Kind,
    lengths: Lengths | None,
    tokens: Tensor | None,
    x: Tensor,
    w_x: Tensor,
    w_h: Tensor,
    table: Tensor,
    h: Tensor,
    c: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """tokens (R, T, B) or None for row 0, x (R, T, B, I), w_x (R, P·H, I), w_h (R, P·H, H), table (R, V, G·H),
    initial h, c (R, B, H) → outputs (R, T, B, H); activations (R, T, B, G·H), for an RNN of no unit, since they are
    its outputs; cell states (R, T, B, H), of no time step where there is none. After a sequence's end all are
    zero."""
    R, T, B = x.shape[:3]
    H, P = h.shape[-1], w_x.shape[1]
    gates = pre_activations(kind, tokens, x, w_x, table)
    is_rnn = kind.blocks == 1
    out = gates if is_rnn else x.new_empty(R, T, B, H)
    cells = x.new_empty(R, T if kind.has_cell else 0, B, H)
    w = as_factor(w_h.mT, kind.precision)  # (R, H, P·H)
    # Every view that the loop needs, from a few calls: a slice costs as much as a small product.
    blocks = [block.unbind(1) for block in _blocks(gates, H)]
    products = gates[..., -P:].unbind(1)
    outs, states = out.unbind(1), cells.unbind(1)
    forgets = None
    if kind.has_cell:
        opening = gates[..., : -2 * H].unbind(1)
        forgets = blocks[1] if kind.name == "lstm" else None
    elif kind.name == "gru":
        opening = gates[..., H : 3 * H].unbind(1)
    for t in range(T):
        _add_product(kind, products[t], h, w)
        if kind.has_cell:
            opening[t].sigmoid_()  # input gate, and forget gate where there is one
            i, g, o = blocks[0][t], blocks[-2][t], blocks[-1][t]
            g.tanh_(), o.sigmoid_()
            kept = c if forgets is None else torch.mul(forgets[t], c, out=states[t])
            c = torch.addcmul(kept, i, g, out=states[t])
            h = torch.tanh(c, out=outs[t]).mul_(o)
        elif kind.name == "gru":
            opening[t].sigmoid_()
            n, r, z, n_h = (block[t] for block in blocks)
            n.addcmul_(r, n_h).tanh_()
            h = torch.lerp(n, h, z, out=outs[t])
        else:
            h = RNN_ACTIVATIONS[kind.name](products[t])
    return shown(kind, lengths, out, gates, cells)


def pre_activations(kind: Kind, tokens: Tensor | None, x: Tensor, w_x: Tensor, table: Tensor) -> Tensor:
    """What they are before the state's product: the table's row and the input's product, (R, T, B, G·H)."""
    R, T, B, I = x.shape  # noqa: E741
    if tokens is None:
        gates = table.new_empty(R, T, B, table.shape[-1]).copy_(table[:, :1, None])
    else:
        gates = table.flatten(0, 1)[_of_replica(tokens, table.shape[1])]
    if I:
        _add_product(kind, gates.flatten(1, 2)[..., : w_x.shape[1]], x.flatten(1, 2), w_x.mT)
    return gates


def shown(
    kind: Kind, lengths: Lengths | None, out: Tensor, gates: Tensor, cells: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What `forward` returns of what was computed at every time step."""
    if lengths is not None:
        for result in (out, gates, *([cells] if kind.has_cell else [])):
            result.masked_fill_(~lengths.mask[..., None], 0)
    return out, gates[..., :0] if kind.blocks == 1 else gates, cells


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
    """From gradients for the outputs, `d_out` (R, T, B, H), and for the last cell state, `d_c` (R, B, H); None is
    zero.

    With `scored` (R, N), places of outputs in (T·B), `d_out` (R, N, H) is for those outputs alone; a place below 0 is
    none. The table has V rows."""
    R, T, B, H = out.shape
    P = w_h.shape[1]
    d_out = at_every_step(scored, d_out, out)
    if d_out is None:
        d_out = out.new_zeros(()).expand(out.shape)
    d_c = torch.zeros_like(c0) if d_c is None else d_c
    tanh_c = cells.tanh()
    d = _factors(kind, gates, out, cells, tanh_c, h0, c0)  # becomes the gradient for the pre-activations
    there = None
    if lengths is not None:
        d.masked_fill_(~lengths.mask[..., None], 0)
        there = lengths.mask[..., None].unbind(0)  # each (B, 1)
    ds, d_outs = d.view(R, T, B, kind.blocks, H).unbind(1), d_out.unbind(1)
    flows = d[..., -P:].unbind(1)
    w = as_factor(w_h, kind.precision)
    d_h = torch.zeros_like(h0)  # what reaches h_t through later steps
    if kind.has_cell:
        o = gates[..., -H:]
        into_c = (o * (1 - tanh_c.square_())).unbind(1)
        through_c = [step[..., :-1, :] for step in ds]
        through_h = [step[..., -1, :] for step in ds]
        forgets = gates[..., H : 2 * H].unbind(1) if kind.name == "lstm" else None
    elif kind.name == "gru":
        updates = gates[..., 2 * H : 3 * H].unbind(1)
    for t in range(T - 1, -1, -1):
        d_h = d_h + d_outs[t]
        if rows is not None:
            rows.hidden[:, t] = d_h.double().square().sum(-1)
        if kind.has_cell:
            before, d_c = d_c, torch.addcmul(d_c, d_h, into_c[t])
            if rows is not None:
                rows.cell[:, t] = d_c.double().square().sum(-1)
            through_c[t].mul_(d_c.unsqueeze(-2))
            through_h[t].mul_(d_h)
            if forgets is not None:
                d_c = d_c * forgets[t]
            if there is not None:  # after its end, a sequence's cell state is frozen
                d_c = torch.where(there[t], d_c, before)
            d_h = product(flows[t], w, kind.precision)
        elif kind.name == "gru":
            ds[t].mul_(d_h.unsqueeze(-2))
            d_h = _add_product(kind, d_h.mul_(updates[t]), flows[t], w)
        else:
            d_h = product(flows[t].mul_(d_h), w, kind.precision)
    if rows is not None and lengths is not None:
        rows.hidden.masked_fill_(~lengths.mask, 0), rows.cell.masked_fill_(~lengths.mask, 0)
    if rows is not None:
        rows.blocks.copy_(squares(kind, d))
    return of_weights(kind, tokens, V, x, w_x, h0, out, d, d_h, d_c, wants_x)


def squares(kind: Kind, d: Tensor) -> Tensor:
    """Squared norm of each block of d (R, T, B, G·H), in float64: (R, T, B, G)."""
    return d.unflatten(-1, (kind.blocks, -1)).double().square().sum(-1)


def at_every_step(scored: Tensor | None, d_out: Tensor | None, out: Tensor) -> Tensor | None:
    """The gradients for all outputs, from those for the scored ones alone."""
    if d_out is None or scored is None:
        return d_out
    R, T, B, H = out.shape
    dense = out.new_zeros(R, T * B + 1, H)  # the last row takes what belongs to no output
    places = _of_replica(torch.where(scored < 0, T * B, scored), T * B + 1)
    dense.flatten(0, 1).index_copy_(0, places.flatten(), d_out.flatten(0, 1))
    return dense[:, :-1].unflatten(1, (T, B))


def of_weights(
    kind: Kind,
    tokens: Tensor | None,
    V: int,
    x: Tensor,
    w_x: Tensor,
    h0: Tensor,
    out: Tensor,
    d: Tensor,
    d_h0: Tensor,
    d_c0: Tensor,
    wants_x: bool,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Gradients:
    """All gradients, from those for the pre-activations, d (R, T, B, G·H), and for the initial states."""
    R, P = len(out), w_x.shape[1]
    # xᵀ d: with the few columns of x on the left, several times quicker than dᵀ x.
    d_w_x = _products(kind, x.new_zeros(R, x.shape[-1], P), x, d[..., :P], rows_at_once).mT
    if tokens is None:
        d_table = d.sum((1, 2))[:, None]
    else:
        d_table = d.new_zeros(R * V, d.shape[-1]).index_add_(0, _of_replica(tokens, V).flatten(), d.flatten(0, 2))
        d_table = d_table.unflatten(0, (R, V))
    d_w_h = product(d[:, 0, :, -P:].mT, h0, kind.precision)
    d_w_h = _products(kind, d_w_h, d[:, 1:, :, -P:], out[:, :-1], rows_at_once)
    d_x = product(d.flatten(1, 2)[..., :P], w_x, kind.precision).view_as(x) if wants_x else None
    return Gradients(d_x, d_w_x, d_w_h, d_table, d_h0, d_c0)


def _of_replica(places: Tensor, each: int) -> Tensor:
    """Places (R, …) in each replica's own `each` rows, as places in the rows of all."""
    return places + torch.arange(len(places), device=places.device).view(-1, *[1] * (places.dim() - 1)) * each


def _factors(kind: Kind, gates: Tensor, out: Tensor, cells: Tensor, tanh_c: Tensor, h0: Tensor, c0: Tensor) -> Tensor:
    """What ∂L/∂c_t (of the blocks before an LSTM's output gate) or ∂L/∂h_t is multiplied with (R, T, B, G·H)."""
    H = out.shape[-1]
    if kind.blocks == 1:
        return _slope(kind.name, out)
    factors = torch.empty_like(gates)
    f = _blocks(factors, H)
    if kind.has_cell:
        i, g, o = gates[..., :H], gates[..., -2 * H : -H], gates[..., -H:]
        torch.mul(g, i * (1 - i), out=f[0])
        torch.mul(i, 1 - g * g, out=f[-2])
        torch.mul(tanh_c, o * (1 - o), out=f[-1])
        if kind.name == "lstm":
            forget = gates[..., H : 2 * H]
            torch.mul(_before(cells, c0), forget * (1 - forget), out=f[1])
        return factors
    n, r, z, n_h = _blocks(gates, H)
    torch.mul(1 - z, 1 - n * n, out=f[0])
    torch.mul(f[0] * n_h, r * (1 - r), out=f[1])
    torch.mul(_before(out, h0) - n, z * (1 - z), out=f[2])
    torch.mul(f[0], r, out=f[3])
    return factors


def _before(states: Tensor, first: Tensor) -> Tensor:
    """The states one time step earlier (R, T, B, H)."""
    return torch.cat([first[:, None], states[:, :-1]], 1)


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


def _add_product(kind: Kind, total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """total += a b, in place."""
    return total.baddbmm_(a, b) if kind.precision == "full" else total.add_(product(a, b, kind.precision))


def _products(kind: Kind, total: Tensor, left: Tensor, right: Tensor, rows_at_once: int) -> Tensor:
    """total (R, M, N) += Σ over time steps and sequences of leftᵀ right, (R, T, B, M) and (R, T, B, N).

    Some hundred rows at a time, each chunk summed from zero and then added: the rounding error of one long sum is
    several times larger.
    """
    steps = max(1, rows_at_once // max(1, left.shape[2]))
    for start in range(0, left.shape[1], steps):
        chunk = slice(start, start + steps)
        _add_product(kind, total, left[:, chunk].flatten(1, 2).mT, right[:, chunk].flatten(1, 2))
    return total
