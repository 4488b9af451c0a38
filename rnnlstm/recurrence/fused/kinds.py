"""What the fused backend needs to know of a cell: how its pre-activations are laid out.

A step computes G blocks of H pre-activations, a = [x-part | … | h-part]: the input's product goes into the first
`input_blocks`, the state's into the last `state_blocks`. For RNN and LSTM both are all G. The GRU has four blocks,
[n_x, r, z, n_h]: its candidate keeps the two products apart, n = tanh(n_x + r ⊙ n_h).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rnnlstm.cells import Cell, GRUCell, LSTMCell, RNNCell, Weights


@dataclass(frozen=True)
class Kind:
    name: str  #: rnn_tanh, rnn_relu, rnn_sigmoid, rnn_identity, lstm or gru
    blocks: int  #: G
    input_blocks: int
    state_blocks: int
    has_cell: bool = False  #: whether there is a cell state c
    gates: Mapping[str, int] = field(default_factory=dict)  #: the cell's gates, and their blocks


LSTM = Kind("lstm", 4, 4, 4, True, {"input": 0, "forget": 1, "output": 3})
GRU = Kind("gru", 4, 3, 3, False, {"reset": 1, "update": 2})


def kind_of(cell: Cell) -> Kind | None:
    """The kind of a cell whose equations are exactly these; a subclass may have changed them."""
    if type(cell) is RNNCell:
        return Kind(f"rnn_{cell.nonlinearity}", 1, 1, 1)
    if type(cell) is LSTMCell:
        return LSTM
    return GRU if type(cell) is GRUCell else None


def arranged(kind: Kind, w: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """Weights in the layout above: input (input_blocks·H, I), state (state_blocks·H, H), bias (G·H).

    By differentiable operations, so that gradients find their way back to the layout of PyTorch's modules.
    """
    w_x, w_h = w["weight_ih"], w["weight_hh"]
    H = w_h.shape[-1]
    b_x, b_h = w.get("bias_ih"), w.get("bias_hh")
    if b_x is None or b_h is None:
        b_x = b_h = w_h.new_zeros(kind.state_blocks * H)
    if kind is not GRU:
        return w_x, w_h, b_x + b_h
    w_x = torch.cat([w_x[2 * H :], w_x[: 2 * H]])  # r, z, n → n, r, z
    return w_x, w_h, torch.cat([b_x[2 * H :], b_x[: 2 * H] + b_h[: 2 * H], b_h[2 * H :]])
