"""The network that is trained: embedding (for token tasks), recurrence, readout at every step.

Dimensions: T time steps, B sequences, I input features, O output features, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

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
        # Built without a draw from the global generator, then filled from the explicit one.
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
        """What enters the recurrence, (T, B, E) or (T, B, I)."""
        if self.embedding is not None:
            embedded: Tensor = self.embedding(inputs)
            return embedded
        return inputs.to(self.readout.weight.dtype)

    def answer(self, x: Tensor, noise: Mapping[str, Tensor] | None = None) -> Tensor:
        """From what enters the recurrence to outputs (T, B, O)."""
        hidden, _ = self.recurrence(x, noise=noise)  # (T, B, H)
        outputs: Tensor = self.readout(hidden)
        return outputs
