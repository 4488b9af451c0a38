"""Units at the ends of their range: saturated ones pass hardly any gradient, dead ones none."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnlstm.cells import Cell, RNNCell
from rnnlstm.instruments.subject import Subject

#: An activation counts as saturated where its slope is below this share of the steepest there is.
FLAT = 0.1


def unit_shares(subject: Subject, layer: int) -> dict[str, float]:
    """`saturated`: share of activations of h whose slope φ' is below a tenth of the steepest (for a cell with gates:
    |tanh| of its memory above 0.95). `dead`: share of units that put out exactly zero at every step of every
    sequence."""
    states = {name: _computed(state, subject.cell.zoneout) for name, state in subject.path.states[layer].items()}
    hidden = states["hidden"]  # (T, B, H)
    slopes = _slopes(subject.cell, states)
    dead = (hidden == 0).all(0).all(0)
    return {
        "saturated": (slopes < FLAT).double().mean().item(),
        "dead": dead.double().mean().item(),
    }


def _computed(state: Tensor, z: float) -> Tensor:
    """What the cell itself put out, where zoneout mixed in a share z of the state before."""
    return (state - z * torch.cat([torch.zeros_like(state[:1]), state[:-1]])) / (1 - z) if z else state


def _slopes(cell: Cell, states: dict[str, Tensor]) -> Tensor:
    """φ' of each activation relative to the steepest, from what φ put out."""
    if "cell" in states:
        return 1 - torch.tanh(states["cell"]) ** 2
    h = states["hidden"]
    name = cell.nonlinearity if isinstance(cell, RNNCell) else "tanh"
    if name in ("tanh", "centred_sigmoid"):
        return 1 - h**2
    if name in ("sigmoid", "steep_sigmoid"):
        return 4 * h * (1 - h)
    return (h > 0).to(h.dtype) if name == "relu" else torch.ones_like(h)
