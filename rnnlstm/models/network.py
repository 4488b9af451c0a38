"""The network that is trained: embedding (for token tasks), recurrence, readout at every step; and its cost.

Dimensions: T time steps, B sequences, I input features, E features into the first layer, O output features, H hidden
units, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnnlstm.cells import Cell
from rnnlstm.recurrence import Recurrence


@dataclass(frozen=True)
class Sizes:
    """Of a network. `num_tokens` None means float inputs of `input_size` features."""

    num_tokens: int | None
    input_size: int | None
    output_size: int
    hidden_size: int
    num_layers: int = 1
    embedding_size: int = 32

    @property
    def features(self) -> int:
        """Into the first layer: those of the embedding, for tokens."""
        features = self.embedding_size if self.num_tokens is not None else self.input_size
        assert features is not None
        return features


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Draws nothing from the global generator: the weights come from another."""


class Network(nn.Module):
    """inputs int64 (T, B) or float (T, B, I) → outputs (T, B, O).

    Embeddings are N(0, 1) and the readout is uniform on ±1/√H, as PyTorch initialises both, drawn from
    `generator`.
    """

    def __init__(
        self,
        cell: Cell,
        sizes: Sizes,
        *,
        max_lag: int,
        generator: torch.Generator,
        backend: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.embedding: nn.Embedding | None = None
        if sizes.num_tokens is not None:
            table = torch.empty(sizes.num_tokens, sizes.embedding_size, dtype=dtype)
            self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
            nn.init.normal_(self.embedding.weight, generator=generator)
        shape = (sizes.features, sizes.hidden_size, sizes.num_layers)
        self.recurrence = Recurrence(cell, *shape, backend=backend, max_lag=max_lag, generator=generator, dtype=dtype)
        self.readout = _Linear(sizes.hidden_size, sizes.output_size, dtype=dtype)
        bound = 1 / math.sqrt(sizes.hidden_size)
        nn.init.uniform_(self.readout.weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.readout.bias, -bound, bound, generator=generator)

    def forward(
        self, inputs: Tensor, noise: Mapping[str, Tensor] | None = None, scored: Tensor | None = None
    ) -> Tensor:
        """`noise`: the masks of a noisy cell (`draw_masks`). `scored` (N,), places in (T·B): the outputs that are
        wanted, (N, O) in this order."""
        return self.answer(self.embed(inputs), noise, scored)

    def embed(self, inputs: Tensor) -> Tensor:
        """The recurrence's inputs, (T, B, E) or (T, B, I)."""
        if self.embedding is not None:
            embedded: Tensor = self.embedding(inputs)
            return embedded
        return inputs.to(self.readout.weight.dtype)

    def answer(self, x: Tensor, noise: Mapping[str, Tensor] | None = None, scored: Tensor | None = None) -> Tensor:
        """Outputs (T, B, O), or (N, O), from the recurrence's inputs."""
        hidden, _ = self.recurrence.run(x, noise=noise)  # (T, B, H)
        if scored is not None:
            hidden = hidden.flatten(0, 1)[scored]  # a place of -1, of padding, is a row like any other
        outputs: Tensor = self.readout(hidden)
        return outputs


@dataclass(frozen=True)
class Cost:
    """What one replica costs, counted and not measured."""

    parameters: int  #: trained numbers
    multiply_adds: int  #: of the matrix products, for one time step of one sequence, forward
    state: int  #: numbers carried from one time step to the next, for one sequence
    bytes_kept: int  #: outputs, cell states and gates that one time step of one sequence keeps for backward


def network_cost(cell: Cell, sizes: Sizes, bytes_each: int = 4) -> Cost:
    """The cost of a `Network` of these sizes; no weights are made."""
    H, L = sizes.hidden_size, sizes.num_layers
    parameters = (sizes.num_tokens or 0) * sizes.embedding_size + (H + 1) * sizes.output_size
    multiply_adds = H * sizes.output_size
    for layer in range(L):
        shapes = cell.parameter_shapes(sizes.features if layer == 0 else H, H, bias=True).values()
        parameters += sum(math.prod(shape) for shape in shapes)
        multiply_adds += sum(math.prod(shape) for shape in shapes if len(shape) == 2)
    states = len(cell.state_names) * H * L
    kept = states + (cell.blocks if cell.blocks > 1 else 0) * H * L
    return Cost(parameters, multiply_adds, states, kept * bytes_each)
