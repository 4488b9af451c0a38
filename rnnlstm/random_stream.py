"""Random numbers as a pure function of (seed, stream, step): nothing to save, nothing to disturb.

torch's CPU generator uses the low 32 bits of a seed only, so that nearby runs would share batches by
chance; NumPy's SeedSequence mixes the whole key (O'Neill 2015), whatever its size.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

#: What the numbers are for. Streams of one seed are independent of each other.
STREAMS = {"train": 0, "eval": 1, "probe": 2, "init": 3, "noise": 4, "curriculum": 5}


class Draws(Protocol):
    """What a task draws from: this module's `RandomStream`, or `CounterStream`, which draws on a GPU."""

    stream: str  #: its name in `STREAMS`

    def integers(self, low: int | Tensor, high: int | Tensor, shape: tuple[int, ...]) -> Tensor: ...

    def uniform(self, shape: tuple[int, ...]) -> Tensor: ...

    def choose(self, n: int, of: int, sequences: int) -> Tensor: ...


class RandomStream:
    """Draws for one (seed, stream, step), as torch tensors on the CPU.

    seed ≥ 0 is the replica's seed, stream a name in `STREAMS`, step ≥ 0 the number of the batch.
    """

    def __init__(self, seed: int, stream: str = "train", step: int = 0) -> None:
        if stream not in STREAMS:
            raise ValueError(f"stream must be one of {', '.join(STREAMS)}, not {stream!r}")
        if seed < 0 or step < 0:
            raise ValueError(f"seed and step must not be negative: {seed}, {step}")
        self.stream = stream
        self.generator = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence(_key(seed, STREAMS[stream], step)))
        )

    def integers(self, low: int | Tensor, high: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        """int64, uniform on low … high−1; the bounds may be tensors that broadcast to `shape`."""
        bounds = [b.numpy() if isinstance(b, Tensor) else b for b in (low, high)]
        return torch.from_numpy(self.generator.integers(bounds[0], bounds[1], size=shape))

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """float32, uniform on [0, 1)."""
        return torch.from_numpy(self.generator.random(size=shape, dtype=np.float32))

    def choose(self, n: int, of: int, sequences: int) -> Tensor:
        """int64 (n, sequences): for each n of the numbers 0 … of−1, none twice, in random order."""
        return self.uniform((of, sequences)).topk(n, dim=0).indices

    def torch_generator(self) -> torch.Generator:
        """A torch generator seeded from this stream, for torch's own initialisers."""
        return torch.Generator().manual_seed(int(self.generator.integers(2**32)))


def _key(seed: int, stream: int, step: int) -> tuple[int, ...]:
    """32-bit words of fixed meaning: NumPy would cut larger numbers into words without saying where one ends."""
    low, high = (seed % 2**32, stream, step % 2**32), (seed >> 32, step >> 32)
    return low + high if any(high) else low
