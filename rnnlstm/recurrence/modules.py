"""Recurrences: how one layer is computed, any cell over time and layers, and drop-ins for `torch.nn`'s modules.

A backend computes one layer. All backends take the same weights and give the same numbers.

Dimensions: T time steps, B sequences, I input features, H hidden units, L layers.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

from rnnlstm.cells import MASKS, Cell, State, Weights, is_noisy, is_operated, make_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import condition_words, default_of, unmet
from rnnlstm.recurrence.fused import fused_layer, has_fused, has_tape
from rnnlstm.recurrence.lengths import Lengths, backwards
from rnnlstm.recurrence.precision import autocast_on

#: (cell, x (T, B, I), state each (B, H), weights, lengths) → outputs (T, B, H), last state
Layer = Callable[[Cell, Tensor, State, Weights, Lengths | None], tuple[Tensor, State]]

BACKENDS = ("auto", "reference", "fused", "torch")


def reference_layer(
    cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None = None
) -> tuple[Tensor, State]:
    """The cell's own equations in a loop over time, differentiated by autograd."""
    outputs = []
    for state, _, _ in unrolled(cell, x, state, w, lengths):  # noqa: B020
        outputs.append(state[0])
    return torch.stack(outputs), state


def unrolled(
    cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None = None
) -> Iterator[tuple[State, State, dict[str, Tensor]]]:
    """The cell's steps over time: state after each, that of the sequences that have this step, and the gates. After
    its end a sequence keeps its state, and its gates are zero."""
    w = cell.prepare(w)
    for t, projected in enumerate(cell.project(x, w).unbind(0)):  # (T, B, G·H) → T times (B, G·H)
        if t > 0 and cell.truncates(len(x) - t):
            state = tuple(s.detach() for s in state)
        if lengths is None or (n := lengths.active[t]) == lengths.sequences:
            state, gates = cell.step(projected, state, w)
            moved = state
        else:
            moved, gates = cell.step(projected[:n], tuple(s[:n] for s in state), w)
            state = tuple(torch.cat([new, s[n:]]) for new, s in zip(moved, state, strict=True))
            gates = {name: F.pad(gate, (0, 0, 0, lengths.sequences - n)) for name, gate in gates.items()}
        yield state, moved, gates


def torch_layer(
    cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None = None
) -> tuple[Tensor, State]:
    """PyTorch's built-in operation, the one that `torch.nn`'s module calls."""
    if lengths is None:
        return cell.torch_layer(x, state, w)
    data, last = cell.torch_layer(lengths.packed(x), state, w, lengths.batch_sizes)
    return lengths.padded(data), last


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


def layer_function(cell: Cell, backend: str, lengths: Lengths | None = None) -> Layer:
    """The function behind a chosen backend. A parallel scan is fused, and needs sequences of one length."""
    if backend == "fused" and lengths is not None and not has_tape(cell):
        return reference_layer
    return {"reference": reference_layer, "fused": fused_layer, "torch": torch_layer}[backend]


def can_vmap(backend: str) -> bool:
    """Whether `torch.func.vmap` maps this backend over replicas; PyTorch's operations have no such rule."""
    return backend != "torch"


class LayerTrace(Protocol):
    """What records a recurrence; `trace.py` has the classes."""

    def start(self) -> None: ...

    def layer(
        self, cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None, backwards: bool
    ) -> tuple[Tensor, State]: ...


