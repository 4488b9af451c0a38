"""A layer by the fused backend, in the form that all backends share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from rnnlstm.cells import Cell, State, Weights, is_operated
from rnnlstm.recurrence.fused.function import FusedForward, Tape
from rnnlstm.recurrence.fused.kinds import arranged, kind_of
from rnnlstm.recurrence.precision import rounded

__all__ = ["FusedPass", "Tape", "fused_layer", "fused_pass", "has_fused", "has_tape"]


def has_fused(cell: Cell) -> bool:
    """Whether the fused backend knows this cell's equations, or the cell has a parallel form of its own."""
    return has_tape(cell) or (cell.has_scan and not is_operated(cell))


def has_tape(cell: Cell) -> bool:
    """Whether a fused pass of this cell yields the gradients through time."""
    return kind_of(cell) is not None


def fused_layer(cell: Cell, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
    """x (T, B, I), state each (B, H) → outputs (T, B, H), last state."""
    if not has_tape(cell):
        return cell.scan(x, state, cell.prepare(w))
    seen = fused_pass(cell, x, state, w)
    return seen.outputs, seen.last


@dataclass(frozen=True)
class FusedPass:
    """A layer's forward pass with what it keeps. Activations and cell states carry no gradient."""

    outputs: Tensor  #: (T, B, H)
    last: State  #: each (B, H)
    gates: dict[str, Tensor]  #: (T, B, H) by the cell's gate names
    cells: Tensor  #: (T, B, H), of no time step where the cell has no cell state


def fused_pass(cell: Cell, x: Tensor, state: State, w: Weights, tape: Tape | None = None) -> FusedPass:
    """As `fused_layer`; `tape` keeps the norms that the backward pass yields."""
    kind = kind_of(cell)
    assert kind is not None
    w_x, w_h, b = arranged(kind, w)
    h0, c0 = state[0], state[-1]
    kind = replace(kind, rounded=rounded())
    one_replica = (tensor.unsqueeze(0) for tensor in (x, w_x, w_h, b, h0, c0))
    out, last_c, activations, cells = (t.squeeze(0) for t in FusedForward.apply(kind, tape, *one_replica))
    H = h0.shape[-1]
    gates = {name: activations[..., k * H : (k + 1) * H] for name, k in kind.gates.items()}
    return FusedPass(out, (out[-1], last_c) if kind.has_cell else (out[-1],), gates, cells)
