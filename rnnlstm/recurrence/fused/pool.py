"""Large buffers of the kernel's own, used again once nothing refers to them.

The C library hands memory of some megabytes back to the system when it is freed, and the system clears it again, page
by page, at the next step: for eight LSTMs in lockstep that took as long as the forward pass itself. A buffer here is
an array that a tensor's storage keeps alive; when the last tensor over it has gone, the memory waits for the next
request of about its size. Two live graphs therefore never share a buffer.

What waits and what is in use are together at most a quarter more than what was in use at once: sequences of many
lengths keep no buffer for each. Such a tensor can't be resized, so users get copies of outputs.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

LINE = 64  #: bytes
SMALL = 1 << 20  #: bytes below which the C library keeps memory by itself
SLACK = 1.25  #: how much larger than asked for a buffer may be, and how much more than the peak is kept


class _Pool:
    """Memory in use and waiting, in bytes."""

    def __init__(self) -> None:
        self.waiting: deque[np.ndarray] = deque()  # the oldest first
        self.used = self.peak = 0
        self.lock = threading.RLock()  # a buffer may be given back, by the garbage collector, while another is taken

    def take(self, size: int) -> np.ndarray:
        with self.lock:
            fits = [memory for memory in self.waiting if size <= memory.nbytes <= SLACK * size]
            if fits:
                memory = min(fits, key=lambda each: each.nbytes)
                self.waiting = deque(each for each in self.waiting if each is not memory)
            else:
                memory = aligned_bytes(size)
            self.used += memory.nbytes
            self.peak = max(self.peak, self.used)
            return memory

    def give(self, memory: np.ndarray) -> None:
        with self.lock:
            self.used -= memory.nbytes
            self.waiting.append(memory)
            while self.used + sum(each.nbytes for each in self.waiting) > SLACK * self.peak:
                self.waiting.popleft()


def aligned_bytes(size: int) -> np.ndarray:
    """Memory of any content that begins at a cache line, as the kernel's vectors need."""
    whole = np.empty(size + LINE, np.uint8)
    return whole[-whole.ctypes.data % LINE :][:size]


_POOL = _Pool()


def empty(like: Tensor, *shape: int) -> Tensor:
    """As `like.new_empty(shape)`."""
    size = math.prod(shape) * like.element_size()
    if size < SMALL:
        return like.new_empty(shape)
    memory = _POOL.take(size)
    array = memory[:size]  # an object of its own, as old as the storage
    weakref.finalize(array, _POOL.give, memory).atexit = False
    return torch.from_numpy(array).view(like.dtype).view(shape)
