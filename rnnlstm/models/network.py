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


class Network(nn.Module):
    """inputs int64 (T, B) or float (T, B, I) → outputs (T, B, O). Its sizes come from the task.

    Embeddings are N(0, 1) and the readout is uniform on ±1/√H, as PyTorch initialises both, drawn from
    `generator`. `num_tokens` None means float inputs of `input_size` features.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        num_tokens: int | None,
        input_size: int | None,
        output_size: int,
        hidden_size: int,
        num_layers: int,
        embedding_size: int,
        max_lag: int,
        backend: str,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        # skip_init draws nothing from the global generator; the weights come from `generator`.
        self.embedding: nn.Embedding | None = None
        if num_tokens is not None:
            self.embedding = nn.utils.skip_init(nn.Embedding, num_tokens, embedding_size, dtype=dtype)
            nn.init.normal_(self.embedding.weight, generator=generator)
            input_size = embedding_size
        assert input_size is not None
        self.recurrence = Recurrence(
            cell,
            input_size,
            hidden_size,
            num_layers,
            backend=backend,
            max_lag=max_lag,
            generator=generator,
            dtype=dtype,
        )
        self.readout = nn.utils.skip_init(nn.Linear, hidden_size, output_size, dtype=dtype)
        bound = 1 / math.sqrt(hidden_size)
        nn.init.uniform_(self.readout.weight, -bound, bound, generator=generator)
        nn.init.uniform_(self.readout.bias, -bound, bound, generator=generator)

    def forward(self, inputs: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """`noise`: the masks of a noisy cell (`draw_masks`)."""
        return self.answer(self.embed(inputs), noise)

    def embed(self, inputs: Tensor) -> Tensor:
        """The recurrence's inputs, (T, B, E) or (T, B, I)."""
        if self.embedding is not None:
            embedded: Tensor = self.embedding(inputs)
            return embedded
        return inputs.to(self.readout.weight.dtype)

    def answer(self, x: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """Outputs (T, B, O) from the recurrence's inputs."""
        hidden, _ = self.recurrence(x, noise=noise)  # (T, B, H)
        outputs: Tensor = self.readout(hidden)
        return outputs


@dataclass(frozen=True)
class Cost:
    """What one replica costs, counted and not measured."""

    parameters: int  #: trained numbers
    multiply_adds: int  #: of the matrix products, for one time step of one sequence, forward
    state: int  #: numbers carried from one time step to the next, for one sequence
    bytes_kept: int  #: outputs, cell states and gates that one time step of one sequence keeps for backward


def network_cost(
    cell: Cell,
    *,
    num_tokens: int | None,
    input_size: int | None,
    output_size: int,
    hidden_size: int,
    num_layers: int,
    embedding_size: int,
    bytes_each: int = 4,
) -> Cost:
    """The cost of a `Network` of these sizes; no weights are made."""
    features = embedding_size if num_tokens is not None else input_size
    assert features is not None
    parameters = (num_tokens or 0) * embedding_size + (hidden_size + 1) * output_size
    multiply_adds = hidden_size * output_size
    for layer in range(num_layers):
        shapes = cell.parameter_shapes(features if layer == 0 else hidden_size, hidden_size, bias=True).values()
        parameters += sum(math.prod(shape) for shape in shapes)
        multiply_adds += sum(math.prod(shape) for shape in shapes if len(shape) == 2)
    states = len(cell.state_names) * hidden_size * num_layers
    kept = states + (cell.blocks if cell.blocks > 1 else 0) * hidden_size * num_layers
    return Cost(parameters, multiply_adds, states, kept * bytes_each)
