"""Everything that is measured of one layer of a network, in one object: for tables, figures and files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnlstm.instruments.flow import Flow, flow, gates_half_life
from rnnlstm.instruments.jacobians import (
    CellPath,
    at_lags,
    cell_path,
    influence,
    log10_bounds,
    lyapunov_spectrum,
    products,
    step_jacobians,
)
from rnnlstm.instruments.probe import by_kind, mean_by_kind
from rnnlstm.instruments.subject import Subject
from rnnlstm.instruments.units import unit_shares
from rnnlstm.instruments.weight_gradient import WeightGradient, weight_gradients


@dataclass(frozen=True)
class Measurement:
    """Arrays are by lag, from 0; singular values, bounds and the cell's path from lag 0 to T."""

    network: str  #: its label
    label: str  #: with the layer, where there are several
    layer: int
    flow: Flow
    gates_half_life: tuple[float, float, float] | None
    weights: WeightGradient
    singular: Tensor  #: log10, (T+1, N), descending
    bounds: dict[str, Tensor]  #: log10, (T+1,)
    cell: CellPath | None
    lyapunov: Tensor  #: (N,)
    influence: Tensor  #: (T, B)
    influence_kinds: dict[str, float]
    units: dict[str, float]
    gate_kinds: dict[str, float]  #: mean gate while a kind of token is read, `<gate>_<kind>`
    scores: dict[str, float]  #: the task's metrics on the sequences
    parameters: int

    def numbers(self) -> dict[str, Any]:
        """The figures of the table and the files, by name; lags that the sequence lacks are left out."""
        hidden = self.flow.total["hidden"][self.layer]
        found: dict[str, Any] = {
            "setting": self.label,
            "layer": self.layer,
            "parameters": self.parameters,
            **self.scores,
        }
        for state in self.flow.total:
            half_life, low, high = self.flow.half_life(state, self.layer)
            found |= {f"{state}_half_life": half_life, f"{state}_half_life_low": low, f"{state}_half_life_high": high}
        if self.gates_half_life is not None:
            names = ("gates_half_life", "gates_half_life_unit_10%", "gates_half_life_unit_90%")
            found |= dict(zip(names, self.gates_half_life, strict=True))
        K = len(hidden)
        for lag in sorted({k for k in (10, 100, K - 1) if k < K}):
            name = "first" if lag == K - 1 else str(lag)
            found[f"log10_gradient_ratio_lag_{name}"] = (hidden[lag] / hidden[0]).log10().item()
            found[f"log10_jacobian_norm_lag_{name}"] = self.singular[lag, 0].item()
        for k in (1, 10, 100):
            if k < K:
                found[f"weight_share_last_{k}"] = self.weights.share[k].item()
        reached = (self.weights.share >= 0.9).nonzero()
        found["steps_for_90%_of_weight_gradient"] = reached[0, 0].item() if len(reached) else math.nan
        found["weight_gradient_norm"] = self.weights.whole.norm().item()
        found["weight_gradient_error"] = self.weights.error
        found["lyapunov_largest"] = self.lyapunov[0].item()
        found |= {f"influence_{kind}": value for kind, value in self.influence_kinds.items()}
        found |= {f"gate_{name}": value for name, value in self.gate_kinds.items()}
        return found | self.units

    def bound_holds(self) -> bool:
        """Whether no Jacobian is larger than its bounds, to rounding."""
        return all(bool((self.singular[:, 0] <= bound + 1e-9).all()) for bound in self.bounds.values())


