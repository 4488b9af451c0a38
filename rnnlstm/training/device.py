"""What a CUDA device is told before anything is computed on it: the same bits each time, and full float32."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch


def settle(device: torch.device) -> None:
    """For a CUDA device: deterministic cuBLAS, cuDNN and PyTorch operations, and no TF32, which keeps 10 bits of each
    factor. The settings are PyTorch's own, of the whole process. For other devices nothing.
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


def computed_on(device: torch.device) -> dict[str, Any]:
    """What else decides about the last bit of a result there: the GPU's model and its libraries."""
    if device.type != "cuda":
        return {}
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
