"""Initialisations that cells share, and their options. All fill in place, without gradients, from one generator.

Weights stack G blocks of H rows; block k of a weight is rows k·H … (k+1)·H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnnlstm.cells.cell import Cell, Weights
from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import option


def gain_option() -> Any:
    """The option `gain` of cells whose recurrent weights stack several matrices."""
    return option(
        1.0, "factor of the orthogonal matrices", at_least=0, at_most=1000, acts_if={"init": ["orthogonal"]}
    )


def max_lag_option() -> Any:
    """The option `max_lag` of cells with `init=chrono`."""
    return option(None, "longest lag (null: the sequence's length)", at_least=2, acts_if={"init": ["chrono"]})


def blocks(weight: Tensor) -> tuple[Tensor, ...]:
    """The H-row blocks of `weight_hh` (G·H, H), as views."""
    return weight.split(weight.shape[-1])


def orthogonal(w: Weights, gain: float, generator: torch.Generator | None) -> None:
    """Each recurrent block becomes `gain` times a random orthogonal matrix (Saxe et al. 2013)."""
    for block in blocks(w["weight_hh"]):
        torch.nn.init.orthogonal_(block, gain, generator=generator)


def identity(w: Weights, gain: float, generator: torch.Generator | None) -> None:
    """IRNN (Le, Jaitly & Hinton 2015): recurrent weights `gain`·I, biases zero, input weights N(0, 0.001²)."""
    torch.nn.init.normal_(w["weight_ih"], 0.0, 0.001, generator=generator)
    with torch.no_grad():
        for block in blocks(w["weight_hh"]):
            torch.nn.init.eye_(block).mul_(gain)
        for name in ("bias_ih", "bias_hh"):
            if name in w:
                w[name].zero_()


def set_bias(w: Weights, block: int, value: float | Tensor, init: str) -> None:
    """Give a block the bias `value`: of PyTorch's two biases, which add up, one becomes `value` and the other zero.

    Raises: OptionError if the cell has no bias.
    """
    if "bias_ih" not in w:
        raise OptionError("init", init, "needs a bias")
    H = len(value) if isinstance(value, Tensor) else w["weight_hh"].shape[-1]
    with torch.no_grad():
        w["bias_ih"][block * H : (block + 1) * H] = value
        if "bias_hh" in w:  # the minimal cells have one
            w["bias_hh"][block * H : (block + 1) * H] = 0.0


def chrono_bias(hidden_size: int, max_lag: int, generator: torch.Generator | None) -> Tensor:
    """b = log u, u uniform on [1, max_lag − 1] (Tallec & Ollivier 2018): the forget gates' time constants
    1/(1−σ(b)) spread over 2 … max_lag steps. Shape (H,)."""
    if not max_lag:
        rule = "init=chrono needs it: give the longest distance to remember, in steps, such as max_lag=100"
        raise OptionError("max_lag", None, rule)
    if max_lag < 2:
        raise OptionError("max_lag", max_lag, "must be at least 2 for init=chrono, the longest lag in steps")
    bias = torch.empty(hidden_size, dtype=torch.float32)
    return bias.uniform_(1.0, max_lag - 1.0, generator=generator).log()


def chrono(
    cell: Cell,
    w: Weights,
    max_lag: int,
    generator: torch.Generator | None,
    *,
    opened: int | None = None,
    shut: int | None = None,
) -> None:
    """Chrono initialisation: block `opened` (a forget gate's) gets the bias b, block `shut` (an input gate's) −b.

    Raises: OptionError if `max_lag`, in steps, is below 2, or the cell has no bias.
    """
    bias = chrono_bias(w["weight_ih"].shape[0] // cell.blocks, max_lag, generator)
    if opened is not None:
        set_bias(w, opened, bias, "chrono")
    if shut is not None:
        set_bias(w, shut, -bias, "chrono")
