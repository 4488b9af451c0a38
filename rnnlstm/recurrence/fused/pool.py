"""Large buffers, used again once nothing refers to them.

The C library hands memory of some megabytes back to the system when it is freed, and the system clears it anew, page
by page, at the next step: for eight LSTMs in lockstep that took as long as the forward pass itself. A buffer here is
an array that a tensor's storage keeps alive; when the last tensor over it has gone, the memory waits for the next
request of its size. Two live graphs therefore never share a buffer.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 20  #: bytes below which the C library keeps memory by itself
LIMIT = 1 << 30  #: bytes that may wait; beyond them the oldest go back to the system

_waiting: deque[np.ndarray] = deque()
_lock = threading.RLock()  # a buffer may be given back, by the garbage collector, while another is taken


def empty(like: Tensor, *shape: int) -> Tensor:
    """As `like.new_empty(shape)`."""
    size = math.prod(shape) * like.element_size()
    if size < SMALL:
        return like.new_empty(shape)
    memory = _take(size)
    array = memory[:]  # an object of its own, as old as the storage
    weakref.finalize(array, _give, memory).atexit = False
    return torch.from_numpy(array).view(like.dtype).view(shape)


def _take(size: int) -> np.ndarray:
    with _lock:
        for k, memory in enumerate(_waiting):
            if memory.nbytes == size:
                del _waiting[k]
                return memory
    return np.empty(size, np.uint8)


def _give(memory: np.ndarray) -> None:
    with _lock:
        _waiting.append(memory)
        while sum(each.nbytes for each in _waiting) > LIMIT:
            _waiting.popleft()
