"""The contract of a cell: one time step's equations, and nothing of the loop around them.

A cell holds no weights. It names their shapes, initialises them, and computes one step from weights that are
handed in; so the same equations serve one network, a stack of replicas under `torch.func.vmap`, and any
backend. A new cell is one class::

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
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.config.errors import OptionError, did_you_mean
from rnnlstm.config.options import Registry, check_options

Weights = Mapping[str, Tensor]
State = tuple[Tensor, ...]

CELLS: Registry[type[Cell]] = Registry("model")
register_cell = CELLS.register


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """One step of a recurrent network. Dataclass fields of a subclass are its options (`model.…`)."""

    name: ClassVar[str]
    state_names: ClassVar[tuple[str, ...]] = ("hidden",)  #: the first is the output h; each is (B, H)
    gate_names: ClassVar[tuple[str, ...]] = ()  #: what `step` returns beside the state
    gate_blocks: ClassVar[tuple[int, ...]] = ()  #: each gate's block of rows in weight_hh; empty: not so simple
    blocks: ClassVar[int] = 1  #: G: blocks of H rows in each weight
    recurrent_dropout: ClassVar[float] = 0.0  #: rates of noise in training, which `noisy` of `noise.py` sets
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

        PyTorch's default: every entry uniform on ±1/√H. With the global generator it draws the very
        numbers that `torch.nn`'s modules draw.
        """
        bound = 1 / math.sqrt(w["weight_ih"].shape[0] // self.blocks)
        for weight in w.values():
            torch.nn.init.uniform_(weight, -bound, bound, generator=generator)

    def prepare(self, w: Weights) -> Weights:
        """What `project` and `step` are given, from the trained weights, once for a sequence: here the same. For
        cells whose weights have a form that training must not leave."""
        return w

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """The input's share of the pre-activations: (…, I) → (…, G·H), for all time steps at once."""
        return F.linear(x, w["weight_ih"], w.get("bias_ih"))

    def seen(self, h: Tensor, w: Weights) -> Tensor:
        """What the recurrent weights see of h_{t−1}, (B, H): h, in training under recurrent dropout h ⊙ m/(1−p)
        (`noise.py`)."""
        mask = w.get("recurrent_dropout_mask")
        return h if mask is None else h * mask

    def recurrent(self, h: Tensor, w: Weights) -> Tensor:
        """The state's share of the pre-activations, W_hh h_{t−1} + b_hh: (B, H) → (B, G·H), with h as `seen`."""
        return F.linear(self.seen(h, w), w["weight_hh"], w.get("bias_hh"))

    @abstractmethod
    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        """From `project`'s (B, G·H) and the state, each (B, H), to the next state and the gates by name."""

    # -- what instruments ask

    def gate(self, name: str, activation: Tensor) -> Tensor:
        """A gate's activation (B, H) on its way into `step`: as it is. Surgery (`surgery.py`) puts itself here."""
        return activation

    def truncates(self, remaining: int) -> bool:
        """Whether gradients stop before the step that has `remaining` steps left, itself included: never."""
        return False

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor | None:
        """The factor by which the memory carries itself into the next step, along its own path: (T, B, H), the
        shape of the gates. None for a cell without such a path."""
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

    def torch_layer(self, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
        """One layer: x (T, B, I) → outputs (T, B, H), last state. For cells with `has_torch_layer`."""
        raise NotImplementedError(f"PyTorch has no {self.name} cell")


def make_cell(name: str, **options: Any) -> Cell:
    """The cell called `name`: `make_cell("rnn", nonlinearity="relu")`.

    Raises: OptionError naming key, value and rule.
    """
    cls = CELLS[name]
    known = [field.name for field in dataclasses.fields(cls)]
    for key, value in options.items():
        if key not in known:
            raise OptionError(key, value, f"the {name} cell has no such option{did_you_mean(key, known)}")
    return cls(**options)
