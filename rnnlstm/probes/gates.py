"""How open the gates are: their mean, and the share of activations that are nearly shut or nearly open."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rnnlstm.batch import Batch

SHUT, OPEN = 0.1, 0.9


def gate_values(activations: Tensor) -> dict[str, float]:
    """`mean` and `saturated` (share below 0.1 or above 0.9) of one gate, over everything in `activations`."""
    saturated = (activations < SHUT) | (activations > OPEN)
    return {"mean": activations.mean().item(), "saturated": saturated.double().mean().item()}


def by_kind(activations: Tensor, batch: Batch, kind_names: Sequence[str]) -> dict[str, float]:
    """Mean activation (T, B, H) while each kind of token is read; kinds that don't occur are left out."""
    return mean_by_kind(activations.mean(-1), batch.kinds, kind_names)


def mean_by_kind(values: Tensor, kinds: Tensor | None, names: Sequence[str]) -> dict[str, float]:
    """Mean of `values` (T, B) over each kind of token; kinds that don't occur are left out."""
    if kinds is None:
        return {}
    found = {name: values[kinds == k] for k, name in enumerate(names)}
    return {name: chosen.mean().item() for name, chosen in found.items() if len(chosen)}
