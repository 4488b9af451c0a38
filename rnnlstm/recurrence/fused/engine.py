"""Which realisation of the fused loops computes: the native kernel where it can, else the portable one."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from rnnlstm.recurrence.fused import native, portable


def engine_for(x: Tensor) -> ModuleType:
    """`native` for float32 and float64 on the CPU if the kernel could be built, else `portable`."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and native.available(x.dtype):
        return native
    return portable
