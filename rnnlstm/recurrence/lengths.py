"""Sequences of different lengths in one batch, longest first: between PyTorch's packed form and a padded one.

Dimensions: T time steps of the longest sequence, B sequences, F features, N = Σ lengths.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor


class Lengths:
    """The lengths in a batch, from the `batch_sizes` of a `torch.nn.utils.rnn.PackedSequence`."""

    def __init__(self, batch_sizes: Tensor, device: torch.device) -> None:
        """`batch_sizes`: int64 (T,) on the CPU, how many sequences have each time step; it never grows."""
        self.batch_sizes = batch_sizes
        self.active: list[int] = batch_sizes.tolist()  #: the same, by time step
        self.steps, self.sequences = len(self.active), self.active[0]
        there = torch.arange(self.sequences) < batch_sizes[:, None]
        self.each = there.sum(0)  #: int64 (B,) on the CPU, never growing
        self.mask, self.device = there.to(device), device  # (T, B), whether a sequence has a time step

    def padded(self, data: Tensor) -> Tensor:
        """Packed (N, F) → (T, B, F), zero after a sequence's end."""
        return data.new_zeros(*self.mask.shape, data.shape[-1]).masked_scatter(self.mask[..., None], data)

    def packed(self, x: Tensor) -> Tensor:
        """(T, B, F) → (N, F), in the order of PyTorch's packed sequences."""
        return x[self.mask]

    def last(self, states: Tensor) -> Tensor:
        """(…, T, B, F) → (…, B, F): each sequence's state at its last time step."""
        return states[..., self._last_step, torch.arange(self.sequences, device=self.device), :]

    def reversed(self, x: Tensor) -> Tensor:
        """(T, B, F) or (T, B) with each sequence from its end to its start; what follows the end stays there."""
        return x[self._backwards, torch.arange(self.sequences, device=self.device)]

    @cached_property
    def _last_step(self) -> Tensor:
        return (self.each - 1).to(self.device)

    @cached_property
    def _backwards(self) -> Tensor:
        steps = torch.arange(self.steps)[:, None]
        return torch.where(steps < self.each, self.each - 1 - steps, steps).to(self.device)


def backwards(x: Tensor, lengths: Lengths | None) -> Tensor:
    """(T, B, …) from the last time step to the first, in each sequence's own length."""
    return x.flip(0) if lengths is None else lengths.reversed(x)