class Recurrence(nn.Module):
    """A cell, over time and through layers. Its call takes and returns what `torch.nn`'s recurrent modules do.

    Parameters are named `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, … as PyTorch names them,
    so that a `state_dict` loads both ways. `bidirectional`: a second set of weights in each layer, `…_reverse`, reads
    from the end to the start; the outputs of both lie side by side. `max_lag` is what chrono initialisation
    spans, in steps; `generator` draws the weights (None: torch's global one).

    Dimensions: D directions, 1 or 2.
    Raises: TypeError, ValueError for a size, flag or dropout that `torch.nn` refuses; OptionError if the cell has no
    such backend.
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
        bidirectional: bool = False,
        *,
        backend: str = "auto",
        max_lag: int | None = None,
        generator: torch.Generator | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)  # not RNNBase's, of which the drop-in modules are subclasses
        for name, flag in {"bias": bias, "batch_first": batch_first}.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{name} should be of type bool, got: {type(flag).__name__}")
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if not isinstance(size, int):
                raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
            if size < 1:
                raise ValueError(f"{name} must be greater than zero, not {size}")
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0.0 <= dropout <= 1.0:
            raise ValueError(f"dropout should be a number in range [0, 1], not {dropout!r}")
        if dropout and num_layers == 1:
            warnings.warn(f"dropout={dropout} has no effect: it acts between layers, and there is one", stacklevel=3)
        self.cell, self.backend = cell, choose_backend(cell, backend)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional = bool(bidirectional)
        self.max_lag = max_lag
        self.trace: LayerTrace | None = None  # computes the layers in place of the backend, and records them
        directions = ("", "_reverse") if bidirectional else ("",)
        self._suffixes = [f"_l{layer}{direction}" for layer in range(num_layers) for direction in directions]
        self._directions = len(directions)
        for k, suffix in enumerate(self._suffixes):
            size = input_size if k < len(directions) else hidden_size * len(directions)
            for name, shape in cell.parameter_shapes(size, hidden_size, bias).items():
                weight = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(f"{name}{suffix}", nn.Parameter(weight))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialise the weights again, layer by layer, as the cell does.

        Of a parametrized weight (`torch.nn.utils.parametrize`) the original is initialised, or computed back from an
        initialised weight where there are several originals.
        """
        for k, suffix in enumerate(self._suffixes):
            weights = {name: weight.detach() for name, weight in self.layer_weights(k).items()}
            computed = [name for name in weights if is_parametrized(self, f"{name}{suffix}")]
            for name in list(computed):
                original = getattr(getattr(self.parametrizations, f"{name}{suffix}"), "original", None)
                if original is not None and original.shape == weights[name].shape:
                    weights[name] = original.detach()
                    computed.remove(name)
                else:
                    weights[name] = torch.empty_like(weights[name])
            # Without max_lag, chrono refuses: 0 is below its least.
            self.cell.initialise(weights, generator, self.max_lag or 0)
            for name in computed:
                setattr(self, f"{name}{suffix}", weights[name])

    def layer_weights(self, layer: int) -> dict[str, Tensor]:
        """One layer's weights under the cell's own names. With two directions, layer l has numbers 2l and 2l+1."""
        return {name: getattr(self, full) for name, full in self.weight_names(layer).items()}

    def weight_names(self, layer: int) -> dict[str, str]:
        """The cell's own names of one layer's weights, and this module's."""
        return {name: f"{name}{self._suffixes[layer]}" for name in self.cell.parameter_shapes(1, 1, self.bias)}

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | State | None = None,
        noise: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor | State]:
        """input (T, B, I), (B, T, I) if `batch_first`, unbatched (T, I), or packed; hx each (D·L, B, H) or (D·L, H).
        `noise`: the masks of a noisy cell, as `draw_masks` draws them; without, it computes as in evaluation.

        Returns outputs (T, B, D·H), packed if the input is, and the last states (D·L, B, H): a tensor, or for cells
        with more than one state a tuple of them, all with the input's batch order.
        """
        self._refuse_recording(input)
        x, state, lengths = self._checked(input, hx)
        if noise and (lengths is not None or self.bidirectional):
            raise ValueError("noise is for sequences of one length, read in one direction")
        x, states = self.run(x, state, noise, lengths)
        if isinstance(input, PackedSequence):
            assert lengths is not None
            if input.unsorted_indices is not None:
                states = tuple(s.index_select(1, input.unsorted_indices) for s in states)
            packed = PackedSequence(lengths.packed(x), *input[1:])
            return packed, states if len(states) > 1 else states[0]
        if self.backend == "fused" and self._directions == 1:
            x = x.clone()  # the backward pass needs these; a user may change or resize the outputs
        if input.dim() == 2:
            x, states = x[:, 0], tuple(s[:, 0] for s in states)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, states if len(states) > 1 else states[0]

    def run(
        self,
        x: Tensor,
        state: State | None = None,
        noise: Mapping[str, Tensor] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Tensor, State]:
        """x (T, B, I), state each (D·L, B, H) or zeros → outputs (T, B, D·H), last states. It checks no shapes;
        its outputs must not be changed in place."""
        if noise and not is_noisy(self.cell):
            raise ValueError("noise is for a cell that `noisy` made")
        if state is None:
            zeros = x.new_zeros(len(self._suffixes), x.shape[1], self.hidden_size)
            state = tuple(zeros for _ in self.cell.state_names)
        if self.trace is not None:
            self.trace.start()
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer > 0 and self.dropout:
                x = self._dropped(x, lengths)
            outputs = []
            for back in range(self._directions):
                k = self._directions * layer + back
                masks = {name: noise[key] for name in MASKS if (key := f"{name}_l{layer}") in noise} if noise else {}
                given = (
                    backwards(x, lengths) if back else x,
                    tuple(s[k] for s in state),
                    self.layer_weights(k) | masks,
                )
                if self.trace is not None:
                    out, end = self.trace.layer(self.cell, *given, lengths, bool(back))
                else:
                    out, end = layer_function(self.cell, self.backend, lengths)(self.cell, *given, lengths)
                outputs.append(backwards(out, lengths) if back else out)
                last.append(end)
            x = outputs[0] if self._directions == 1 else torch.cat(outputs, -1)
        return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))  # each (D·L, B, H)

    def _dropped(self, x: Tensor, lengths: Lengths | None) -> Tensor:
        """Dropout of what goes into the next layer, with the numbers that `torch.nn` draws."""
        if lengths is None:
            return F.dropout(x, self.dropout, self.training)
        return lengths.padded(F.dropout(lengths.packed(x), self.dropout, self.training))

    def _checked(
        self, input: Tensor | PackedSequence, hx: Tensor | State | None
    ) -> tuple[Tensor, State | None, Lengths | None]:
        """Input as (T, B, I), given states as (D·L, B, H), lengths of a packed input. Raises: TypeError,
        ValueError and RuntimeError where PyTorch does."""
        lengths, order = None, None
        if isinstance(input, PackedSequence):
            data, batch_sizes, order, _ = input
            if data.dim() != 2:
                raise RuntimeError(f"packed input must have 2 dimensions, got {data.dim()}")
            lengths = Lengths(batch_sizes, data.device)
        else:
            data = input
            if not isinstance(data, Tensor):
                raise TypeError(f"input must be a tensor or a packed sequence, not {type(data).__name__}")
            if data.dim() not in (2, 3):
                raise ValueError(f"expected input of 2 or 3 dimensions, got {data.dim()}")
        if data.shape[-1] != self.input_size:
            raise RuntimeError(f"input has {data.shape[-1]} features, input_size is {self.input_size}")
        weights, autocast = next(iter(self.layer_weights(0).values())), autocast_on(data.device)
        if data.dtype != weights.dtype and not autocast:
            ways = f"Convert input: input.to({weights.dtype}), or convert model: model.to({data.dtype})"
            raise ValueError(f"RNN input dtype ({data.dtype}) does not match weight dtype ({weights.dtype}). {ways}")
        batched = lengths is not None or data.dim() == 3
        if lengths is not None:
            x = lengths.padded(data)
        else:
            x = data if batched else data[:, None]
            if batched and self.batch_first:
                x = x.transpose(0, 1)
        if x.shape[0] == 0:
            raise RuntimeError("expected at least one time step")
        if hx is None:
            return x, None, lengths
        shape = (len(self._suffixes), x.shape[1], self.hidden_size)
        names = self.cell.state_names
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if len(states) != len(names):
            raise RuntimeError(f"expected {len(names)} initial state(s) ({', '.join(names)}), got {len(states)}")
        expected = shape if batched else (shape[0], shape[2])
        for name, state in zip(names, states, strict=True):
            if not isinstance(state, Tensor):
                raise TypeError(f"the {name} state must be a tensor, not {type(state).__name__}")
            if tuple(state.shape) != expected:
                raise RuntimeError(f"expected {name} state of shape {expected}, got {tuple(state.shape)}")
            if state.dtype != data.dtype and not autocast:
                raise RuntimeError(
                    f"the {name} state is {state.dtype}, the input is {data.dtype}: convert one of them"
                )
        if order is not None:
            states = tuple(s.index_select(1, order) for s in states)
        return x, states if batched else tuple(s[:, None] for s in states), lengths

    def __prepare_scriptable__(self) -> None:
        """What `torch.jit.script` asks for first."""
        raise RuntimeError("torch.jit.script can't compile it; torch.jit.trace records it with backend='reference'")

    def _refuse_recording(self, input: object) -> None:
        """Raises: RuntimeError where something records the operations, and the fused backend has none to record."""
        if isinstance(input, torch.fx.Proxy):
            raise RuntimeError("torch.fx can't trace it; torch.export records it with backend='reference'")
        if self.backend == "fused":
            for how, on in (
                ("torch.jit.trace", torch._C._get_tracing_state() is not None),
                ("torch.export", _is_exporting()),
            ):
                if on:
                    raise RuntimeError(f"{how} can't record the fused backend; use backend='reference'")

    def extra_repr(self) -> str:
        others = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False}
        changed = [f"{name}={getattr(self, name)}" for name, usual in others.items() if getattr(self, name) != usual]
        return ", ".join(
            [f"{self.input_size}, {self.hidden_size}", *changed, f"{self.cell}", f"backend={self.backend}"]
        )


