"""Random numbers as a pure function of (seed, stream, step): there is no generator state to save or to disturb.

`RandomStream` draws on the CPU by NumPy's PCG64, seeded by SeedSequence (O'Neill 2015), which mixes the whole key.
torch's CPU generator uses the low 32 bits of a seed only, so that nearby runs would share batches by chance.

`CounterStream` draws on any device, with the same numbers on each (`data=device`). Philox-4x32-10 (Salmon, Moraes,
Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter and a key into four words of 32
bits, by integer arithmetic alone. The key is the replica's seed; the counter numbers the draw, the sequence and the
batch. So each number can be computed without the others, and those of all replicas are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

#: What the numbers are for. Streams of one seed are independent of each other.
STREAMS = {"train": 0, "eval": 1, "probe": 2, "init": 3, "noise": 4, "curriculum": 5, "test": 6}


class RandomSource(Protocol):
    """What a task draws from: `RandomStream`, several at once (`RandomStreams`), or `CounterStream`."""

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


class RandomStreams:
    """Draws of several streams side by side, `each` sequences of every one, with the numbers that each draws alone.

    The last dimension of each draw must be the sequences, and so must that of bounds that differ between them.
    """

    def __init__(self, streams: Sequence[RandomStream], each: int) -> None:
        self.stream = streams[0].stream
        self._streams, self._each = streams, each

    def integers(self, low: int | Tensor, high: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        lows, highs, shape = self._split(low), self._split(high), self._shape(shape)
        drawn = zip(self._streams, lows, highs, strict=True)
        return torch.cat([stream.integers(a, b, shape) for stream, a, b in drawn], -1)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        shape = self._shape(shape)
        return torch.cat([stream.uniform(shape) for stream in self._streams], -1)

    def choose(self, n: int, of: int, sequences: int) -> Tensor:
        (each,) = self._shape((sequences,))
        return torch.cat([stream.choose(n, of, each) for stream in self._streams], -1)

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What each stream draws. Raises: ValueError if the last dimension is not that of the sequences."""
        sequences = self._each * len(self._streams)
        if not shape or shape[-1] != sequences:
            raise ValueError(f"the last dimension of what is drawn must be the {sequences} sequences, not {shape}")
        return (*shape[:-1], self._each)

    def _split(self, bound: int | Tensor) -> Sequence[int | Tensor]:
        """The bound of each stream."""
        if isinstance(bound, Tensor) and bound.shape[-1:] == (self._each * len(self._streams),):
            return bound.split(self._each, -1)
        return [bound] * len(self._streams)


def _key(seed: int, stream: int, step: int) -> tuple[int, ...]:
    """32-bit words of fixed meaning: NumPy would cut larger numbers into words without saying where one ends."""
    low, high = (seed % 2**32, stream, step % 2**32), (seed >> 32, step >> 32)
    return low + high if any(high) else low


class LookupTable:
    """Numbers that a task looks up with what it drew. Copied to a device once, when first needed there."""

    def __init__(self, values: Tensor | np.ndarray | Sequence[int]) -> None:
        self._values = torch.as_tensor(values, device="cpu")
        self._sent: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._values)

    def on(self, device: torch.device) -> Tensor:
        if device.type in ("cpu", "meta"):  # here already, or a tensor without numbers
            return self._values.to(device)
        if device not in self._sent:
            self._sent[device] = self._values.to(device)
        return self._sent[device]

    def at(self, places: Tensor) -> Tensor:
        """The numbers at `places`, int64 of any shape; the table must have one dimension."""
        return self.on(places.device).index_select(0, places.flatten()).view(places.shape)  # faster than by `take`


MULTIPLIERS, WEYL, ROUNDS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10
WORD = 0xFFFFFFFF  #: the 32 bits of a word, in an int64
Key = tuple[Tensor, Tensor]  #: two words


def philox(counter: Sequence[Tensor], keys: Sequence[Key]) -> tuple[Tensor, ...]:
    """The four words for each counter of four words, under the `rounds` of a key; all are int64 with values below
    2³², of shapes that broadcast to one another."""
    a, b, c, d = counter
    for low, high in keys:
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]  # wraps around; every bit of the 64 is right
        a, b = (second >> 32 & WORD) ^ b ^ low, second & WORD
        c, d = (first >> 32 & WORD) ^ d ^ high, first & WORD
    return a, b, c, d


