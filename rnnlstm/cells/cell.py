"""The contract of a cell: one time step's equations, and nothing of the loop around them.

A cell holds no weights. It names their shapes, initialises them, and computes one step from the weights that it is
given; so the same equations serve one network, a stack of replicas under `torch.func.vmap`, and any backend. A new
cell is one class::

    @register_cell("leaky")
    @dataclass(frozen=True, kw_only=True)
    class LeakyCell(Cell):
        \"\"\"h_t = ½ h_{t−1} + ½ tanh(W x_t + U h_{t−1} + b)\"\"\"

        def step(self, projected, state, w):
            (h,) = state
            return (0.5 * h + 0.5 * torch.tanh(projected + self.recurrent(h, w)),), {}

Dimensions: T time steps, B sequences, I input features, H hidden units, G the cell's stacked blocks (1 for
the RNN, 4 for the LSTM).
"""

from __future__ import annotations

import dataclasses
import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import Registry, check_options

Weights = Mapping[str, Tensor]
State = tuple[Tensor, ...]

CELLS: Registry[type[Cell]] = Registry("model", "cell")
register_cell = CELLS.register


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """One step of a recurrent network. Dataclass fields of a subclass are its options (`model.…`)."""

    name: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]] = ("hidden",)  #: the first is the output h; each is (B, H)
    gate_names: ClassVar[tuple[str, ...]] = ()  #: what `step` returns beside the state
    gate_blocks: ClassVar[
        tuple[int, ...]
    ] = ()  #: each gate's block of rows in weight_hh; empty: gates have no such blocks
    blocks: ClassVar[int] = 1  #: G: blocks of H rows in each weight
    recurrent_dropout: ClassVar[float] = 0.0  #: rates of noise in training, set by `noisy` (`noise.py`)
    zoneout: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_options(self)

    def parameter_shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one layer's weights, in the order of PyTorch's modules."""
        rows = self.blocks * hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, hidden_size),
        }
        return shapes | ({"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {})

    def initialise(self, w: Weights, generator: torch.Generator | None, max_lag: int) -> None:
        """Fill one layer's weights in place; `max_lag` is the longest distance to remember, in steps.

        PyTorch's default: every entry uniform on ±1/√H. With the global generator it draws the
        numbers that `torch.nn`'s modules draw.
        """
        bound = 1 / math.sqrt(w["weight_ih"].shape[0] // self.blocks)
        for weight in w.values():
            torch.nn.init.uniform_(weight, -bound, bound, generator=generator)

    def prepare(self, w: Weights) -> Weights:
        """The weights that `project` and `step` use, computed from the trained ones once for each sequence; unless
        overridden, the same. For cells that constrain their weights, such as to an orthogonal matrix."""
        return w

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """The input's part of the pre-activations, W_ih x_t + b_ih: (…, I) → (…, G·H), for all time steps at once."""
        return F.linear(x, w["weight_ih"], w.get("bias_ih"))

    def seen(self, h: Tensor, w: Weights) -> Tensor:
        """h_{t−1} as the recurrent weights see it, (B, H): h, or h ⊙ m/(1−p) in training with recurrent dropout
        (`noise.py`)."""
        mask = w.get("recurrent_dropout_mask")
        return h if mask is None else h * mask

    def recurrent(self, h: Tensor, w: Weights) -> Tensor:
        """The state's part of the pre-activations, W_hh h_{t−1} + b_hh: (B, H) → (B, G·H), with h as `seen`."""
        return F.linear(self.seen(h, w), w["weight_hh"], w.get("bias_hh"))

    @abstractmethod
    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        """From `project`'s (B, G·H) and the state, each (B, H), to the next state and the gates by name."""

    # -- for surgery and instruments

    def gate(self, name: str, activation: Tensor) -> Tensor:
        """The activation (B, H) that `step` uses for a gate: unchanged, unless surgery (`surgery.py`) overrides
        it."""
        return activation

    def truncates(self, remaining: int) -> bool:
        """Whether gradients stop before the step with `remaining` steps left, itself included. Only surgery does
        so."""
        return False

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor | None:
        """∂state_t/∂state_{t−1} of the memory along its own path, unit by unit, such as f_t: (T, B, H), the shape of
        the gates. None for a cell without such a path."""
        return None

    # -- all time steps at once, for cells whose state is linear in the state before

    @property
    def has_scan(self) -> bool:
        return type(self).scan is not Cell.scan

    def scan(self, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
        """One layer by a parallel scan: x (T, B, I) → outputs (T, B, H), last state. For cells with `has_scan`."""
        raise NotImplementedError(f"the {self.name} cell has no parallel form")

    # -- PyTorch's built-in operation for this cell, where there is one

    @property
    def has_torch_layer(self) -> bool:
        return type(self).torch_layer is not Cell.torch_layer

    def torch_layer(
        self, x: Tensor, state: State, w: Weights, batch_sizes: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One layer: x (T, B, I) → outputs (T, B, H), last state. For cells with `has_torch_layer`.

        With `batch_sizes` x and outputs are packed, (N, I) and (N, H), as in PyTorch's PackedSequence.
        """
        raise NotImplementedError(f"PyTorch has no {self.name} cell")


def check_cell(cell: Cell, input_size: int = 3, hidden_size: int = 5, sequences: int = 2) -> None:
    """Try one step of a cell on small numbers, and check what it declares against what it computes.

    Raises: OptionError under `model`, which says which of `blocks`, `state_names`, `gate_names`, `gate_blocks`,
    `self.gate` and `retention` doesn't fit.
    """
    H, B, gates = hidden_size, sequences, cell.gate_names
    passed: set[str] = set()

    def refuse(rule: str) -> OptionError:
        return OptionError("model", cell.name, f"{type(cell).__name__}: {rule}")

    def gate(self: Cell, name: str, activation: Tensor) -> Tensor:
        passed.add(name)
        return type(cell).gate(self, name, activation)

    tried: Any = object.__new__(type(type(cell).__name__, (type(cell),), {"gate": gate}))
    tried.__dict__.update(cell.__dict__)
    if cell.gate_blocks and (
        len(cell.gate_blocks) != len(gates) or not all(0 <= b < cell.blocks for b in cell.gate_blocks)
    ):
        raise refuse(
            f"gate_blocks={cell.gate_blocks} must name, for each of gate_names={gates}, one of blocks={cell.blocks}"
        )
    weights = {k: torch.zeros(shape) for k, shape in cell.parameter_shapes(input_size, H, True).items()}
    for name, value in vars(type(cell)).items():
        if isinstance(value, dataclasses.Field):
            raise refuse(f"is no dataclass, so its option {name} has no value: write @dataclass above the class")
    said = f"blocks={cell.blocks}, which makes projected ({B}, {cell.blocks}·H), and state_names={cell.state_names}"
    try:
        with torch.no_grad():
            cell.initialise(weights, torch.Generator().manual_seed(0), 10)
            prepared = tried.prepare(weights)
            projected = tried.project(torch.zeros(B, input_size), prepared)
            returned = tried.step(projected, tuple(torch.zeros(B, H) for _ in cell.state_names), prepared)
    except (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
        written_in = type(cell).step.__code__.co_filename
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == written_in]
        place = f" ({Path(written_in).name}, line {lines[-1]})" if lines else ""
        raise refuse(f"step fails with {said}: {type(error).__name__}: {error}{place}") from None
    parts = returned if isinstance(returned, tuple) else (returned,)
    if len(parts) != 2 or not isinstance(parts[0], tuple) or not isinstance(parts[1], dict):
        names = ", ".join(f"{name!r}: …" for name in gates)
        forms = ", ".join(type(part).__name__ for part in parts)
        raise refuse(
            f"step must return its states and gates, ({', '.join(cell.state_names)},), {{{names}}}; not {forms}"
        )
    state, values = parts
    if len(state) != len(cell.state_names):
        raise refuse(
            f"step returns {len(state)} states; state_names={cell.state_names} names {len(cell.state_names)}"
        )
    for name, value in zip(cell.state_names, state, strict=True):
        if value.shape != (B, H):
            raise refuse(f"step returns the state {name} as {tuple(value.shape)}, not (B, H) = {B, H}, with {said}")
    if set(values) != set(gates):
        raise refuse(f"step returns the gates {tuple(values)}; gate_names={gates} must name them")
    for name in gates:
        if values[name].shape != (B, H):
            raise refuse(
                f"step returns the gate {name} as {tuple(values[name].shape)}, not (B, H) = {B, H}, with {said}"
            )
        if name not in passed:
            raise refuse(f"step must pass the gate through self.gate({name!r}, …), so that surgery can hold it")
    retained = cell.retention({name: value[None] for name, value in values.items()}) if gates else None
    if retained is not None and retained.shape[-2:] != (B, H):
        raise refuse(f"retention returns {tuple(retained.shape)}, not the shape of the gates, (T, B, H)")


def make_cell(name: str, **options: Any) -> Cell:
    """The cell called `name`: `make_cell("rnn", nonlinearity="relu")`.

    Raises: OptionError naming key, value and rule.
    """
    cell: Cell = CELLS.make(name, **options)
    return cell


def linear_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """h_t = a_t h_{t−1} + b_t for all time steps at once: a, b (T, …), h0 (…) → h_1 … h_T, (T, …). Real or complex.

    Pairs (a, b) compose as (a₂a₁, a₂b₁ + b₂), so that after k rounds each step holds the composition of the 2^k steps
    up to it. Equal to the loop to rounding; O(T log T) work in log T rounds. Source: Hillis & Steele 1986; Blelloch
    1990.
    """
    b = torch.cat([(b[0] + a[0] * h0)[None], b[1:]])
    reach = 1
    while reach < len(b):
        b = torch.cat([b[:reach], a[reach:] * b[:-reach] + b[reach:]])
        a = torch.cat([a[:reach], a[reach:] * a[:-reach]])
        reach *= 2
    return b


def torch_arguments(
    x: Tensor, hx: Tensor | tuple[Tensor, ...], w: Weights, batch_sizes: Tensor | None
) -> tuple[Any, ...]:
    """What PyTorch's recurrent operations take: input, states, weights, has_biases, num_layers, dropout, train,
    bidirectional, batch_first. `train` makes cuDNN keep what its backward pass needs; the CPU ignores it. The form
    for packed input has `batch_sizes`, and no batch_first."""
    options = ("bias_ih" in w, 1, 0.0, x.is_cuda, False)
    if batch_sizes is not None:
        return (x, batch_sizes, hx, list(w.values()), *options)
    return (x, hx, list(w.values()), *options, False)
