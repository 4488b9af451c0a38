"""The LSTM with one part left out, or two parts coupled: ablations after "LSTM: a search space odyssey".

Source: Greff, Srivastava, Koutník, Steunebrink & Schmidhuber 2017; their names in brackets. Blocks stand in
PyTorch's order, input, forget, candidate, output, the missing one left out; a missing gate is 1, a missing
activation the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.config.options import option


@dataclass(frozen=True, kw_only=True)
class AblatedCell(Cell):
    """c_t = f ⊙ c_{t−1} + i ⊙ g,   h_t = o ⊙ φ(c_t)   with those gates that `gate_names` lists."""

    state_names = ("hidden", "cell")
    output_activation: ClassVar[bool] = True
    opened: ClassVar[int | None] = 1  #: the forget gate's block, which chrono initialisation opens
    shut: ClassVar[int | None] = 0  #: the input gate's block, which it shuts

    init: str = option("default", "default (uniform) or chrono", choices=("default", "chrono"))
    max_lag: int | None = initialisation.max_lag_option()

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, opened=self.opened, shut=self.shut)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        parts = (projected + self.recurrent(h, w)).chunk(self.blocks, -1)
        gates = {
            name: self.gate(name, torch.sigmoid(parts[k]))
            for name, k in zip(self.gate_names, self.gate_blocks, strict=True)
        }
        (candidate,) = (k for k in range(self.blocks) if k not in self.gate_blocks)
        let_in = gates["input"] if "input" in gates else torch.ones_like(c)
        c = self.retention(gates) * c + let_in * torch.tanh(parts[candidate])
        h = torch.tanh(c) if self.output_activation else c
        return (gates["output"] * h if "output" in gates else h, c), gates

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂c_t/∂c_{t−1} along the cell."""
        return gates["forget"] if "forget" in gates else 1 - gates["input"]


@register_cell("lstm_coupled")
@dataclass(frozen=True, kw_only=True)
class CoupledCell(AblatedCell):
    """f = 1 − i: one gate decides what enters and what is forgotten (CIFG)

    c_t = (1 − i_t) ⊙ c_{t−1} + i_t ⊙ g_t,   h_t = o_t ⊙ tanh(c_t)
    """

    gate_names, gate_blocks, blocks = ("input", "output"), (0, 2), 3
    opened = None


@register_cell("lstm_no_input_gate")
@dataclass(frozen=True, kw_only=True)
class NoInputGateCell(AblatedCell):
    """c_t = f_t ⊙ c_{t−1} + g_t,   h_t = o_t ⊙ tanh(c_t)   (NIG)"""

    gate_names, gate_blocks, blocks = ("forget", "output"), (0, 2), 3
    opened, shut = 0, None


@register_cell("lstm_no_output_gate")
@dataclass(frozen=True, kw_only=True)
class NoOutputGateCell(AblatedCell):
    """c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t,   h_t = tanh(c_t)   (NOG)"""

    gate_names, gate_blocks, blocks = ("input", "forget"), (0, 1), 3


@register_cell("lstm_no_output_activation")
@dataclass(frozen=True, kw_only=True)
class NoOutputActivationCell(AblatedCell):
    """c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t,   h_t = o_t ⊙ c_t   (NOAF)"""

    gate_names, gate_blocks, blocks = ("input", "forget", "output"), (0, 1, 3), 4
    output_activation = False
