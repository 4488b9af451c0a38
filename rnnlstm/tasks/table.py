"""Numbers that a task looks up, on whatever device it draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Table:
    """A tensor that is sent to a device once, when it is first needed there."""

    def __init__(self, values: Tensor | np.ndarray | Sequence[int]) -> None:
        self._on = {torch.device("cpu"): torch.as_tensor(values, device="cpu")}

    def __len__(self) -> int:
        return len(self._on[torch.device("cpu")])

    def on(self, device: torch.device) -> Tensor:
        if device.type == "meta":  # no numbers, nothing to keep
            return self._on[torch.device("cpu")].to(device)
        if device not in self._on:
            self._on[device] = self._on[torch.device("cpu")].to(device)
        return self._on[device]
