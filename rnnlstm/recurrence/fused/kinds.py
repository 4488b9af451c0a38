"""What the fused backend needs to know of a cell: how its pre-activations are laid out.

A step computes G blocks of H pre-activations. The input's product enters the first P of them, the state's the last P.
For RNN and LSTM, P = G. The GRU has four blocks, [n_x, r, z, n_h], and P = 3: its candidate keeps the two products
apart, n = tanh(n_x + r ⊙ n_h).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rnnlstm.cells import Cell, GRUCell, LinearCell, LSTM1997Cell, LSTMCell, RNNCell, Weights


@dataclass(frozen=True)
class Kind:
    name: str  #: rnn_tanh, rnn_relu, rnn_sigmoid, rnn_identity, lstm, lstm_1997 or gru
    blocks: int  #: G
    product_blocks: int  #: P
    has_cell: bool = False  #: whether there is a cell state c
    gates: Mapping[str, int] = field(default_factory=dict)  #: the cell's gates, and their blocks
    scale: float = 1.0  #: factor on the pre-activations: of all weights, therefore
    precision: str = "full"  #: of matrix products (`recurrence/precision.py`)


LSTM = Kind("lstm", 4, 4, True, {"input": 0, "forget": 1, "output": 3})
LSTM_1997 = Kind("lstm_1997", 3, 3, True, {"input": 0, "output": 2})
GRU = Kind("gru", 4, 3, False, {"reset": 1, "update": 2})
#: All of them, in the order by which the native kernel numbers them.
KINDS = (*(Kind(f"rnn_{name}", 1, 1) for name in ("tanh", "relu", "sigmoid", "identity")), LSTM, LSTM_1997, GRU)


def kind_of(cell: Cell) -> Kind | None:
    """The kind of a cell whose equations are exactly these; a subclass may have changed them."""
    if type(cell) is RNNCell:
        if cell.nonlinearity == "centred_steep_sigmoid":
            return None
        # 2σ(x) − 1 = tanh(x/2), and σ(4x) is the sigmoid of 4x.
        name, scale = {
            "centred_sigmoid": ("tanh", 0.5),
            "steep_sigmoid": ("sigmoid", 4.0),
            "wide_steep_sigmoid": ("tanh", 2.0),
        }.get(cell.nonlinearity, (cell.nonlinearity, 1.0))
        return Kind(f"rnn_{name}", 1, 1, scale=scale)
    if type(cell) is LinearCell:
        return Kind("rnn_identity", 1, 1)
    return {LSTMCell: LSTM, LSTM1997Cell: LSTM_1997, GRUCell: GRU}.get(type(cell))


def arranged(kind: Kind, w: Weights) -> tuple[Tensor, Tensor, Tensor]:
    """Weights in the layout above: input (…, P·H, I), state (…, P·H, H), bias (…, G·H).

    By differentiable operations, so that gradients find their way back to the layout of PyTorch's modules.
    """
    w_x, w_h = w["weight_ih"], w["weight_hh"]
    H = w_h.shape[-1]
    b_x, b_h = w.get("bias_ih"), w.get("bias_hh")
    if b_x is None or b_h is None:
        b_x = b_h = w_h.new_zeros(*w_h.shape[:-2], kind.product_blocks * H)
    if kind.scale != 1.0:
        w_x, w_h, b_x, b_h = (kind.scale * weight for weight in (w_x, w_h, b_x, b_h))
    if kind is not GRU:
        return w_x, w_h, b_x + b_h
    w_x = torch.cat([w_x[..., 2 * H :, :], w_x[..., : 2 * H, :]], -2)  # r, z, n → n, r, z
    both = b_x[..., : 2 * H] + b_h[..., : 2 * H]
    return w_x, w_h, torch.cat([b_x[..., 2 * H :], both, b_h[..., 2 * H :]], -1)
