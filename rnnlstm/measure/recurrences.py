"""One training step of a recurrence, forward and backward: PyTorch's module, the fused and the reference backend,
a hand loop over PyTorch's cell, and over our equations as `torch.compile` makes them. No gradient for the input.

Dimensions: B sequences, T time steps, H units, I = 10 inputs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import rnnlstm.recurrence as ours
from rnnlstm.cells import CELLS
from rnnlstm.measure.timing import Timing, in_turn

LOG = logging.getLogger("rnnlstm")
INPUTS = 10
RECURRENCES = ("RNN", "GRU", "LSTM")  #: classes of `torch.nn` and of `rnnlstm`
FULL_GRID = [(B, T, H) for B in (1, 16, 32, 64, 128) for T in (50, 200, 750) for H in (32, 64, 128, 256)]
QUICK_GRID = [(16, 200, 32), (64, 100, 64), (128, 100, 128)]


@dataclass(frozen=True)
class Result:
    cell: str
    B: int
    T: int
    H: int
    times: dict[str, Timing]

    @property
    def ratio(self) -> float:
        """How many times faster the fused backend is than PyTorch's module, by medians."""
        return self.times["torch.nn"].median / self.times["fused"].median

    @property
    def rate(self) -> float:
        """GFLOP/s of the fused backend: forward, backward to the state, and both weight gradients."""
        products = self.B * self.T * CELLS[self.cell.lower()].blocks * self.H
        return 2 * products * (3 * self.H + 2 * INPUTS) / self.times["fused"].median / 1e6

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "gflops": self.rate}


def measure(cell: str, B: int, T: int, H: int, rounds: int, loops: bool) -> Result:
    """Contenders in turn from equal weights; `loops` adds the slow ones, the reference backend and the hand loop."""
    torch.manual_seed(0)
    theirs = getattr(nn, cell)(INPUTS, H)
    x, cotangent = torch.randn(T, B, INPUTS), torch.randn(T, B, H)
    modules: dict[str, nn.Module] = {"torch.nn": theirs}
    for backend in ("fused", *(("reference",) if loops else ())):
        modules[backend] = getattr(ours, cell)(INPUTS, H, backend=backend)
        modules[backend].load_state_dict(theirs.state_dict())
    contenders = {
        name: step_of(module, functools.partial(outputs_of, module, x), cotangent) for name, module in modules.items()
    }
    if loops:
        compiled = compiled_cell(modules["fused"], x)
        if compiled is not None:
            contenders["compiled loop"] = step_of(modules["fused"], compiled, cotangent)
        by_hand = getattr(nn, f"{cell}Cell")(INPUTS, H)
        contenders["hand loop"] = step_of(by_hand, lambda: _loop(by_hand, x), cotangent)
    return Result(cell, B, T, H, in_turn(contenders, rounds))


def step_of(module: nn.Module, forward: Callable[[], Tensor], cotangent: Tensor) -> Callable[[], None]:
    def step() -> None:
        module.zero_grad()
        forward().backward(cotangent)

    return step


def outputs_of(module: nn.Module, x: Tensor) -> Tensor:
    outputs: Tensor = module(x)[0]
    return outputs


def compiled_cell(module: Any, x: Tensor) -> Callable[[], Tensor] | None:
    """A loop over the cell's equations, one time step compiled; None where it does not compile."""
    cell, weights = module.cell, module.layer_weights(0)
    step: Callable[..., tuple[Tensor, ...]]

    def loop() -> Tensor:
        state = tuple(x.new_zeros(x.shape[1], module.hidden_size) for _ in cell.state_names)
        outputs = []
        for projected in cell.project(x, weights).unbind(0):
            state = step(projected, *state)
            outputs.append(state[0])
        return torch.stack(outputs)

    try:
        torch._dynamo.reset()  # after eight compilations of one function it gives up, with a warning
        step = torch.compile(lambda projected, *state: cell.step(projected, state, weights)[0], dynamic=False)
        loop().sum().backward()
    except Exception as error:  # a compiler's errors are of any kind, and the comparison goes on without it
        LOG.warning("torch.compile could not compile the %s cell: %s", cell.name, str(error).splitlines()[0])
        return None
    return loop


def _loop(cell: nn.Module, x: Tensor) -> Tensor:
    """What people write who need the states: PyTorch's cell in a Python loop."""
    state, outputs = None, []
    for x_t in x:
        state = cell(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs)
