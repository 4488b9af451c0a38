"""Gradient clipping that says what it did: every call returns a `ClipEvent`.

By norm (Pascanu, Mikolov & Bengio 2013): g ← g · min(1, threshold/‖g‖ₚ), ‖g‖ₚ over all parameters together, p = 2
unless `norm_type` says 1 (Σ|g|) or inf (max |g|). By value: every entry is cut to ±threshold. Norms are summed in
float64, so that they neither overflow nor depend on the parameters' precision. Dimension: R replicas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnlstm.recurrence.fused import native

KINDS = ("norm", "value", "none")
NORM_TYPES = (1, 2, "inf")


@dataclass(frozen=True)
class ClipEvent:
    """What one clipping did to one model's gradient."""

    step: int | None
    kind: str  #: norm, value or none
    threshold: float | None  #: None where kind is none
    norm_type: int | str  #: p of `norm_before` and `norm_after`: 1, 2 or inf; 2 where kind is not norm
    norm_before: float  #: the norm that is limited
    norm_after: float
    coefficient: float | None  #: what the gradient was multiplied by; None by value
    clipped_share: float | None  #: share of entries that were cut, by value; else None
    largest_parameter: str  #: name of the parameter with the largest gradient norm
    fired: bool  #: whether the gradient was changed
    norms: Mapping[str, float]  #: Euclidean norm before clipping, by parameter
    euclidean_before: float  #: equal to `norm_before` where `norm_type` is 2
    euclidean_after: float

    def line(self) -> dict[str, Any]:
        """What clip_events.jsonl says of it, which has a line for each event that fired; `norm_type` where it is not
        2."""
        usual = ("norm_type",) if self.norm_type == 2 else ()
        return {name: value for name, value in vars(self).items() if name not in (*OFF_THE_RECORD, *usual)}


#: Fields of an event that clip_events.jsonl lacks: each line has fired, and metrics.jsonl has the others.
OFF_THE_RECORD = ("fired", "norms", "euclidean_before", "euclidean_after")


def clip_gradients(
    parameters: Tensor | Iterable[Tensor] | Iterable[tuple[str, Tensor]],
    kind: str = "norm",
    threshold: float | None = 1.0,
    step: int | None = None,
    norm_type: float | str = 2,
) -> ClipEvent:
    """Clip the gradients of `parameters` in place, between `loss.backward()` and `optimizer.step()`.

    `parameters`: tensors, names with tensors, or a single tensor. In the event, a tensor without a name is called by
    its place in the list; equal names get a suffix: `weight_ih_l0`, `weight_ih_l0#2`. A tensor that is listed twice
    counts once; `torch.nn.utils.clip_grad_norm_` counts it twice.
    `norm_type`: 1, 2 or inf, of kind norm.
    A gradient that is not finite is left as it is; the event's `norm_before` shows it.
    Raises: ValueError for a kind, threshold or norm type that makes no sense, for a gradient that is not dense, and
    by value for a complex one; TypeError if `parameters` has something else in it; RuntimeError if no parameter has a
    gradient, or if a gradient was clipped before and no backward pass has come since.
    """
    present = {name: p.grad for name, p in _named(parameters).items() if p.grad is not None}
    _require_fresh(present)
    (event,) = _clip({name: g[None] for name, g in present.items()}, kind, threshold, step, norm_type)
    _mark(present)
    return event


def clip_replicas(
    parameters: Mapping[str, Tensor],
    kind: str,
    threshold: float | None,
    step: int | None = None,
    norm_type: float | str = 2,
) -> list[ClipEvent]:
    """The same for a stack of R models, parameters (R, …): each is clipped by its own norm. R events."""
    present = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    _require_fresh(present)
    events = _clip(present, kind, threshold, step, norm_type)
    _mark(present)
    return events


