"""Records a recurrence: states and gates at every time step, and the gradients that reach them.

∂L/∂h_t is *total*: h_t acts on the loss through the layer's output at t and through all later steps. The output of
PyTorch's modules shows the first part only. Whatever the backend, a traced layer is computed from scratch on the same
weights, where every ∂L/∂h_t and ∂L/∂c_t can be read.

Dimensions: L layers, T time steps, B sequences, H hidden units.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rnnlstm.cells import Cell, State, Weights
from rnnlstm.recurrence.fused import Tape, fused_pass, has_tape
from rnnlstm.recurrence.lengths import Lengths, backwards
from rnnlstm.recurrence.modules import Recurrence, unrolled


class Trace:
    """States and gates of a `Recurrence` in its latest forward pass, and the gradients of its backward pass."""

    def __init__(self, step_by_step: bool = False) -> None:
        """`step_by_step` computes as the reference backend does, also where the cell has a fused form."""
        self.step_by_step = step_by_step
        self._layers: list[_StepByStep | _Fused] = []
        self._order: list[Callable[[Tensor], Tensor]] = []  # by layer: how its time steps are put into their order

    def start(self) -> None:
        """Discard the previous pass."""
        self._layers, self._order = [], []

    def layer(
        self, cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None = None, back: bool = False
    ) -> tuple[Tensor, State]:
        """One layer from scratch, with everything kept: fused where the cell has it. `back`: x runs backwards in
        time; what is kept runs forwards."""
        fused = has_tape(cell) and not self.step_by_step
        if torch.is_grad_enabled() and not any(tensor.requires_grad for tensor in (x, *state, *w.values())):
            # Nothing requires gradients, but something must, for them to flow through time. The initial state costs
            # least; the input is needed where surgery may cut the states' graph.
            if fused:
                state = tuple(s.detach().requires_grad_() for s in state)
            else:
                x = x.detach().requires_grad_()
        seen = (_Fused if fused else _StepByStep)(cell, x, state, w, lengths)
        self._layers.append(seen)
        self._order.append(functools.partial(backwards, lengths=lengths) if back else lambda values: values)
        return seen.outputs, seen.last

    @property
    def layers(self) -> int:
        """Number of layers recorded; 0 before a forward pass."""
        return len(self._layers)

    def states(self, layer: int) -> dict[str, Tensor]:
        """(T, B, H) by the states' names."""
        return {name: self._order[layer](value) for name, value in self._layers[layer].states().items()}

    def gates(self, layer: int) -> dict[str, Tensor]:
        """(T, B, H) by the gates' names."""
        return {name: self._order[layer](value) for name, value in self._layers[layer].gates().items()}

    def rows(self, name: str) -> Tensor:
        """float64 (L, T, B): ‖∂L/∂state_t‖² of each sequence, for the state called `name`; 0 where no gradient
        came, and after a sequence's end."""
        return torch.stack([order(each.rows(name)) for order, each in zip(self._order, self._layers, strict=True)])

    def direct_rows(self) -> Tensor:
        """float64 (L, T, B): ‖·‖² of the *direct* part of ∂L/∂h_t, which reaches h_t through the layer's output at t
        and not through later steps. The outputs of PyTorch's modules show this part alone."""
        pairs = zip(self._order, self._layers, strict=True)
        return torch.stack([order(each.direct.rows(each.outputs)) for order, each in pairs])

    def norms(self, name: str) -> Tensor:
        """float64 (L, T): Frobenius norm of ∂L/∂state_t over the batch and the units."""
        return self.rows(name).sum(-1).sqrt()


class _Fused:
    """A layer by the fused backend, whose backward pass also computes the norms."""

    def __init__(self, cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None) -> None:
        self._names, self._tape = cell.state_names, Tape()
        self._seen = fused_pass(cell, x, state, w, self._tape, lengths)
        self.outputs, self.last = self._seen.outputs, self._seen.last
        self.direct = _Direct(self.outputs)

    def states(self) -> dict[str, Tensor]:
        values = (self.outputs.detach(), self._seen.cells.detach())
        return dict(zip(self._names, values, strict=False))

    def gates(self) -> dict[str, Tensor]:
        return {name: gate.detach() for name, gate in self._seen.gates().items()}

    def rows(self, name: str) -> Tensor:
        rows = self._tape.hidden if name == "hidden" else self._tape.cell
        if rows is None:  # no gradient has come
            return self.outputs.new_zeros(self.outputs.shape[:2], dtype=torch.float64)
        return rows[0]


