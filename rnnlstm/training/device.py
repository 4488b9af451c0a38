"""The device that trains: made deterministic before anything is computed on it, and named for the record."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch


def make_deterministic(device: torch.device) -> None:
    """On a CUDA device: the same bits each time (cuBLAS, cuDNN, PyTorch), and no TF32, which keeps 10 bits of each
    factor. The settings are PyTorch's own, of the whole process. On other devices this does nothing.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.use_deterministic_algorithms(True, warn_only=True)  # an operation that has no such form says so
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no clearing of buffers
    # A replica's weights are views of the stack: cuDNN copies them together at every call, and would warn about it.
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")


def describe(device: torch.device) -> dict[str, Any]:
    """What decides about the last bit of a result, beside the program itself: libraries, threads, processor, GPU."""
    described = {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        described |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return described
