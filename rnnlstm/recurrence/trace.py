"""A recurrence that can be looked into: states and gates at every time step, and the gradients that reach them.

∂L/∂h_t is *total*: h_t acts on the loss through the layer's output at t and through everything later. The
output of PyTorch's modules shows the first part only. A traced layer runs the cell's own equations on the
same weights, whatever the backend, so that every h_t and c_t is a tensor that autograd reaches.

Dimensions: L layers, T time steps, B sequences, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rnnlstm.cells import Cell, State, Weights
from rnnlstm.recurrence.modules import Recurrence


class Trace:
    """What passed through a `Recurrence` in its latest forward pass, and the gradients of the backward pass since."""

    def __init__(self) -> None:
        # By layer and name, a list over time of (B, H).
        self._states: list[dict[str, list[Tensor]]] = []
        self._gates: list[dict[str, list[Tensor]]] = []
        self._gradients: list[dict[str, list[Tensor | None]]] = []

    def start(self) -> None:
        """Forget the pass before."""
        self._states, self._gates, self._gradients = [], [], []

    def layer(self, cell: Cell, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
        """One layer by the cell's equations, as `reference_layer` does, with everything kept."""
        if torch.is_grad_enabled() and not any(tensor.requires_grad for tensor in (x, *state, *w.values())):
            # Nothing else asks for gradients: let the initial state, so that they run through time at least cost.
            state = tuple(s.detach().requires_grad_() for s in state)
        states: dict[str, list[Tensor]] = {name: [] for name in cell.state_names}
        gates: dict[str, list[Tensor]] = {name: [] for name in cell.gate_names}
        gradients: dict[str, list[Tensor | None]] = {name: [None] * len(x) for name in cell.state_names}
        for t, projected in enumerate(cell.project(x, w).unbind(0)):
            state, opened = cell.step(projected, state, w)
            for name, value in zip(cell.state_names, state, strict=True):
                states[name].append(value)
                if value.requires_grad:
                    value.register_hook(_keep(gradients[name], t))
            for name in cell.gate_names:
                gates[name].append(opened[name])
        self._states.append(states)
        self._gates.append(gates)
        self._gradients.append(gradients)
        return torch.stack(states[cell.state_names[0]]), state

    @property
    def layers(self) -> int:
        """Layers that were seen; 0 before a forward pass."""
        return len(self._states)

    def states(self, layer: int) -> dict[str, Tensor]:
        """(T, B, H) by the states' names."""
        return {name: torch.stack(steps).detach() for name, steps in self._states[layer].items()}

    def gates(self, layer: int) -> dict[str, Tensor]:
        """(T, B, H) by the gates' names."""
        return {name: torch.stack(steps).detach() for name, steps in self._gates[layer].items()}

    def rows(self, name: str) -> Tensor:
        """float64 (L, T, B): ‖∂L/∂state_t‖² of each sequence, for the state called `name`; 0 where none came."""
        layers = []
        for states, gradients in zip(self._states, self._gradients, strict=True):
            steps = [
                torch.zeros_like(s) if g is None else g for s, g in zip(states[name], gradients[name], strict=True)
            ]
            layers.append(torch.stack(steps).detach().double().square().sum(-1))
        return torch.stack(layers)

    def norms(self, name: str) -> Tensor:
        """float64 (L, T): Frobenius norm of ∂L/∂state_t over the batch and the units."""
        return self.rows(name).sum(-1).sqrt()


def _keep(gradients: list[Tensor | None], t: int) -> Callable[[Tensor], None]:
    """A gradient hook that keeps what it is given."""

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
        return self._get("hidden")

    @property
    def cell(self) -> Tensor:
        """float64 (L, T): ‖∂L/∂c_t‖, for cells with a cell state."""
        return self._get("cell")

    def _get(self, name: str) -> Tensor:
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
        g.hidden  # (L, T)

    `module` is a recurrence of this project, or a module that holds exactly one. Whatever its backend, it
    computes by the cell's own equations while it is recorded. The latest passes count.
    Raises: ValueError if there is no recurrence, or more than one.
    """
    found = [m for m in module.modules() if isinstance(m, Recurrence)]
    if len(found) != 1:
        raise ValueError(f"record_gradients needs a module with one rnnlstm recurrence, this one has {len(found)}")
    recurrence, trace = found[0], Trace()
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
