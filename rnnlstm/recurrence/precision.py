"""Mixed precision: matrix products in bfloat16, everything else in its own precision.

Within `products_in("bfloat16")` both factors of a product of float32 matrices are rounded to bfloat16 (8 bits), and
so is the product; biases, activations, the states h and c, weights and gradients stay float32. `torch.autocast` would
leave the pre-activations in bfloat16, and with them the gates: a forget gate of 0.99 would become 0.988, and rounding
would lose a sixth of the memory in a hundred steps. bfloat16 has float32's range, so the loss needs no scaling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

PRECISIONS = ("full", "bfloat16")
_ROUNDED = ContextVar("products in bfloat16", default=False)
PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__}


def autocast_on(device: torch.device) -> bool:
    """Whether `torch.autocast` is active for this device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def rounded() -> bool:
    """Whether matrix products are computed in bfloat16 now."""
    return _ROUNDED.get()


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """`full` changes nothing. The backward pass uses the precision of the forward pass."""
    if precision == "full":
        yield
        return
    token = _ROUNDED.set(True)
    try:
        with _Rounded():
            yield
    finally:
        _ROUNDED.reset(token)


class _Rounded(TorchFunctionMode):
    """Rounds the factors of `F.linear` and `@`, wherever they are called. The fused loops round their own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            return _linear(*args, **(kwargs or {}))
        if func in PRODUCTS and not kwargs and all(factor.dtype == torch.float32 for factor in args):
            return func(*(factor.bfloat16() for factor in args)).float()
        return func(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if input.dtype != torch.float32:
        return F.linear(input, weight, bias)
    product = F.linear(input.bfloat16(), weight.bfloat16()).float()
    return product if bias is None else product + bias
