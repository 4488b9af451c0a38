"""The batch, which a task hands to the trainer.

Dimensions: T time steps, B sequences, I input and O output features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

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
        return self.sequences(slice(b, b + 1))

    def sequences(self, which: slice) -> Batch:
        """Some of the sequences."""
        kinds = None if self.kinds is None else self.kinds[:, which]
        return Batch(self.inputs[:, which], self.targets[:, which], self.mask[:, which], kinds)

    @cached_property
    def scored(self) -> Tensor:
        """int64 (scored,): the scored positions, as indices into (T·B). Faster than the mask on a GPU: at each use of
        a mask the CPU waits until the GPU has counted it."""
        return self.mask.flatten().nonzero()[:, 0]

    def at_scored(self, values: Tensor) -> Tensor:
        """What `values` (T, B, …) has at the scored positions: (scored, …)."""
        return values.flatten(0, 1)[self.scored]

    def answers(self, outputs: Tensor) -> Tensor:
        """The answers (scored, O), picked from outputs (T, B, O); answers that are picked already stay as they are.

        Raises: ValueError if those are not as many as the scored positions.
        """
        if outputs.dim() != 2:
            return self.at_scored(outputs)
        if len(outputs) != len(self.scored):
            raise ValueError(f"got {len(outputs):,} answers for {len(self.scored):,} scored positions")
        return outputs

    @property
    def scored_sequences(self) -> Tensor:
        """int64 (scored,): the number of each scored position's sequence."""
        return self.scored % self.size

    def tensors(self) -> dict[str, Tensor]:
        """All of the batch by name, `scored` included."""
        tensors = {"inputs": self.inputs, "targets": self.targets, "mask": self.mask, "scored": self.scored}
        return tensors if self.kinds is None else {**tensors, "kinds": self.kinds}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Batch:
        """The batch from its `tensors`."""
        batch = cls(tensors["inputs"], tensors["targets"], tensors["mask"], tensors.get("kinds"))
        return batch.knowing(tensors["scored"])

    def knowing(self, scored: Tensor) -> Batch:
        """This batch, with `scored` already computed."""
        self.__dict__["scored"] = scored  # where cached_property keeps it
        return self

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; itself if it is there already."""
        if self.inputs.device == device:
            return self
        return Batch.of({name: tensor.to(device) for name, tensor in self.tensors().items()})
