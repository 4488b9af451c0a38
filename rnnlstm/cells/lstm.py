"""Long short-term memory with a forget gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell, torch_arguments
from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import option

INPUT, FORGET = 0, 1  # blocks of the stacked weights, in PyTorch's order: input, forget, cell, output


@register_cell("lstm")
@dataclass(frozen=True, kw_only=True)
class LSTMCell(Cell):
    """i_t = σ(W_ii x_t + b_ii + W_hi h_{t−1} + b_hi)        input gate
    f_t = σ(W_if x_t + b_if + W_hf h_{t−1} + b_hf)        forget gate
    g_t = tanh(W_ig x_t + b_ig + W_hg h_{t−1} + b_hg)     candidate
    o_t = σ(W_io x_t + b_io + W_ho h_{t−1} + b_ho)        output gate
    c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)

    Source: Hochreiter & Schmidhuber 1997; forget gate of Gers, Schmidhuber & Cummins 2000; as
    `torch.nn.LSTM` computes it. A forget gate with bias b and no other input holds for 1/(1−σ(b)) steps.
    """

    state_names = ("hidden", "cell")
    gate_names = ("input", "forget", "output")
    gate_blocks = (0, 1, 3)
    blocks = 4

    init: str = option(
        "chrono",
        "default (PyTorch's), orthogonal, forget_bias or chrono (Tallec & Ollivier 2018)",
        choices=("default", "orthogonal", "forget_bias", "chrono"),
    )
    forget_bias: float = option(1.0, "sum of the forget gate's two biases", acts_if={"init": ["forget_bias"]})
    input_bias: float | str | None = option(
        None,
        "sum of the input gate's two biases, or opposite: −b of each unit's forget bias b (null: the start's own)",
        acts_if={"init": ["forget_bias", "chrono"]},
    )
    gain: float = initialisation.gain_option()
    max_lag: int | None = initialisation.max_lag_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.input_bias, str) and self.input_bias != "opposite":
            raise OptionError("input_bias", self.input_bias, "must be a number, opposite or null")

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        if self.init == "orthogonal":
            initialisation.orthogonal(w, self.gain, generator)
        elif self.init == "forget_bias":
            initialisation.set_bias(w, FORGET, self.forget_bias, self.init)
        elif self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, opened=FORGET, shut=INPUT)
        if self.input_bias is not None and self.init in ("forget_bias", "chrono"):
            opened = (w["bias_ih"] + w["bias_hh"]).detach().chunk(self.blocks)[FORGET]
            shut = -opened if self.input_bias == "opposite" else float(self.input_bias)
            initialisation.set_bias(w, INPUT, shut, self.init)

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        i, f, g, o = (projected + self.recurrent(h, w)).chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        i, f, o = self.gate("input", i), self.gate("forget", f), self.gate("output", o)
        c = f * c + i * g
        h = o * torch.tanh(c)
        return (h, c), {"input": i, "forget": f, "output": o}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂c_t/∂c_{t−1} along the cell: f_t."""
        return gates["forget"]

    def torch_layer(
        self, x: Tensor, state: State, w: Weights, batch_sizes: Tensor | None = None
    ) -> tuple[Tensor, State]:
        h, c = (s[None] for s in state)
        outputs, h, c = torch.lstm(*torch_arguments(x, (h, c), w, batch_sizes))
        return outputs, (h[0], c[0])
