"""The LSTM with layer normalisation inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.cells import initialisation
from rnnlstm.cells.cell import Cell, State, Weights, register_cell
from rnnlstm.cells.lstm import FORGET, INPUT
from rnnlstm.config.options import option


@register_cell("lstm_layer_norm")
@dataclass(frozen=True, kw_only=True)
class LayerNormCell(Cell):
    """(i, f, g, o) = LN(W_ih x_t; α_x) + LN(W_hh h_{t−1}; α_h) + b
    c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g)
    h_t = σ(o) ⊙ tanh(LN(c_t; α_c, β_c))

    LN(a; α) = α ⊙ (a − mean a)/std a, over the units. Source: Ba, Kiros & Hinton 2016, equations 20–22, their two
    biases of the first line added into b. `norm_ih`, `norm_hh` (4·H,), `norm_c` and `shift_c` (H,) start at 1, 1, 1
    and 0.
    """

    state_names = ("hidden", "cell")
    gate_names = ("input", "forget", "output")
    blocks = 4

    init: str = option("default", "default (uniform) or chrono", choices=("default", "chrono"))
    max_lag: int | None = initialisation.max_lag_option()

    def parameter_shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        H = hidden_size
        norms = {"norm_ih": (4 * H,), "norm_hh": (4 * H,), "norm_c": (H,), "shift_c": (H,)}
        return super().parameter_shapes(input_size, hidden_size, bias) | norms

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        super().initialise(w, generator, max_lag)
        with torch.no_grad():
            for name in ("norm_ih", "norm_hh", "norm_c"):
                w[name].fill_(1.0)
            w["shift_c"].zero_()
        if self.init == "chrono":
            initialisation.chrono(self, w, self.max_lag or max_lag, generator, opened=FORGET, shut=INPUT)

    def project(self, x: Tensor, w: Weights) -> Tensor:
        projected = F.linear(x, w["weight_ih"])
        normed = F.layer_norm(projected, projected.shape[-1:], w["norm_ih"])
        return normed + w["bias_ih"] if "bias_ih" in w else normed

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        h, c = state
        recurrent = F.linear(self.seen(h, w), w["weight_hh"])
        a = projected + F.layer_norm(recurrent, recurrent.shape[-1:], w["norm_hh"])
        i, f, g, o = (a + w["bias_hh"] if "bias_hh" in w else a).chunk(4, -1)
        i, f = self.gate("input", torch.sigmoid(i)), self.gate("forget", torch.sigmoid(f))
        o = self.gate("output", torch.sigmoid(o))
        c = f * c + i * torch.tanh(g)
        h = o * torch.tanh(F.layer_norm(c, c.shape[-1:], w["norm_c"], w["shift_c"]))
        return (h, c), {"input": i, "forget": f, "output": o}

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor:
        """∂c_t/∂c_{t−1} along the cell: f_t."""
        return gates["forget"]
