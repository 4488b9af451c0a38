"""How the fused LSTM's time grows with each dimension, and what a busy neighbour does to it."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch

import rnnlstm.recurrence as ours
from rnnlstm.measure.recurrences import INPUTS, outputs_of, step_of
from rnnlstm.measure.timing import Timing, in_turn

BASE = {"T": 100, "B": 64, "H": 64, "R": 1}


def growth(rounds: int) -> dict[str, Timing]:
    """A training step of the LSTM at B = 64, T = 100, H = 64, and with one dimension doubled and doubled again.
    R: that many recurrences at once through vmap."""
    shapes = [BASE] + [BASE | {name: BASE[name] * factor} for name in BASE for factor in (2, 4)]
    steps = {" ".join(f"{k}={v}" for k, v in shape.items()): _replicated(**shape) for shape in shapes}
    return in_turn(steps, rounds)


def _replicated(T: int, B: int, H: int, R: int) -> Callable[[], None]:
    module = ours.LSTM(INPUTS, H, backend="fused")
    if R == 1:
        x, cotangent = torch.randn(T, B, INPUTS), torch.randn(T, B, H)
        return step_of(module, functools.partial(outputs_of, module, x), cotangent)
    weights = {name: torch.stack([w.detach()] * R).requires_grad_() for name, w in module.named_parameters()}
    x, cotangent = torch.randn(R, T, B, INPUTS), torch.randn(R, T, B, H)

    def step() -> None:
        outputs = torch.func.vmap(lambda w, x: torch.func.functional_call(module, w, (x,))[0])(weights, x)
        torch.autograd.grad(outputs, list(weights.values()), cotangent)

    return step


def under_load(rounds: int, T: int = 200, B: int = 20, H: int = 128) -> dict[str, dict[str, Timing]]:
    """PyTorch's and the fused LSTM with one thread and with all, alone and while a process keeps a core busy."""
    theirs, x, cotangent = torch.nn.LSTM(INPUTS, H), torch.randn(T, B, INPUTS), torch.randn(T, B, H)
    modules = {"torch.nn": theirs, "fused": ours.LSTM(INPUTS, H, backend="fused")}
    before, found = torch.get_num_threads(), {}
    try:
        for busy in (False, True):
            with _busy_core() if busy else contextlib.nullcontext():
                for threads in dict.fromkeys((1, before)):
                    torch.set_num_threads(threads)
                    steps = {
                        n: step_of(m, functools.partial(outputs_of, m, x), cotangent) for n, m in modules.items()
                    }
                    name = f"{threads} thread{'s' * (threads > 1)}, {'a core busy' if busy else 'alone'}"
                    found[name] = in_turn(steps, rounds)
    finally:
        torch.set_num_threads(before)
    return found


@contextlib.contextmanager
def _busy_core() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()
