"""Numbers that a task looks up, on whatever device it draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Table:
    """A tensor that is sent to a device once, when it is first needed there."""

    def __init__(self, values: Tensor | np.ndarray | Sequence[int]) -> None:
        self._values = torch.as_tensor(values, device="cpu")
        self._sent: dict[torch.device, Tensor] = {}

    def __len__(self) -> int:
        return len(self._values)

    def on(self, device: torch.device) -> Tensor:
        if device.type in ("cpu", "meta"):  # where it is, or no numbers to keep
            return self._values.to(device)
        if device not in self._sent:
            self._sent[device] = self._values.to(device)
        return self._sent[device]
