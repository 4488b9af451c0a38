"""Recurrences: how one layer is computed, any cell over time and layers, and drop-ins for `torch.nn`'s modules.

A backend computes one layer. All backends take the same weights and give the same numbers.

Dimensions: T time steps, B sequences, I input features, H hidden units, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnlstm.cells import MASKS, Cell, State, Weights, is_noisy, is_operated, make_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.recurrence.fused import fused_layer, has_fused

#: (cell, x (T, B, I), state each (B, H), weights) → outputs (T, B, H), last state
Layer = Callable[[Cell, Tensor, State, Weights], tuple[Tensor, State]]

BACKENDS = ("auto", "reference", "fused", "torch")


def reference_layer(cell: Cell, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
    """The cell's own equations in a loop over time, differentiated by autograd."""
    outputs = []
    for state, _ in unrolled(cell, x, state, w):  # noqa: B020
        outputs.append(state[0])
    return torch.stack(outputs), state


def unrolled(cell: Cell, x: Tensor, state: State, w: Weights) -> Iterator[tuple[State, dict[str, Tensor]]]:
    """The cell's steps over time: state and gates after each."""
    w = cell.prepare(w)
    for t, projected in enumerate(cell.project(x, w).unbind(0)):  # (T, B, G·H) → T times (B, G·H)
        if t > 0 and cell.truncates(len(x) - t):
            state = tuple(s.detach() for s in state)
        state, gates = cell.step(projected, state, w)
        yield state, gates


