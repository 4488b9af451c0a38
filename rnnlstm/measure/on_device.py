"""Training on one device: an update in lockstep against as many plain scripts over PyTorch's own module, on a GPU
cuDNN's, in turn. Both draw their data on the CPU; every call is timed to the end of what it asks of the device."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

import torch

from rnnlstm.measure.plain import against_plain_scripts, default_plan
from rnnlstm.measure.timing import Timing

REPLICAS = (1, 64, 256)
QUICK_REPLICAS = (1, 64)


def checked_device(name: str) -> torch.device:
    """Raises: ConfigError if this machine has no such device."""
    return default_plan("rnn", f"device={name}").device


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return (
            f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def training_on(
    device: torch.device, model: str, replicas: int, rounds: int, overrides: Sequence[str] = ()
) -> dict[str, Timing]:
    """Milliseconds of an update of all replicas: `lockstep` and `plain scripts`."""
    return against_plain_scripts(model, replicas, rounds, [f"device={device}", *overrides], waiting_for(device))


def waiting_for(device: torch.device) -> Callable[[], None]:
    """Returns once the device has done all that it was asked."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
