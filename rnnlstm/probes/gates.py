"""How open the gates are: their mean, and the share of activations that are nearly shut or nearly open."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnlstm.batch import Batch

SHUT, OPEN = 0.1, 0.9


def gate_values(activations: Tensor) -> dict[str, float]:
    """`mean` and `saturated` (share below 0.1 or above 0.9) of one gate, over everything in `activations`."""
    saturated = (activations < SHUT) | (activations > OPEN)
    return {"mean": activations.mean().item(), "saturated": saturated.double().mean().item()}


def by_kind(activations: Tensor, batch: Batch, kind_names: Sequence[str]) -> dict[str, float]:
    """Mean activation (T, B, H) while each kind of token is read; kinds that don't occur are left out."""
    if batch.kinds is None:
        return {}
    means = activations.mean(-1)  # (T, B)
    found = {name: means[batch.kinds == k] for k, name in enumerate(kind_names)}
    return {name: torch.mean(values).item() for name, values in found.items() if len(values)}
