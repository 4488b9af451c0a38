"""Work of one kind on all threads, to be timed for the machine's ceilings; the functions return how much it was.

Each returns 0 without a native kernel, whose vectors these are made of.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from rnnlstm.recurrence.fused.build import load_kernel


def multiply_adds(rounds: int) -> int:
    """Fused multiply-adds in float32, of registers alone; returns operations, two for each."""
    kernel = load_kernel(torch.float32)
    if kernel is None:
        return 0
    threads = torch.get_num_threads()
    kernel.peak(ctypes.c_int64(rounds), ctypes.c_double(1.0), ctypes.c_int(threads))
    return int(rounds * 12 * kernel.vector_lanes() * 2 * threads)


def activations(name: str, rounds: int) -> int:
    """Sigmoids, or tanh, in float32, of numbers in the first cache, none waiting for another; returns how many."""
    kernel = load_kernel(torch.float32)
    if kernel is None:
        return 0
    threads = torch.get_num_threads()
    kernel.activations(ctypes.c_int64(rounds), ctypes.c_int(name == "tanh"), ctypes.c_int(threads))
    return int(rounds * 8 * kernel.vector_lanes() * threads)


def reads(data: Tensor, rounds: int) -> int:
    """Each thread reads all of `data`, `rounds` times over; returns bytes."""
    kernel = load_kernel(torch.float32)
    if kernel is None:
        return 0
    threads, block = torch.get_num_threads(), 8 * kernel.vector_lanes()
    count = data.numel() // block * block
    kernel.stream(
        ctypes.c_void_p(data.data_ptr()), ctypes.c_int64(count), ctypes.c_int64(rounds), ctypes.c_int(threads)
    )
    return int(4 * count * rounds * threads)
