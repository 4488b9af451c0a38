"""A layer by the fused backend, in the form that all backends share."""

from __future__ import annotations

from torch import Tensor

from rnnlstm.cells import Cell, State, Weights
from rnnlstm.recurrence.fused.function import FusedForward, Tape
from rnnlstm.recurrence.fused.kinds import arranged, kind_of

__all__ = ["Tape", "fused_layer", "has_fused"]


def has_fused(cell: Cell) -> bool:
    """Whether the fused backend knows this cell's equations."""
    return kind_of(cell) is not None


def fused_layer(cell: Cell, x: Tensor, state: State, w: Weights, tape: Tape | None = None) -> tuple[Tensor, State]:
    """x (T, B, I), state each (B, H) → outputs (T, B, H), last state. `tape` keeps the backward pass's norms."""
    kind = kind_of(cell)
    assert kind is not None
    w_x, w_h, b = arranged(kind, w)
    h0, c0 = state[0], state[-1]
    one_replica = (tensor.unsqueeze(0) for tensor in (x, w_x, w_h, b, h0, c0))
    out, last_c, _, _ = (tensor.squeeze(0) for tensor in FusedForward.apply(kind, tape, *one_replica))
    return out, (out[-1], last_c) if kind.has_cell else (out[-1],)
