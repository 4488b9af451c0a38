"""A device that isn't there: tensors that say they lie elsewhere, have their values on the CPU, and refuse to be
mixed with the CPU's.

`torch.device("meta")` lends its name, since PyTorch's autograd knows it on every machine; but these tensors have
values. Every operation on them is computed on the CPU, after a look at its arguments: a CPU tensor among them, other
than a single number, is an error, as it is with CUDA. `crossings` counts what makes the CPU wait for a real device.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
#: Operations for which a real device has to come to an end first: the CPU asks for a value, or for a shape.
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.is_nonzero.default}


class There(torch.Tensor):
    """A tensor on the pretended device; `held` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=DEVICE, requires_grad=False
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"There({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {}, Counter())


class PretendDevice(TorchDispatchMode):
    """Within it, `device="meta"` makes tensors with values."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {}, self.crossings)


def compute(func: Any, args: Any, kwargs: Any, crossings: Counter[str]) -> Any:
    flat, _ = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    asked = kwargs.get("device")
    moves = func in (aten._to_copy.default, aten.copy_.default)
    if there and not moves:
        for tensor in tensors:
            if not isinstance(tensor, There) and tensor.dim():
                raise RuntimeError(f"{func}: a tensor {tuple(tensor.shape)} of the CPU among the device's")
    if func in WAITS and there:
        crossings[str(func)] += 1
    if func is aten._to_copy.default and there and asked is not None and asked.type == "cpu":
        crossings["to the CPU"] += 1
    if func is aten.copy_.default and there and not isinstance(args[0], There):
        crossings["to the CPU"] += 1
    if "index" in str(func) and any(t.dtype == torch.bool for t in there if t is not args[0] and t.dim()):
        crossings["a mask as an index"] += 1

    result_there = bool(there) if asked is None else asked.type == DEVICE.type
    inside = {
        key: torch.device("cpu") if key == "device" and value is not None else value for key, value in kwargs.items()
    }
    unwrap = {id(t.held): t for t in there}
    out = func(*tree_map(_held, args), **tree_map(_held, inside))

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not result_there:
            return value
        return unwrap.get(id(value)) if id(value) in unwrap else There(value.resolve_conj().resolve_neg())

    if func is aten.copy_.default:
        return args[0]
    return tree_map(wrapped, out)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, There) else value