def torch_layer(cell: Cell, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
    """PyTorch's built-in operation, the one that `torch.nn`'s module calls."""
    return cell.torch_layer(x, state, w)


def choose_backend(cell: Cell, backend: str) -> str:
    """The name of a backend that computes this cell: `auto` is the fastest from-scratch one.

    Raises: OptionError if the cell has no such backend.
    """
    if backend not in BACKENDS:
        raise OptionError("backend", backend, f"must be one of {', '.join(BACKENDS)}")
    if backend in ("torch", "fused") and is_operated(cell):
        raise OptionError("backend", backend, "surgery needs the reference backend")
    if backend in ("torch", "fused") and is_noisy(cell):
        raise OptionError("backend", backend, "recurrent dropout and zoneout need the reference backend")
    if backend == "torch" and not cell.has_torch_layer:
        options = f" with nonlinearity={cell.nonlinearity}" if hasattr(cell, "nonlinearity") else ""
        raise OptionError("backend", backend, f"PyTorch has no {cell.name} cell{options}")
    if backend == "fused" and not has_fused(cell):
        raise OptionError("backend", backend, f"there is no fused {cell.name} cell; reference computes every cell")
    if backend == "auto":
        return "fused" if has_fused(cell) else "reference"
    return backend


def layer_function(backend: str) -> Layer:
    """The function behind a chosen backend."""
    return {"reference": reference_layer, "fused": fused_layer, "torch": torch_layer}[backend]


def can_vmap(backend: str) -> bool:
    """Whether `torch.func.vmap` maps this backend over replicas; PyTorch's operations have no such rule."""
    return backend != "torch"


class LayerTrace(Protocol):
    """What records a recurrence; `trace.py` has the classes."""

    def start(self) -> None: ...

    def layer(self, cell: Cell, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]: ...


class Recurrence(nn.Module):
    """A cell, over time and through layers. Its call takes and returns what `torch.nn`'s recurrent modules do.

    Parameters are named `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, … as PyTorch names them,
    so that a `state_dict` loads both ways. `max_lag` is what chrono initialisation spans, in steps;
    `generator` draws the weights (None: torch's global one).

    Raises: ValueError for a size below 1 or a dropout outside 0 … 1; OptionError if the cell has no such backend.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        *,
        backend: str = "auto",
        max_lag: int | None = None,
        generator: torch.Generator | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if isinstance(dropout, bool) or not 0.0 <= dropout <= 1.0:
            raise ValueError(f"dropout must be between 0 and 1, not {dropout}")
        self.cell, self.backend = cell, choose_backend(cell, backend)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.max_lag = max_lag
        self.trace: LayerTrace | None = None  # computes the layers in place of the backend, and records them
        for layer in range(num_layers):
            size = input_size if layer == 0 else hidden_size
            for name, shape in cell.parameter_shapes(size, hidden_size, bias).items():
                weight = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(weight))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialise the weights again, layer by layer, as the cell does."""
        for layer in range(self.num_layers):
            weights = {name: weight.detach() for name, weight in self.layer_weights(layer).items()}
            # Without max_lag, chrono refuses: 0 is below its least.
            self.cell.initialise(weights, generator, self.max_lag or 0)

    def layer_weights(self, layer: int) -> dict[str, Tensor]:
        """One layer's weights under the cell's own names."""
        names = self.cell.parameter_shapes(1, 1, self.bias)
        return {name: getattr(self, f"{name}_l{layer}") for name in names}

    def forward(
        self, input: Tensor, hx: Tensor | State | None = None, noise: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | State]:
        """input (T, B, I), (B, T, I) if `batch_first`, or unbatched (T, I); hx each (L, B, H) or (L, H).
        `noise`: the masks of a noisy cell, as `draw_masks` draws them; without, it computes as in evaluation.

        Returns outputs (T, B, H) and the last states (L, B, H): a tensor, or for cells with more than one
        state a tuple of them, all with the input's batch order.
        """
        x, state = self._checked(input, hx)
        if noise and not is_noisy(self.cell):
            raise ValueError("noise is for a cell that `noisy` made")
        layer_of = layer_function(self.backend)
        if self.trace is not None:
            self.trace.start()
            layer_of = self.trace.layer
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            masks = {name: noise[key] for name in MASKS if (key := f"{name}_l{layer}") in noise} if noise else {}
            x, end = layer_of(self.cell, x, tuple(s[layer] for s in state), self.layer_weights(layer) | masks)
            last.append(end)
        states = tuple(torch.stack(parts) for parts in zip(*last, strict=True))  # each (L, B, H)
        if input.dim() == 2:
            x, states = x[:, 0], tuple(s[:, 0] for s in states)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, states if len(states) > 1 else states[0]

    def _checked(self, input: Tensor, hx: Tensor | State | None) -> tuple[Tensor, State]:
        """Input as (T, B, I) and states as (L, B, H). Raises: TypeError, ValueError and RuntimeError where PyTorch
        does."""
        if isinstance(input, nn.utils.rnn.PackedSequence):
            raise TypeError("packed sequences are not supported; pad them and mask the loss")
        if input.dim() not in (2, 3):
            raise ValueError(f"expected input of 2 or 3 dimensions, got {input.dim()}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"input has {input.shape[-1]} features, input_size is {self.input_size}")
        dtypes = {next(self.parameters()).dtype, input.dtype, *(s.dtype for s in _states_of(hx))}
        if len(dtypes) > 1 and not torch.is_autocast_enabled(input.device.type):
            raise ValueError(f"weights, input and states need one dtype, not {', '.join(sorted(map(str, dtypes)))}")
        batched = input.dim() == 3
        x = input if batched else input[:, None]
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        if x.shape[0] == 0:
            raise RuntimeError("expected at least one time step")
        shape = (self.num_layers, x.shape[1], self.hidden_size)
        names = self.cell.state_names
        if hx is None:
            return x, tuple(x.new_zeros(shape) for _ in names)
        states = _states_of(hx)
        if len(states) != len(names):
            raise RuntimeError(f"expected {len(names)} initial state(s) ({', '.join(names)}), got {len(states)}")
        expected = shape if batched else (shape[0], shape[2])
        for name, state in zip(names, states, strict=True):
            if tuple(state.shape) != expected:
                raise RuntimeError(f"expected {name} state of shape {expected}, got {tuple(state.shape)}")
        return x, states if batched else tuple(s[:, None] for s in states)

    def extra_repr(self) -> str:
        return f"{self.cell}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, {self.backend}"


def _states_of(hx: Tensor | State | None) -> State:
    if hx is None:
        return ()
    return (hx,) if isinstance(hx, Tensor) else tuple(hx)


def _refuse(**unsupported: Any) -> None:
    for name, value in unsupported.items():
        if value:
            raise NotImplementedError(f"{name}={value} is not supported")


class RNN(Recurrence):
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh): a drop-in for `torch.nn.RNN` (see `RNNCell`).

    Beyond PyTorch's arguments: nonlinearity also `sigmoid` and `identity`, `backend`, and `init`
    (`default`, `orthogonal`, `identity`) with its `gain`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        init: str = "default",
        gain: float = 1.0,
    ) -> None:
        _refuse(bidirectional=bidirectional)
        cell = make_cell("rnn", nonlinearity=nonlinearity, init=init, gain=gain)
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout)
        super().__init__(cell, *sizes, backend=backend, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity


class LSTM(Recurrence):
    """Input, forget and output gate, cell state: a drop-in for `torch.nn.LSTM` (equations in `LSTMCell`).

    Beyond PyTorch's arguments: `backend`, and `init` (`default`, `orthogonal` with `gain`, `forget_bias`
    with `forget_bias`, `chrono` with `max_lag`).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        init: str = "default",
        forget_bias: float = 1.0,
        gain: float = 1.0,
        max_lag: int | None = None,
    ) -> None:
        _refuse(bidirectional=bidirectional, proj_size=proj_size)
        cell = make_cell("lstm", init=init, forget_bias=forget_bias, gain=gain, max_lag=max_lag)
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout)
        super().__init__(cell, *sizes, backend=backend, device=device, dtype=dtype)


class GRU(Recurrence):
    """Reset and update gate: a drop-in for `torch.nn.GRU` (equations in `GRUCell`).

    Beyond PyTorch's arguments: `backend`, and `init` (`default`, `orthogonal` with `gain`, `chrono` with `max_lag`).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str = "auto",
        init: str = "default",
        gain: float = 1.0,
        max_lag: int | None = None,
    ) -> None:
        _refuse(bidirectional=bidirectional)
        cell = make_cell("gru", init=init, gain=gain, max_lag=max_lag)
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout)
        super().__init__(cell, *sizes, backend=backend, device=device, dtype=dtype)