def _is_exporting() -> bool:
    """Whether torch.export records. Older versions of PyTorch can't say; there it fails with words of its own."""
    asked = getattr(torch.compiler, "is_exporting", None)
    return asked is not None and asked()


class _DropIn(Recurrence, nn.RNNBase):
    """What is special to the modules that stand in for PyTorch's own: they are `RNNBase`s, with its attributes."""

    def __init__(
        self,
        mode: str,
        cell: Cell,
        sizes: tuple[Any, ...],
        proj_size: int,
        backend: str,
        device: Any,
        dtype: torch.dtype | None,
    ) -> None:
        if proj_size:
            raise NotImplementedError(f"proj_size={proj_size} is not supported")
        for option in dataclasses.fields(cell):
            acts_if, value = option.metadata["acts_if"], getattr(cell, option.name)
            if acts_if and value != default_of(option) and unmet(acts_if, cell.__getattribute__):
                raise OptionError(option.name, value, f"has no effect; it belongs to {condition_words(acts_if)}")
        super().__init__(cell, *sizes, backend=backend, device=device, dtype=dtype)
        self.mode, self.proj_size = mode, 0
        # What RNNBase's own methods look for.
        names = self.cell.parameter_shapes(1, 1, self.bias)
        self._all_weights = [[f"{name}{suffix}" for name in names] for suffix in self._suffixes]
        self._flat_weights_names = [name for names in self._all_weights for name in names]
        self._init_flat_weights()