class _StepByStep:
    """A layer by the cell's step in a loop, with a hook on every state."""

    def __init__(self, cell: Cell, x: Tensor, state: State, w: Weights, lengths: Lengths | None) -> None:
        self._states: dict[str, list[Tensor]] = {name: [] for name in cell.state_names}
        self._gates: dict[str, list[Tensor]] = {name: [] for name in cell.gate_names}
        self._gradients: dict[str, list[Tensor | None]] = {name: [None] * len(x) for name in cell.state_names}
        for t, (state, moved, opened) in enumerate(unrolled(cell, x, state, w, lengths)):  # noqa: B020
            for name, value, reached in zip(cell.state_names, state, moved, strict=True):
                self._states[name].append(value)
                if reached.requires_grad:
                    reached.register_hook(_keep(self._gradients[name], t))
            for name in cell.gate_names:
                self._gates[name].append(opened[name])
        self.outputs, self.last = torch.stack(self._states[cell.state_names[0]]), state
        self.direct = _Direct(self.outputs)

    def states(self) -> dict[str, Tensor]:
        return {name: torch.stack(steps).detach() for name, steps in self._states.items()}

    def gates(self) -> dict[str, Tensor]:
        return {name: torch.stack(steps).detach() for name, steps in self._gates.items()}

    def rows(self, name: str) -> Tensor:
        rows = self.outputs.new_zeros(self.outputs.shape[:2], dtype=torch.float64)
        for row, gradient in zip(rows, self._gradients[name], strict=True):
            if gradient is not None:  # of the sequences that have this step, the first ones
                row[: len(gradient)] = gradient.detach().double().square().sum(-1)
        return rows


class _Direct:
    """The gradient that comes to a layer's outputs from above."""

    def __init__(self, outputs: Tensor) -> None:
        self._kept: list[Tensor | None] = [None]
        if outputs.requires_grad:
            outputs.register_hook(_keep(self._kept, 0))

    def rows(self, outputs: Tensor) -> Tensor:
        gradient = self._kept[0]
        if gradient is None:
            return outputs.new_zeros(outputs.shape[:2], dtype=torch.float64)
        return gradient.detach().double().square().sum(-1)


def _keep(gradients: list[Tensor | None], t: int) -> Callable[[Tensor], None]:
    """A gradient hook that stores the gradient of time step t."""

    def hook(gradient: Tensor) -> None:
        gradients[t] = gradient

    return hook


class GradientRecord:
    """Norms of the total gradients through time, after a backward pass within `record_gradients`."""

    def __init__(self, trace: Trace, names: tuple[str, ...]) -> None:
        self._trace, self._names = trace, names

    @property
    def hidden(self) -> Tensor:
        """float64 (L, T): ‖∂L/∂h_t‖ over the batch and the units."""
        return self.of("hidden")

    @property
    def cell(self) -> Tensor:
        """float64 (L, T): ‖∂L/∂c_t‖, for cells with a cell state."""
        return self.of("cell")

    def of(self, name: str) -> Tensor:
        """float64 (L, T): the same of the state that the cell calls `name`."""
        if name not in self._names:
            raise AttributeError(f"this recurrence has no {name} state, only {', '.join(self._names)}")
        if not self._trace.layers:
            raise RuntimeError("nothing was recorded: run forward and backward within record_gradients")
        return self._trace.norms(name)


@contextmanager
def record_gradients(module: nn.Module) -> Iterator[GradientRecord]:
    """Record ‖∂L/∂h_t‖, and ‖∂L/∂c_t‖ where there is a cell state, at every time step and layer::

        with rnnlstm.record_gradients(model) as g:
            loss(model(x)).backward()
        g.hidden  # (L, T); with two directions (2L, T), in the order of the module's states

    `module` is a recurrence of this project, or a module that holds exactly one. With backend `torch` it computes
    from scratch, on the same weights, while it is recorded. Later passes replace earlier
    ones.
    Raises: ValueError if there is no recurrence, or more than one.
    """
    recurrences = [m for m in module.modules() if isinstance(m, Recurrence)]
    if len(recurrences) != 1:
        raise ValueError(
            f"record_gradients needs a module with one rnnlstm recurrence, this one has {len(recurrences)}"
        )
    recurrence, trace = recurrences[0], Trace(step_by_step=recurrences[0].backend == "reference")
    with traced(recurrence, trace):
        yield GradientRecord(trace, recurrence.cell.state_names)


@contextmanager
def traced(recurrence: Recurrence, trace: Trace) -> Iterator[None]:
    """Let `trace` watch every forward pass of `recurrence`."""
    before, recurrence.trace = recurrence.trace, trace
    try:
        yield
    finally:
        recurrence.trace = before