@torch.no_grad()
def _clip(
    gradients: Mapping[str, Tensor], kind: str, threshold: float | None, step: int | None, norm_type: float | str
) -> list[ClipEvent]:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "none":
        threshold = None
    elif threshold is None or not threshold > 0:
        raise ValueError(f"threshold must be above 0, not {threshold}")
    p = "inf" if norm_type == math.inf else norm_type
    if p not in NORM_TYPES:
        raise ValueError(f"norm_type must be 1, 2 or inf, not {norm_type!r}")
    if p != 2 and kind != "norm":
        raise ValueError(f"norm_type is for kind norm; {kind} limits no norm")
    for name, g in gradients.items():
        if kind == "value" and g.is_complex():
            raise ValueError(f"the gradient of {name} is complex: its entries have no order; clip by norm")
    limit = math.inf if threshold is None else threshold
    # From here on, everything but the gradients is on the CPU: another device is waited for once, in `_norms`.
    by_parameter = _norms(gradients)  # (P, R)
    euclidean = by_parameter.square().sum(0).sqrt()  # (R,)
    limited = by_parameter if p == 2 else _p_norms(gradients, p)  # (P, R): of the norm that clipping limits
    before = {2: euclidean, 1: limited.sum(0), "inf": limited.amax(0)}[p]
    finite = euclidean.isfinite() & before.isfinite()
    after, euclidean_after, fired = before, euclidean, torch.zeros_like(finite)
    coefficients: list[float] | None = [1.0] * len(before)
    shares: list[float] | None = None
    if kind == "norm":
        fired = finite & (before > limit)
        coefficient = torch.where(fired, limit / before, 1.0)
        if fired.any():  # most updates leave the gradient alone
            for g in gradients.values():
                g.mul_(_by_replica(coefficient.to(g.device, g.dtype.to_real()), g))
        after, euclidean_after = before * coefficient, euclidean * coefficient
        coefficients = coefficient.tolist()
    elif kind == "value":
        coefficients = None
        cut = _stacked([_rows(g.abs() > limit).sum(1) for g in gradients.values()]).sum(0)  # (R,)
        entries = sum(g[0].numel() for g in gradients.values())
        fired = finite & (cut > 0)
        if fired.any():
            for g in gradients.values():
                g.copy_(torch.where(_by_replica(fired.to(g.device), g), g.clamp(-limit, limit), g))
            after = euclidean_after = _norms(gradients).square().sum(0).sqrt()
        shares = (cut.float() / max(entries, 1)).tolist()
    names = list(gradients)
    largest = limited.argmax(0).tolist()
    each = (before, after, fired, euclidean, euclidean_after)
    return [
        ClipEvent(
            step=step,
            kind=kind,
            threshold=threshold,
            norm_type=p if isinstance(p, str) else int(p),
            norm_before=b,
            norm_after=a,
            coefficient=coefficients[r] if coefficients else None,
            clipped_share=shares[r] if shares else None,
            largest_parameter=names[largest[r]],
            fired=f,
            norms=dict(zip(names, by_parameter[:, r].tolist(), strict=True)),
            euclidean_before=eb,
            euclidean_after=ea,
        )
        for r, (b, a, f, eb, ea) in enumerate(zip(*(values.tolist() for values in each), strict=True))
    ]


def _norms(gradients: Mapping[str, Tensor]) -> Tensor:
    """float64 (P, R), on the CPU: the norm of each parameter's gradient, by replica."""
    if (sums := native.squares(list(gradients.values()))) is not None:
        return sums.sqrt()
    wide = [_rows(g.to(torch.complex128 if g.is_complex() else torch.float64)) for g in gradients.values()]
    return _stacked([torch.linalg.vector_norm(rows, dim=1) for rows in wide])


def _p_norms(gradients: Mapping[str, Tensor], p: float | str) -> Tensor:
    """float64 (P, R), on the CPU: Σ|g| or max |g| of each parameter's gradient, by replica."""
    sizes = [_rows(g.abs().double()) for g in gradients.values()]
    if p == 1:
        return _stacked([rows.sum(1) for rows in sizes])
    return _stacked([rows.amax(1) if rows.shape[1] else rows.new_zeros(len(rows)) for rows in sizes])


def _stacked(each: list[Tensor]) -> Tensor:
    """(P, R), on the CPU, from (R,) of each parameter. Parameters on one device are waited for once."""
    return torch.stack([values.to(each[0].device) for values in each]).cpu()


def _rows(g: Tensor) -> Tensor:
    """(R, …) as (R, entries); (R,), of parameters that are single numbers, as (R, 1)."""
    return g[..., None].flatten(1)


def _by_replica(values: Tensor, g: Tensor) -> Tensor:
    """(R,) in a shape that broadcasts to `g` (R, …)."""
    return values.view(-1, *[1] * (g.dim() - 1))


def _named(parameters: Tensor | Iterable[Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Each tensor once, under a name of its own. Raises: TypeError for what is no tensor, with or without a name."""
    rule = "parameters must be tensors, or pairs of a name and a tensor"
    listed: object = [parameters] if isinstance(parameters, Tensor) else parameters
    if not isinstance(listed, Iterable):
        raise TypeError(f"{rule}, not a {type(parameters).__name__}")
    named: dict[str, Tensor] = {}
    seen: set[int] = set()
    for place, item in enumerate(listed):
        name, tensor = item if isinstance(item, tuple) and len(item) == 2 else (place, item)
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{rule}; number {place} is of type {type(item).__name__}")
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        own, count = str(name), 1
        while own in named:
            count += 1
            own = f"{name}#{count}"
        named[own] = tensor
    return named


# A gradient remembers the version it had when it was clipped. A backward pass makes a new tensor, or adds
# in place and so changes the version: if neither has happened, clipping again would clip old news.


def _require_fresh(gradients: Mapping[str, Tensor]) -> None:
    if not gradients:
        raise RuntimeError("nothing to clip: no parameter has a gradient; call backward() first")
    for name, g in gradients.items():
        if g.layout != torch.strided:
            layout = str(g.layout).removeprefix("torch.")
            raise ValueError(f"the gradient of {name} is {layout}; clipping needs dense gradients (sparse=False)")
        if getattr(g, "_clipped_at_version", None) == g._version:
            raise RuntimeError(f"the gradient of {name} was clipped already and no backward() has come since")


def _mark(gradients: Mapping[str, Tensor]) -> None:
    for g in gradients.values():
        g._clipped_at_version = g._version  # type: ignore[attr-defined]