def rounds(key: Key) -> list[Key]:
    """What each round takes of a key."""
    return [(key[0] + k * WEYL[0] & WORD, key[1] + k * WEYL[1] & WORD) for k in range(ROUNDS)]


@dataclass(frozen=True)
class PhiloxKeys:
    """Keys and numbers of the sequences of a batch, on one device. Made once, as copying them takes time."""

    keys: list[Key]  #: of each sequence's replica, (sequences,) each
    sequence: Tensor  #: int64 (sequences,): its number in its replica's batch

    @classmethod
    def of(cls, seeds: Sequence[int], batch_size: int, device: torch.device) -> PhiloxKeys:
        """`batch_size` sequences for each replica with one of these seeds, those of the first replica first.

        Raises: ValueError for a seed below 0, or of more than 63 bits.
        """
        if not all(0 <= seed < 2**63 for seed in seeds):
            raise ValueError(f"seeds must be between 0 and 2^63 - 1, not {seeds}")
        whole = torch.tensor(list(seeds)).repeat_interleave(batch_size)
        keys = rounds(((whole & WORD).to(device), (whole >> 32).to(device)))
        return cls(keys, torch.arange(batch_size).repeat(len(seeds)).to(device))

    def sequences(self, which: slice) -> PhiloxKeys:
        """The keys of some of the sequences."""
        return PhiloxKeys([(low[which], high[which]) for low, high in self.keys], self.sequence[which])


class CounterStream:
    """Draws for batch number `step` of a stream, on the device of `keys`.

    Its methods are those of `RandomStream`, its numbers are others, and the last dimension of each draw must be the
    sequences. The numbers of a sequence depend on its replica's seed and its own number in the batch, not on how
    many sequences or replicas are beside it.
    """

    def __init__(self, keys: PhiloxKeys, stream: str, step: int) -> None:
        if not 0 <= step < 2**32:
            raise ValueError(f"step must be between 0 and 2^32 - 1, not {step}")
        self.stream, self._keys, self._step = stream, keys, step
        self._drawn = 0  # calls so far

    def integers(self, low: int | Tensor, high: int | Tensor, shape: tuple[int, ...]) -> Tensor:
        """int64, uniform on low … high−1; each chance is off by a share of (high − low)/2³² at most. The bounds may
        be tensors that broadcast to `shape`; then low < high is not checked."""
        span = high - low
        if isinstance(span, int) and not 0 < span <= 2**31:
            raise ValueError(f"needs bounds that are 1 to 2^31 apart: {low}, {high}")
        return (self._words(shape) * span >> 32) + low

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """float32, uniform on the multiples of 2⁻²⁴ in [0, 1)."""
        return (self._words(shape) >> 8).to(torch.float32) * 2.0**-24

    def choose(self, n: int, of: int, sequences: int) -> Tensor:
        """int64 (n, sequences): for each n of the numbers 0 … of−1, none twice, in random order."""
        return self._words((of, sequences)).argsort(dim=0, stable=True)[:n]

    def _words(self, shape: tuple[int, ...]) -> Tensor:
        """int64 below 2³². Raises: ValueError if the last dimension is not that of the sequences."""
        sequence, device = self._keys.sequence, self._keys.sequence.device
        if not shape or shape[-1] != len(sequence):
            raise ValueError(
                f"the last dimension of what is drawn must be the {len(sequence)} sequences, not {shape}"
            )
        if self._drawn == 2**16:
            raise ValueError(f"a batch has room for {2**16:,} draws")
        each = prod(shape[:-1])  # numbers of a sequence, four to a counter
        block = torch.arange(-(-each // 4), device=device)[:, None]
        batch = torch.full((1, 1), self._step, device=device)
        draw = torch.full((1, 1), STREAMS[self.stream] << 16 | self._drawn, device=device)
        self._drawn += 1
        words = philox((block, sequence, batch, draw), self._keys.keys)
        return torch.stack(words, dim=1).flatten(0, 1)[:each].reshape(shape)
