"""The time of one training step of a recurrence, forward and backward, and the least time this machine allows.

Contenders: PyTorch's module, the fused and the reference backend, a loop over PyTorch's cell, and one over our
equations compiled by `torch.compile`. None computes a gradient of the input.

The least time follows from a step's operations and bytes, and from ceilings measured here (roofline model: Williams,
Waterman & Patterson 2009):

    bound = max(products + activations, weights, tensors)        (ms for a step, forward and backward)

- products: 2·B·T·G·H·(3H + 2I) operations, for the output, the states' gradient and the weights' gradients, at the
  rate of multiply-adds in registers. G: blocks of pre-activations, 1 (RNN), 3 (GRU), 4 (LSTM).
- activations: the sigmoids and tanh of the forward pass, and tanh(c) once more backward, at their rate in registers.
  They use the same units as products, so the two add up.
- weights: each slice of rows reads all of them at each time step, forward and backward, from the smallest cache that
  holds them.
- tensors: gates, cell states and outputs are written once and read once, and the outputs' gradient is read.

Only as many threads count as there are slices of rows: one thread computes all time steps of a sequence, as each step
needs the one before. Loads, stores, copies and waiting count as free, so the bound is no forecast. A share of it
above 100 % means that the cores ran faster than while the ceilings were measured.

Dimensions: B sequences, T time steps, H units, I = 10 inputs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import rnnlstm.recurrence as ours
from rnnlstm.benchmarks.timing import Timing, in_turn
from rnnlstm.cells import CELLS
from rnnlstm.recurrence.fused.ceilings import activations, multiply_adds, reads
from rnnlstm.recurrence.fused.native import slices

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


def growth(rounds: int) -> dict[str, Timing]:
    """A fused LSTM's step at T = 100, B = 64, H = 64, for one replica, and with one of these twice and four times as
    large."""
    base = {"T": 100, "B": 64, "H": 64, "R": 1}
    shapes = [base] + [base | {name: base[name] * factor} for name in base for factor in (2, 4)]
    return in_turn({" ".join(f"{k}={v}" for k, v in shape.items()): _replicated(**shape) for shape in shapes}, rounds)


def _replicated(T: int, B: int, H: int, R: int) -> Callable[[], None]:
    module = ours.LSTM(INPUTS, H, backend="fused")
    weights = {name: torch.stack([w.detach()] * R).requires_grad_() for name, w in module.layer_weights(0).items()}
    x, cotangent = torch.randn(R, T, B, INPUTS), torch.randn(R, T, B, H)

    def step() -> None:
        outputs = ours.fused_replicas(module.cell, [weights], x)
        torch.autograd.grad(outputs, list(weights.values()), cotangent)

    return step


def beside_a_neighbour(rounds: int, T: int = 200, B: int = 20, H: int = 128) -> dict[str, dict[str, Timing]]:
    """PyTorch's and the fused LSTM with one thread and with all of this process, alone and while another process
    keeps a core busy."""
    theirs, x, cotangent = nn.LSTM(INPUTS, H), torch.randn(T, B, INPUTS), torch.randn(T, B, H)
    modules = {"torch.nn": theirs, "fused": ours.LSTM(INPUTS, H, backend="fused")}
    steps = {name: step_of(m, functools.partial(outputs_of, m, x), cotangent) for name, m in modules.items()}
    before, found = torch.get_num_threads(), {}
    try:
        for busy in (False, True):
            with _busy_core() if busy else contextlib.nullcontext():
                for threads in dict.fromkeys((1, before)):
                    torch.set_num_threads(threads)
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
        torch._dynamo.reset()  # without, torch.compile stops after eight compilations of one function
        step = torch.compile(lambda projected, *state: cell.step(projected, state, weights)[0], dynamic=False)
        loop().sum().backward()
    except Exception as error:  # compilers raise errors of any kind; the comparison continues without this contender
        LOG.warning("torch.compile could not compile the %s cell: %s", cell.name, str(error).splitlines()[0])
        return None
    return loop


def _loop(cell: nn.Module, x: Tensor) -> Tensor:
    """PyTorch's cell in a Python loop, as one writes it to see the states."""
    state, outputs = None, []
    for x_t in x:
        state = cell(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs)


#: Sigmoids and tanh a unit takes, forward and backward together.
ACTIVATIONS = {"rnn": (0, 1), "gru": (2, 1), "lstm": (3, 3)}


@dataclass(frozen=True)
class Ceilings:
    """Rates of one thread while all threads work."""

    gflops: float  #: multiply-adds in registers
    sigmoids: float  #: 1e9 a second
    tanhs: float  #: 1e9 a second
    threads: int


def multiply_add_peak(rounds: int = 9) -> float | None:
    """GFLOP/s of float32 multiply-adds in registers, all threads together; None without the native kernel."""
    return _best(lambda: multiply_adds(2_000_000), rounds)


def ceilings(rounds: int = 9) -> Ceilings | None:
    """None without the native kernel."""
    threads = torch.get_num_threads()
    peak = multiply_add_peak(rounds)
    sigmoids = _best(lambda: activations("sigmoid", 200_000), rounds)
    tanhs = _best(lambda: activations("tanh", 200_000), rounds)
    if peak is None or sigmoids is None or tanhs is None:
        return None
    return Ceilings(peak / threads, sigmoids / threads, tanhs / threads, threads)


def read_rate(size: int) -> float:
    """GB/s of one thread that reads `size` bytes repeatedly, while the others do the same."""
    data = torch.zeros(max(size // 4, 1024))
    rate = _best(lambda: reads(data, max(1, 20_000_000 // size)), 3)
    return (rate or float("inf")) / torch.get_num_threads()


def bound(cell: str, B: int, T: int, H: int, I: int, rates: Ceilings) -> dict[str, float]:  # noqa: E741
    """Milliseconds for each of the four parts."""
    parts = slices(1, B)
    workers = min(torch.get_num_threads(), parts)
    G, kept = CELLS[cell].blocks, {"rnn": 1, "gru": 5, "lstm": 6}[cell]
    sigmoids, tanhs = ACTIVATIONS[cell]
    operations = 2 * B * T * G * H * (3 * H + 2 * I)
    forward, backward = 4 * G * H * (H + I), 4 * G * H * H
    passes = T * parts / workers
    written = 4 * B * T * H * kept
    return {
        "products": operations / rates.gflops / workers / 1e6,
        "activations": B * T * H * (sigmoids / rates.sigmoids + tanhs / rates.tanhs) / workers / 1e6,
        "weights": passes * (forward / read_rate(forward) + backward / read_rate(backward)) / 1e6,
        "tensors": (2 * written + 4 * B * T * H) / read_rate(written) / workers / 1e6,
    }


def least_time(parts: dict[str, float]) -> tuple[float, str]:
    """The bound in milliseconds, and which of the three sets it."""
    candidates = {
        "arithmetic": parts["products"] + parts["activations"],
        "weights": parts["weights"],
        "tensors": parts["tensors"],
    }
    name = max(candidates, key=lambda key: candidates[key])
    return candidates[name], name


def _best(work: Callable[[], int], rounds: int) -> float | None:
    """The best rate, in 1e9 units of work a second; None if no work was done. The best, because it is a ceiling."""
    rates = []
    for _ in range(rounds):
        started = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - started) / 1e9)
    return max(rates) if done else None
