"""Surgery: a cell with some of its gates held, or some of its paths cut, to see what the memory depends on.

An operated cell has the same weights and is run by the reference backend, in a trained network or in training from
the start.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from rnnlstm.cells.cell import Cell, State, Weights
from rnnlstm.cells.noise import is_noisy, with_noise
from rnnlstm.config.errors import ConfigError, OptionError, did_you_mean
from rnnlstm.config.schema import Surgery


def operated(cell: Cell, surgery: Surgery) -> Cell:
    """`cell` after `surgery`; `cell` itself if that does nothing.

    Raises: OptionError for a gate that the cell lacks or that two operations hold; ConfigError if the cell does not
    support the surgery.
    """
    if surgery.nothing:
        return cell
    if is_noisy(cell):  # surgery goes inside the noise, since it must not change what zoneout keeps
        return with_noise(operated(cell.noiseless, surgery), cell.recurrent_dropout, cell.zoneout)
    held: set[str] = set()
    for key in ("open", "shut", "freeze", "round", "cut"):
        for gate in getattr(surgery, key):
            if gate not in cell.gate_names:
                gates = f"its gates are {', '.join(cell.gate_names)}" if cell.gate_names else "it has none"
                rule = f"the {cell.name} cell has no such gate; {gates}{did_you_mean(gate, cell.gate_names)}"
                raise OptionError(key, gate, rule)
            if key != "cut" and gate in held:
                raise OptionError(key, gate, "this gate is held already")
            held |= {gate} if key != "cut" else set()
    if surgery.detach and "cell" not in cell.state_names:
        raise OptionError("detach", True, f"the {cell.name} cell has no memory beside h: nothing would be left")
    if surgery.cut and not cell.gate_blocks:
        raise ConfigError(f"the {cell.name} cell does not say which weights are a gate's (gate_blocks)")
    cls = type(f"Operated{type(cell).__name__}", (_Operated, type(cell)), {"surgery": surgery})
    result: Cell = cls(**{field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)})
    return result


def is_operated(cell: Cell) -> bool:
    return isinstance(cell, _Operated)


class _Operated(Cell):
    """Mixed in before a cell's class: its step, with gates held, paths cut or gradients stopped."""

    surgery: Surgery

    def gate(self, name: str, activation: Tensor) -> Tensor:
        activation = super().gate(name, activation)
        if name in self.surgery.open:
            return torch.ones_like(activation)
        if name in self.surgery.shut:
            return torch.zeros_like(activation)
        if name in self.surgery.freeze:
            return activation.detach().mean(0, keepdim=True).expand_as(activation)
        if name in self.surgery.round:
            return activation + (activation.round() - activation).detach()
        return activation

    def truncates(self, remaining: int) -> bool:
        # Counted from the end, so that a loss at the last step reaches exactly this many steps.
        return self.surgery.truncate is not None and remaining % self.surgery.truncate == 0

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        if self.surgery.cut:
            w = {**w, "weight_hh": self._without_cut(w["weight_hh"])}
        if self.surgery.detach:
            state = (state[0].detach(), *state[1:])
        # mypy sees the abstract step; the cell's own class stands after this one.
        return super().step(projected, state, w)  # type: ignore[safe-super]

    def _without_cut(self, weight: Tensor) -> Tensor:
        H = weight.shape[-1]
        kept = torch.ones(weight.shape[0] // H, 1, 1, dtype=weight.dtype, device=weight.device)
        for name, block in zip(self.gate_names, self.gate_blocks, strict=True):
            if name in self.surgery.cut:
                kept[block] = 0
        return (weight.unflatten(0, (-1, H)) * kept).flatten(0, 1)

    @property
    def has_torch_layer(self) -> bool:
        return False
