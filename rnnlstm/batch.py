"""What a task hands to the trainer. Dimensions: T time steps, B sequences, I input and O output features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B sequences of T steps, time first."""

    inputs: Tensor  #: float32 (T, B, I), or token numbers int64 (T, B)
    targets: Tensor  #: class numbers int64 (T, B), or float32 (T, B, O); only scored positions matter
    mask: Tensor  #: bool (T, B), true where the answer is scored
    kinds: Tensor | None = None  #: int8 (T, B), index into `task.kind_names`: what kind of token stands there

    @property
    def size(self) -> int:
        return self.inputs.shape[1]

    def sequence(self, b: int) -> Batch:
        """Sequence `b` as a batch of one."""
        kinds = None if self.kinds is None else self.kinds[:, b : b + 1]
        return Batch(self.inputs[:, b : b + 1], self.targets[:, b : b + 1], self.mask[:, b : b + 1], kinds)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; itself if it is there already."""
        if self.inputs.device == device:
            return self
        kinds = None if self.kinds is None else self.kinds.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), self.mask.to(device), kinds)
