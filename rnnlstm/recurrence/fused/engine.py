"""Which realisation of the fused loops computes: on a GPU Triton's kernels, on the CPU the native one, where they
can; else the portable one. `RNNLSTM_KERNEL` names another: auto, native, triton or off."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

import torch
from torch import Tensor

from rnnlstm.config.errors import ConfigError
from rnnlstm.recurrence.fused import native, portable
from rnnlstm.recurrence.fused.build import asked, say_once
from rnnlstm.recurrence.fused.kinds import Kind
from rnnlstm.recurrence.lengths import Lengths

OLDEST = (8, 0)  #: compute capability that Triton's kernels were compiled for


def engine_for(x: Tensor, precision: str = "full") -> ModuleType:
    """The realisation for tensors like x. The native kernel has no other `precision` of products than full.

    Tensors of a class of their own go to `portable`: PyTorch's fake ones have no memory. Raises: ConfigError where
    what was asked for can't compute them.
    """
    wanted = asked()
    if wanted == "off" or type(x) is not Tensor:
        return portable
    on_cpu = x.device.type == "cpu"
    if wanted == "native" or (wanted == "auto" and on_cpu):
        fault = _native_lacks(x, precision)
        if fault is None:
            return native
    elif wanted == "triton" or x.device.type == "cuda":
        fault = _triton_lacks(x)
        if fault is None:
            return importlib.import_module("rnnlstm.recurrence.fused.triton_kernels")
        if wanted == "auto" and x.dtype == torch.float32:
            say_once(f"the fused backend runs on this GPU without its kernels, many times slower: {fault}")
    else:
        return portable
    if wanted != "auto":
        raise ConfigError(f"RNNLSTM_KERNEL={wanted}: {fault}")
    return portable


def require_engine(device: torch.device, dtype: torch.dtype, precision: str) -> None:
    """Raises: ConfigError where `RNNLSTM_KERNEL` names a realisation that can't compute there. Without one nothing is
    tried, and no kernel built."""
    if asked() in ("native", "triton"):
        engine_for(torch.empty(0, device=device, dtype=dtype), precision)


def activations(kind: Kind, lengths: Lengths | None, kept: Tensor, B: int, H: int) -> Tensor:
    """(R, T, B, G·H), from what any engine kept."""
    return kept if kept.dim() == 4 else native.activations(kind, lengths, kept, B, H)


def _native_lacks(x: Tensor, precision: str) -> str | None:
    """Why the native kernel can't compute with such tensors."""
    if x.device.type != "cpu":
        return f"the native kernel runs on the CPU, not on {x.device}"
    if precision != "full":
        return f"the native kernel has no products in {precision}"
    if x.dtype not in (torch.float32, torch.float64):
        return f"the native kernel has no {x.dtype}"
    return None if native.available(x.dtype) else "it could not be built"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _triton_lacks(x: Tensor) -> str | None:
    """Why Triton's kernels can't."""
    if not _has_triton():
        return "triton is not installed; pip install triton"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if x.device.type != "cuda" and not interpreted:
        return f"Triton's kernels run on a GPU, not on {x.device}; TRITON_INTERPRET=1 tries them there, slowly"
    if x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) < OLDEST:
        return f"Triton's kernels need a GPU of compute capability {OLDEST[0]}.{OLDEST[1]} or newer"
    if x.dtype != torch.float32 and not (interpreted and x.dtype == torch.float64):
        return f"Triton's kernels have no {x.dtype}"
    return None
