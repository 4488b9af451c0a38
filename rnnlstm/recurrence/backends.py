"""Backends: how one layer's recurrence is computed. All take the same weights and give the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rnnlstm.cells import Cell, State, Weights, is_noisy, is_operated
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
