"""A layer by the fused backend, in the form that all backends share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.cells import Cell, GRUCell, State, Weights, is_operated
from rnnlstm.recurrence.fused.engine import activations
from rnnlstm.recurrence.fused.function import FusedForward, Tape, at_places
from rnnlstm.recurrence.fused.kinds import Kind, arranged, kind_of
from rnnlstm.recurrence.lengths import Lengths
from rnnlstm.recurrence.precision import autocast_on, current_precision

__all__ = ["FusedPass", "Tape", "at_places", "fused_layer", "fused_pass", "fused_replicas", "has_fused", "has_tape"]

LOWERED = (torch.float32, torch.bfloat16, torch.float16)  #: types that autocast casts


def has_fused(cell: Cell) -> bool:
    """Whether the fused backend knows this cell's equations, or the cell has a parallel form of its own."""
    return has_tape(cell) or (cell.has_scan and not is_operated(cell))


def has_tape(cell: Cell) -> bool:
    """Whether a fused pass of this cell yields the gradients through time."""
    return kind_of(cell) is not None


def fused_layer(
    cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None = None
) -> tuple[Tensor, State]:
    """x (T, B, I), state each (B, H) → outputs (T, B, H), last state. A cell's own parallel form takes no lengths."""
    if not has_tape(cell):
        return cell.scan(x, state, cell.prepare(w))
    seen = fused_pass(cell, x, state, w, lengths=lengths)
    return seen.outputs, seen.last


@dataclass(frozen=True)
class FusedPass:
    """A layer's forward pass with what it keeps. Activations and cell states carry no gradient."""

    outputs: Tensor  #: (T, B, H)
    last: State  #: each (B, H)
    cells: Tensor  #: (T, B, H), of no time step where the cell has no cell state
    kind: Kind
    kept: Tensor  #: the activations, in the engine's own order
    lengths: Lengths | None

    def gates(self) -> dict[str, Tensor]:
        """(T, B, H) by the cell's gate names."""
        _, B, H = self.outputs.shape
        in_order = activations(self.kind, self.lengths, self.kept, B, H)[0]
        return {name: in_order[..., k * H : (k + 1) * H] for name, k in self.kind.gates.items()}


def fused_pass(
    cell: Cell, x: Tensor, state: State, w: Weights, tape: Tape | None = None, lengths: Lengths | None = None
) -> FusedPass:
    """As `fused_layer`; `tape` keeps the norms that the backward pass yields.

    Under `torch.autocast` it computes in float32, and returns the type that PyTorch's modules return.
    Raises: RuntimeError for tensors of other shapes, types or devices than the cell's.
    """
    kind = kind_of(cell)
    assert kind is not None
    x, state, w, result = _cast(cell, x, state, w)
    _check(cell, x, state, w)
    w_x, w_h, b = arranged(kind, w)
    h0, c0 = state[0], state[-1]
    kind = replace(kind, precision=current_precision())
    one_replica = (tensor.unsqueeze(0) for tensor in (x, w_x, w_h, b.unsqueeze(0), h0, c0))
    out, last_c, kept, cells = FusedForward.apply(kind, lengths, tape, None, None, *one_replica)
    out, last_c, cells = out.squeeze(0), last_c.squeeze(0), cells.squeeze(0)
    last_h = out[-1] if lengths is None else lengths.last(out)
    last = (last_h, last_c) if kind.has_cell else (last_h,)
    return FusedPass(out.to(result), tuple(s.to(result) for s in last), cells, kind, kept, lengths)


def fused_replicas(
    cell: Cell,
    layers: Sequence[Weights],
    inputs: Tensor,
    embedding: Tensor | None = None,
    scored: Tensor | None = None,
) -> Tensor:
    """All layers of R replicas at once, from zero states; each weight of `layers` has R as its first dimension.

    inputs (R, T, B, I), or token numbers (R, T, B) into `embedding` (R, V, E). Returns the last layer's outputs
    (R, T, B, H), or with `scored` (R, N), places in (T·B), those alone: (R, N, H); at a place below 0, anything.

    Token numbers are not embedded one by one: their products with the input weights, E W_ihᵀ + b, are a table of V
    rows, from which the kernel takes what a step needs. Raises: IndexError for a token number outside it.
    """
    kind = kind_of(cell)
    assert kind is not None
    tokens = None
    R, T, B = inputs.shape[:3]
    if embedding is None:
        x = inputs
    elif 2 * embedding.shape[1] > T * B:  # more rows than there are to be taken
        x = torch.stack([F.embedding(each, rows) for each, rows in zip(inputs, embedding, strict=True)])
    else:
        x, tokens = embedding.new_empty(R, T, B, 0), inputs
    for k, w in enumerate(layers):
        w_x, w_h, b = arranged(kind, w)
        table = b.unsqueeze(1)
        if tokens is not None and embedding is not None:
            entered = w_x.shape[-2]  # units of the blocks that the input enters, the first ones
            other = table[..., entered:].expand(-1, embedding.shape[1], -1)
            table = torch.baddbmm(table[..., :entered], embedding, w_x.mT)
            table = torch.cat([table, other], -1) if other.shape[-1] else table
            w_x = w_x.new_empty(R, entered, 0)
        state = w_h.new_zeros(R, B, w_h.shape[-1])
        rows = scored if k == len(layers) - 1 else None
        x = FusedForward.apply(kind, None, None, rows, tokens, x, w_x, w_h, table, state, state)[0]
        tokens = None
    return x


def _cast(cell: Cell, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State, Weights, torch.dtype]:
    """The tensors to compute with, and the type of the results. Under autocast all are cast to float32. The results
    then have autocast's type, and a GRU's have its state's, as in torch.nn."""
    tensors = (x, *state, *w.values())
    if not autocast_on(x.device) or any(t.dtype not in LOWERED for t in tensors):
        return x, state, w, x.dtype
    result = state[0].dtype if isinstance(cell, GRUCell) else torch.get_autocast_dtype(x.device.type)
    return x.float(), tuple(s.float() for s in state), {name: v.float() for name, v in w.items()}, result


def _check(cell: Cell, x: Tensor, state: State, w: Weights) -> None:
    """Checks shapes, types and devices of everything that the kernel gets. Raises: RuntimeError."""
    B, I = x.shape[-2:]  # noqa: E741
    H = state[0].shape[-1]
    shapes = cell.parameter_shapes(I, H, bias="bias_ih" in w or "bias_hh" in w)
    expected = [(name, w[name], shape) for name, shape in shapes.items() if name in w]
    if len(expected) < len(shapes):
        raise RuntimeError(f"the {cell.name} cell lacks {', '.join(shapes.keys() - w.keys())}")
    expected += [(f"the {name} state", s, (B, H)) for name, s in zip(cell.state_names, state, strict=True)]
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise RuntimeError(f"{name} has shape {tuple(tensor.shape)}; it must have {shape}")
        if tensor.device != x.device:
            raise RuntimeError(
                f"expected all tensors to be on one device: the input is on {x.device}, {name} on {tensor.device}"
            )
        if tensor.dtype != x.dtype:
            raise RuntimeError(f"the input is {x.dtype}, {name} is {tensor.dtype}; they need one type")
    if not x.dtype.is_floating_point:
        raise RuntimeError(f"the input is {x.dtype}; it must be a floating-point type")