def measure(label: str, subject: Subject) -> list[Measurement]:
    """A measurement of each layer. About 10 s for an LSTM of T=200, H=128 on two cores, in some 1.5 GB."""
    through_time, gradients = flow(subject), weight_gradients(subject)
    reached = influence(subject)
    kinds = mean_by_kind(reached, subject.batch.kinds, subject.task.kind_names)
    scores = subject.task.metrics(subject.path.outputs, subject.batch)
    found = []
    for layer in range(subject.layers):
        jacobians = step_jacobians(subject, layer, 0)
        through = products(jacobians)
        retention = subject.cell.retention(subject.path.gates[layer])
        has_cell = retention is not None and "cell" in subject.cell.state_names
        found.append(
            Measurement(
                network=label,
                label=label if subject.layers == 1 else f"{label}, layer {layer}",
                layer=layer,
                flow=through_time,
                gates_half_life=gates_half_life(subject, layer),
                weights=gradients[layer],
                singular=through.log10_singular_values(),
                bounds=log10_bounds(subject, layer, 0, jacobians),
                cell=cell_path(jacobians, through, retention[:, 0]) if retention is not None and has_cell else None,
                lyapunov=lyapunov_spectrum(jacobians),
                influence=reached,
                influence_kinds=kinds,
                units=unit_shares(subject, layer),
                gate_kinds={
                    f"{gate}_{kind}": value
                    for gate, activations in subject.path.gates[layer].items()
                    for kind, value in by_kind(activations, subject.batch, subject.task.kind_names).items()
                },
                scores=scores,
                parameters=sum(w.numel() for w in subject.network.parameters()),
            )
        )
    return found


def as_lists(value: Tensor, digits: int = 6) -> list[Any]:
    """For JSON: nested lists of few digits; what is not finite becomes None."""
    numbers: list[Any] = value.to(torch.float64).tolist()

    def rounded(entry: Any) -> Any:
        if isinstance(entry, list):
            return [rounded(e) for e in entry]
        return float(f"{entry:.{digits}g}") if math.isfinite(entry) else None

    return [rounded(entry) for entry in numbers]


# What `probe=full` logs, by tag: the analyses of this room as numbers.


def full_scalars(subject: Subject) -> dict[str, float]:
    """Seconds at T=200, H=128; memory of a few hundred MB there: T times the weights, and T matrices of the state's
    size."""
    values = dict(_network_scalars(subject))
    gradients, at_last, whole = weight_gradients(subject), flow(subject), flow(subject, subject.batch)
    for layer in range(subject.layers):
        suffix = f"/layer_{layer}" if subject.layers > 1 else ""
        found = dict(_layer_scalars(subject, layer, at_last, whole))
        found |= {f"weight_gradient/share_last_{k}": v for k, v in at_lags(gradients[layer].share).items()}
        values |= {tag + suffix: value for tag, value in found.items()}
    return values


def _network_scalars(subject: Subject) -> Iterator[tuple[str, float]]:
    by_kind = mean_by_kind(influence(subject), subject.batch.kinds, subject.task.kind_names)
    for kind, value in by_kind.items():
        yield f"influence/{kind}", value


def _layer_scalars(subject: Subject, layer: int, at_last: Flow, whole: Flow) -> Iterator[tuple[str, float]]:
    for state in subject.cell.state_names:
        _, low, high = at_last.half_life(state, layer)
        yield f"flow/{state}_half_life_low", low
        yield f"flow/{state}_half_life_high", high
    total = whole.total["hidden"][layer].norm().item()
    yield "flow/direct_share", whole.direct[layer].norm().item() / total if total else math.nan
    implied = gates_half_life(subject, layer)
    if implied is not None:
        yield "flow/gates_half_life", implied[0]

    jacobians = step_jacobians(subject, layer, 0)
    through = products(jacobians)
    bounds = log10_bounds(subject, layer, 0, jacobians)
    bound = bounds.get("weights", bounds["steps"])
    lags = at_lags(bound)
    for (k, limit), norm in zip(lags.items(), through.log10_singular_values(list(lags))[:, 0].tolist(), strict=True):
        yield f"jacobian/norm_lag_{k}", norm
        yield f"jacobian/bound_lag_{k}", limit
    retention = subject.cell.retention(subject.path.gates[layer])
    if retention is not None and "cell" in subject.cell.state_names:
        path = cell_path(jacobians, through, retention[:, 0])
        for k in lags:
            yield f"jacobian/cell_path_lag_{k}", path.along[k].item()
            yield f"jacobian/cell_rest_lag_{k}", path.rest[k].item()
    exponents = lyapunov_spectrum(jacobians)
    finite = exponents[exponents.isfinite()]
    yield "lyapunov/largest", exponents[0].item()
    if len(finite):
        yield "lyapunov/mean", finite.mean().item()
    for name, share in unit_shares(subject, layer).items():
        yield f"unit/{name}", share
