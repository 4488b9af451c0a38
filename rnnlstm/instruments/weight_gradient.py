"""The weight gradient decomposed by the time step at which the weight was used, and by its lag before the loss.

Backpropagation through time sums over every use of a weight (Werbos 1990):

    G = ∂L/∂W = Σ_s Σ_{t ≤ s} G_{s,t},        G_{s,t}: of the loss at position s, through the use of W at step t

by time step: Σ_s G_{s,t}; by lag k = s − t: Σ_s G_{s,s−k}. Truncated at k: G_≤k = Σ_{j ≤ k} G_j, and its share of
the whole is ⟨G_≤k, G⟩ / ‖G‖², which ends at 1. Exact for every cell: each time step gets its own copy of the
weights, and autograd differentiates by each copy. Memory: T times the weights, twice.

Dimensions: T time steps, K = T lags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import State
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.tasks.batch import Batch


@dataclass(frozen=True)
class WeightGradient:
    """One layer's recurrence, all its weights as one vector of N numbers."""

    whole: Tensor  #: (N,): autograd's, of the ordinary network
    by_step: Tensor  #: (T, N)
    by_lag: Tensor  #: (K, N)

    @property
    def share(self) -> Tensor:
        """⟨G_≤k, G⟩ / ‖G‖² for k = 0 … T−1: (K,)."""
        return (self.by_lag @ self.whole).cumsum(0) / self.whole.square().sum()

    @property
    def norms(self) -> Tensor:
        """‖G_k‖ by lag: (K,)."""
        return self.by_lag.norm(dim=1)

    @property
    def error(self) -> float:
        """Distance of the sums from autograd's gradient, relative to its norm: the larger of the two."""
        return max((part.sum(0) - self.whole).norm().item() for part in (self.by_step, self.by_lag)) / max(
            self.whole.norm().item(), 1e-300
        )


def weight_gradients(analysed: AnalysedNetwork, everywhere: bool = False) -> list[WeightGradient]:
    """For each layer. The loss at the last scored positions, or `everywhere` the task's whole loss, with a backward
    pass for every scored position."""
    batch = analysed.batch if everywhere else analysed.at_last
    whole = _autograd(analysed, batch)
    outputs, copies = _with_copies(analysed)
    T = len(batch.mask)
    by_step = [torch.zeros(T, len(g), dtype=torch.float64) for g in whole]
    by_lag = [torch.zeros(T, len(g), dtype=torch.float64) for g in whole]
    flat = [copy for layer in copies for copy in layer]
    for s, loss in _losses(analysed, batch, outputs):
        gradients = iter(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True))
        for layer, names in enumerate(copies):
            parts = [torch.zeros_like(c) if g is None else g for c, g in zip(names, gradients, strict=False)]
            steps = torch.cat([part.reshape(T, -1) for part in parts], 1)  # (T, N)
            by_step[layer] += steps
            by_lag[layer][: s + 1] += steps[: s + 1].flip(0)
    return [WeightGradient(*parts) for parts in zip(whole, by_step, by_lag, strict=True)]


def _autograd(analysed: AnalysedNetwork, batch: Batch) -> list[Tensor]:
    """G of each layer by the network's own backward pass."""
    analysed.network.zero_grad()
    with torch.enable_grad():
        analysed.task.loss(analysed.network(batch.inputs), batch).backward()
    recurrence = analysed.network.recurrence
    by_layer = []
    for layer in range(analysed.layers):
        gradients = [w.grad for w in recurrence.layer_weights(layer).values()]
        by_layer.append(torch.cat([g.flatten() for g in gradients if g is not None]))
    analysed.network.zero_grad()
    return by_layer


def _with_copies(analysed: AnalysedNetwork) -> tuple[Tensor, list[list[Tensor]]]:
    """Outputs of the network, and for each layer its weights' copies, (T, …) each."""
    cell, recurrence = analysed.cell, analysed.network.recurrence
    with torch.no_grad():
        x = analysed.network.embed(analysed.batch.inputs)
    T, B = x.shape[:2]
    copies: list[list[Tensor]] = []
    with torch.enable_grad():
        for layer in range(analysed.layers):
            weights = analysed.weights(layer)
            own = {n: w.expand(T, *w.shape).clone().requires_grad_() for n, w in weights.items()}
            copies.append(list(own.values()))
            steps = {name: copy.unbind(0) for name, copy in own.items()}
            state: State = tuple(x.new_zeros(B, recurrence.hidden_size) for _ in cell.state_names)
            outputs = []
            for t in range(T):
                w = cell.prepare({name: steps[name][t] for name in steps})
                if t > 0 and cell.truncates(T - t):
                    state = tuple(s.detach() for s in state)
                state, _ = cell.step(cell.project(x[t], w), state, w)
                outputs.append(state[0])
            x = torch.stack(outputs)
        return analysed.network.readout(x), copies


def _losses(analysed: AnalysedNetwork, batch: Batch, outputs: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each scored position and its part of the loss, a mean over all scored ones."""
    count = batch.mask.sum().item()
    for s in batch.mask.any(1).nonzero()[:, 0].tolist():
        here = torch.zeros_like(batch.mask)
        here[s] = batch.mask[s]
        yield s, analysed.task.loss(outputs, dataclasses.replace(batch, mask=here)) * (here.sum().item() / count)