class RNN(_DropIn):
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
        proj_size: int = 0,
        backend: str = "auto",
        init: str = "default",
        gain: float = 1.0,
    ) -> None:
        if proj_size:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        cell = make_cell("rnn", nonlinearity=nonlinearity, init=init, gain=gain)
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(f"RNN_{nonlinearity.upper()}", cell, sizes, proj_size, backend, device, dtype)
        self.nonlinearity = nonlinearity


class LSTM(_DropIn):
    """Input, forget and output gate, cell state: a drop-in for `torch.nn.LSTM` (equations in `LSTMCell`).

    Beyond PyTorch's arguments: `backend`, and `init` (`default`, `orthogonal` with `gain`, `forget_bias`
    with `forget_bias`, `chrono` with `max_lag`; the last two with `input_bias`).
    Raises: NotImplementedError for `proj_size`.
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
        input_bias: float | str | None = None,
        gain: float = 1.0,
        max_lag: int | None = None,
    ) -> None:
        options = {"forget_bias": forget_bias, "input_bias": input_bias, "gain": gain, "max_lag": max_lag}
        cell = make_cell("lstm", init=init, **options)
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__("LSTM", cell, sizes, proj_size, backend, device, dtype)


class GRU(_DropIn):
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
        proj_size: int = 0,
        backend: str = "auto",
        init: str = "default",
        gain: float = 1.0,
        max_lag: int | None = None,
    ) -> None:
        if proj_size:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        cell = make_cell("gru", init=init, gain=gain, max_lag=max_lag)
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__("GRU", cell, sizes, proj_size, backend, device, dtype)
