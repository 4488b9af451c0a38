"""Mixed precision: matrix products in bfloat16 or TF32, everything else in its own precision.

Within `products_in("bfloat16")` both factors of a product of float32 matrices are rounded to bfloat16 (8 bits), and
so is the product; biases, activations, the states h and c, weights and gradients stay float32. `torch.autocast` would
leave the pre-activations in bfloat16, and with them the gates: a forget gate of 0.99 would become 0.988, and rounding
would lose a sixth of the memory in a hundred steps. bfloat16 has float32's range, so the loss needs no scaling.

Within `products_in("tf32")` both factors are rounded to TF32, which has the range of float32 and 11 of its 24 bits,
and their product is summed in float32. A GPU's tensor cores do so by themselves; here they are asked to in the fused
loops, and everywhere else factors are rounded first, so that a CPU shows the same error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

PRECISIONS = ("full", "tf32", "bfloat16")
_PRECISION = ContextVar("precision of products", default="full")
PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__}


def autocast_on(device: torch.device) -> bool:
    """Whether `torch.autocast` is active for this device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def current_precision() -> str:
    """That of matrix products now."""
    return _PRECISION.get()


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """`full` changes nothing. The backward pass uses the precision of the forward pass."""
    if precision == "full":
        yield
        return
    token = _PRECISION.set(precision)
    try:
        with _Rounded(precision):
            yield
    finally:
        _PRECISION.reset(token)


def as_factor(x: Tensor, precision: str) -> Tensor:
    """x as a product of the fused loops takes it."""
    if precision == "bfloat16":
        return x.bfloat16()
    return to_tf32(x) if precision == "tf32" and x.device.type != "cuda" else x


def product(a: Tensor, b: Tensor, precision: str) -> Tensor:
    """a b, (R, M, K) and (R, K, N), of whose factors one may have been rounded already."""
    if precision == "full":
        return a.bmm(b)
    with _tensor_cores(a.device, precision):
        return as_factor(a, precision).bmm(as_factor(b, precision)).to(a.dtype)


def to_tf32(x: Tensor) -> Tensor:
    """The nearest number that TF32 has, of two equally near ones the larger in size, as NVIDIA's `cvt.rna` rounds."""
    bits = (x.contiguous().view(torch.int32) + (1 << 12)) & -(1 << 13)
    return torch.where(x.isfinite(), bits.view(torch.float32), x)


def _tensor_cores(device: torch.device, precision: str) -> AbstractContextManager[None]:
    return _with_tensor_cores() if precision == "tf32" and device.type == "cuda" else nullcontext()


@contextmanager
def _with_tensor_cores() -> Iterator[None]:
    settings = torch.backends.cuda.matmul
    name, on = ("fp32_precision", "tf32") if hasattr(settings, "fp32_precision") else ("allow_tf32", True)
    before = getattr(settings, name)
    setattr(settings, name, on)
    try:
        yield
    finally:
        setattr(settings, name, before)


class _Rounded(TorchFunctionMode):
    """Rounds the factors of `F.linear` and `@`, wherever they are called. The fused loops round their own."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.precision = precision

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            return self._linear(*args, **(kwargs or {}))
        if func in PRODUCTS and not kwargs and all(factor.dtype == torch.float32 for factor in args):
            return self._product(func, *args)
        return func(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if input.dtype != torch.float32:
            return F.linear(input, weight, bias)
        found = self._product(F.linear, input, weight)
        return found if bias is None else found + bias

    def _product(self, func: Any, *factors: Tensor) -> Tensor:
        if self.precision == "bfloat16":
            result: Tensor = func(*(factor.bfloat16() for factor in factors)).float()
            return result
        found: Tensor = _RoundBackward.apply(func(*map(_RoundForward.apply, factors)))
        return found


class _RoundForward(Function):
    """x in TF32; its gradient passes."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: Tensor) -> tuple[Tensor, int]:
        """By hand: in PyTorch 2.11 vmap has no rule for a view as another type."""
        return _RoundForward.apply(x), in_dims[0]

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return to_tf32(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _RoundBackward(Function):
    """x, whose gradient becomes a factor of two products and is rounded for them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        rounded: Tensor = _RoundForward.apply(gradient)
        return rounded
