"""Which realisation of the fused loops computes: the native kernel where it can, else the portable one."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from rnnlstm.recurrence.fused import native, portable
from rnnlstm.recurrence.fused.kinds import Kind
from rnnlstm.recurrence.lengths import Lengths


def engine_for(x: Tensor) -> ModuleType:
    """`native` for float32 and float64 on the CPU if the kernel could be built, else `portable`.

    Tensors of a class of their own go to `portable`, too: PyTorch's fake ones have no memory.
    """
    plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return native if plain and native.available(x.dtype) else portable


def activations(kind: Kind, lengths: Lengths | None, kept: Tensor, B: int, H: int) -> Tensor:
    """(R, T, B, G·H), from what either engine kept."""
    return kept if kept.dim() == 4 else native.activations(kind, lengths, kept, B, H)
