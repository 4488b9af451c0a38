"""The settings of PyTorch under which a run computes, and the device that trains, named for the record."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
#: What `make_deterministic` sets: owner, attribute, value.
_ON_CUDA: tuple[tuple[Any, str, bool], ...] = (
    (torch.backends.cudnn, "deterministic", True),
    (torch.backends.cudnn, "benchmark", False),
    (torch.backends.cudnn, "allow_tf32", False),
    (torch.backends.cuda.matmul, "allow_tf32", False),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
    (torch.utils.deterministic, "fill_uninitialized_memory", False),  # costs time
)


def _rounding(*operations: tuple[Any, str]) -> tuple[Any, ...]:
    """Those that have a precision of their own, as older versions of PyTorch do not."""
    found = [getattr(backend, name, None) for backend, name in operations]
    return tuple(operation for operation in found if hasattr(operation, "fp32_precision"))


#: Operations whose float32 factors PyTorch may round to bfloat16 or TF32 (`torch.set_float32_matmul_precision`).
_ROUNDED_ON_CPU = _rounding((torch.backends.mkldnn, "matmul"), (torch.backends.mkldnn, "rnn"))
_ROUNDED_ON_CUDA = _rounding(
    (torch.backends.cuda, "matmul"), (torch.backends.cudnn, "conv"), (torch.backends.cudnn, "rnn")
)


@contextmanager
def own_settings(threads: int | None = None) -> Iterator[None]:
    """A context that computes the same whatever the caller has set, and leaves the caller's settings as they were.

    Gradients are on; inference mode and autocast are off. A new tensor without a device is on the CPU, one without a
    dtype is float32, also in a user's own cell or task. Products of float32 numbers are not rounded, denormal numbers
    not flushed to zero. PyTorch has this number of `threads`; None: the caller's. What `make_deterministic` sets
    inside ends with the context. Most are settings of the whole process, so each is changed only where it differs.
    """
    with ExitStack() as stack:
        _restore_afterwards(stack)
        stack.enter_context(torch.inference_mode(False))  # this turns gradients on, too
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            torch.set_default_dtype(torch.float32)
        if sys.float_info.min / 2 == 0:
            torch.set_flush_denormal(False)
        torch.set_deterministic_debug_mode("default")
        for operation in _ROUNDED_ON_CPU:
            if operation.fp32_precision not in ("none", "ieee"):
                operation.fp32_precision = "ieee"
        if not _ROUNDED_ON_CPU and torch.get_float32_matmul_precision() != "highest":  # one setting for all of them
            torch.set_float32_matmul_precision("highest")
        if threads is not None:
            torch.set_num_threads(threads)
        yield


def _restore_afterwards(stack: ExitStack) -> None:
    """Let `stack` restore the settings that this module changes and that have no context of their own."""
    stack.enter_context(warnings.catch_warnings())
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    stack.callback(torch.set_flush_denormal, sys.float_info.min / 2 == 0)
    if WORKSPACE not in os.environ:
        stack.callback(os.environ.pop, WORKSPACE, None)
    for operation in (*_ROUNDED_ON_CPU, *_ROUNDED_ON_CUDA):
        stack.callback(_set_precision, operation, operation.fp32_precision)
    functions: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        *((partial(getattr, owner, name), partial(setattr, owner, name)) for owner, name, _ in _ON_CUDA),
    ]
    for read, change in functions:
        with suppress(RuntimeError):  # PyTorch can't say how it rounds: the caller set it in the old and the new way
            stack.callback(_change_back, read, change, read())


def _change_back(read: Callable[[], Any], change: Callable[[Any], Any], value: Any) -> None:
    with suppress(RuntimeError):
        if read() == value:
            return
    change(value)


def _set_precision(operation: Any, precision: str) -> None:
    """`none`, if that is the same: then the operation follows its backend."""
    if operation.fp32_precision != precision:
        operation.fp32_precision = "none"
    if operation.fp32_precision != precision:
        operation.fp32_precision = precision


def make_deterministic(device: torch.device) -> None:
    """On a CUDA device: the same bits each time (cuBLAS, cuDNN, PyTorch), and no TF32, which keeps 10 bits of each
    factor. The settings are PyTorch's own, of the whole process; `own_settings` restores them. On other devices this
    does nothing.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")  # read when the first product is computed
    for owner, name, value in _ON_CUDA:
        setattr(owner, name, value)
    for operation in _ROUNDED_ON_CUDA:
        operation.fp32_precision = "ieee"
    torch.set_deterministic_debug_mode("warn")  # an operation that has no such form says so
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
