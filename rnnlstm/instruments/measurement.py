"""Everything that is measured of one layer of a network: as one object for gradflow, as numbers for `probe=full`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnlstm.cells import Cell, RNNCell
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.flow import Flow, flow, gates_half_life
from rnnlstm.instruments.jacobians import (
    CellPath,
    Products,
    at_lags,
    cell_path,
    influence,
    log10_bounds,
    lyapunov_spectrum,
    products,
    step_jacobians,
)
from rnnlstm.instruments.probe import by_kind, mean_by_kind
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
        figures: dict[str, Any] = {
            "setting": self.label,
            "layer": self.layer,
            "parameters": self.parameters,
            **self.scores,
        }
        for state in self.flow.total:
            half_life, low, high = self.flow.half_life(state, self.layer)
            name = f"{state}_half_life"
            figures |= {name: half_life, f"{name}_low": low, f"{name}_high": high}
        if self.gates_half_life is not None:
            names = ("gates_half_life", "gates_half_life_unit_10%", "gates_half_life_unit_90%")
            figures |= dict(zip(names, self.gates_half_life, strict=True))
        K = len(hidden)
        for lag in sorted({k for k in (10, 100, K - 1) if k < K}):
            name = "first" if lag == K - 1 else str(lag)
            figures[f"log10_gradient_ratio_lag_{name}"] = (hidden[lag] / hidden[0]).log10().item()
            figures[f"log10_jacobian_norm_lag_{name}"] = self.singular[lag, 0].item()
        for k in (1, 10, 100):
            if k < K:
                figures[f"weight_share_last_{k}"] = self.weights.share[k].item()
        reached = (self.weights.share >= 0.9).nonzero()
        figures["steps_for_90%_of_weight_gradient"] = reached[0, 0].item() if len(reached) else math.nan
        figures["weight_gradient_norm"] = self.weights.whole.norm().item()
        figures["weight_gradient_error"] = self.weights.error
        figures["lyapunov_largest"] = self.lyapunov[0].item()
        figures |= {f"influence_{kind}": value for kind, value in self.influence_kinds.items()}
        figures |= {f"gate_{name}": value for name, value in self.gate_kinds.items()}
        return figures | self.units

    def bound_holds(self) -> bool:
        """Whether no Jacobian is larger than its bounds, to rounding."""
        return all(bool((self.singular[:, 0] <= bound + 1e-9).all()) for bound in self.bounds.values())


def measure(label: str, analysed: AnalysedNetwork) -> list[Measurement]:
    """A measurement of each layer. About 10 s for an LSTM of T=200, H=128 on two cores, in some 1.5 GB."""
    through_time, gradients = flow(analysed), weight_gradients(analysed)
    reached = influence(analysed)
    kinds = mean_by_kind(reached, analysed.batch.kinds, analysed.task.kind_names)
    scores = analysed.task.metrics(analysed.path.outputs, analysed.batch)
    measurements = []
    for layer in range(analysed.layers):
        jacobians, through, bounds, cell = _jacobians(analysed, layer)
        measurements.append(
            Measurement(
                network=label,
                label=label if analysed.layers == 1 else f"{label}, layer {layer}",
                layer=layer,
                flow=through_time,
                gates_half_life=gates_half_life(analysed, layer),
                weights=gradients[layer],
                singular=through.log10_singular_values(),
                bounds=bounds,
                cell=cell,
                lyapunov=lyapunov_spectrum(jacobians),
                influence=reached,
                influence_kinds=kinds,
                units=unit_shares(analysed, layer),
                gate_kinds={
                    f"{gate}_{kind}": value
                    for gate, activations in analysed.path.gates[layer].items()
                    for kind, value in by_kind(activations, analysed.batch, analysed.task.kind_names).items()
                },
                scores=scores,
                parameters=sum(w.numel() for w in analysed.network.parameters()),
            )
        )
    return measurements


def as_lists(value: Tensor, digits: int = 6) -> list[Any]:
    """For JSON: nested lists of numbers with `digits` significant digits; None for infinity and NaN."""
    numbers: list[Any] = value.to(torch.float64).tolist()

    def rounded(entry: Any) -> Any:
        if isinstance(entry, list):
            return [rounded(e) for e in entry]
        return float(f"{entry:.{digits}g}") if math.isfinite(entry) else None

    return [rounded(entry) for entry in numbers]


#: An activation counts as saturated where its slope is below this share of the steepest there is.
FLAT = 0.1


def unit_shares(analysed: AnalysedNetwork, layer: int) -> dict[str, float]:
    """`saturated`: share of activations of h whose slope φ' is below a tenth of the steepest (for a cell with gates:
    |tanh| of its memory above 0.95), which pass hardly any gradient. `dead`: share of units whose output is exactly
    zero at every step of every sequence, which pass none."""
    states = {name: _computed(state, analysed.cell.zoneout) for name, state in analysed.path.states[layer].items()}
    hidden = states["hidden"]  # (T, B, H)
    slopes = _slopes(analysed.cell, states)
    dead = (hidden == 0).all(0).all(0)
    return {"saturated": (slopes < FLAT).double().mean().item(), "dead": dead.double().mean().item()}


def _computed(state: Tensor, z: float) -> Tensor:
    """The cell's own output, without the share z of the state before that zoneout mixes in."""
    return (state - z * torch.cat([torch.zeros_like(state[:1]), state[:-1]])) / (1 - z) if z else state


def _slopes(cell: Cell, states: dict[str, Tensor]) -> Tensor:
    """φ' of each activation relative to the steepest, computed from φ's output."""
    if "cell" in states:
        return 1 - torch.tanh(states["cell"]) ** 2
    h = states["hidden"]
    name = cell.nonlinearity if isinstance(cell, RNNCell) else "tanh"
    if name == "centred_steep_sigmoid":
        return 1 - 4 * h**2
    if name in ("tanh", "centred_sigmoid", "wide_steep_sigmoid"):
        return 1 - h**2
    if name in ("sigmoid", "steep_sigmoid"):
        return 4 * h * (1 - h)
    return (h > 0).to(h.dtype) if name == "relu" else torch.ones_like(h)


def full_scalars(analysed: AnalysedNetwork) -> dict[str, float]:
    """What `probe=full` logs, by tag. At T=200, H=128 it takes seconds and a few hundred MB: T times the weights, and
    T matrices of the state's size."""
    kinds = mean_by_kind(influence(analysed), analysed.batch.kinds, analysed.task.kind_names)
    values = {f"influence/{kind}": value for kind, value in kinds.items()}
    gradients, at_last, whole = weight_gradients(analysed), flow(analysed), flow(analysed, analysed.batch)
    for layer in range(analysed.layers):
        suffix = f"/layer_{layer}" if analysed.layers > 1 else ""
        scalars = dict(_layer_scalars(analysed, layer, at_last, whole))
        scalars |= {f"weight_gradient/share_last_{k}": v for k, v in at_lags(gradients[layer].share).items()}
        values |= {tag + suffix: value for tag, value in scalars.items()}
    return values


def _jacobians(analysed: AnalysedNetwork, layer: int) -> tuple[Tensor, Products, dict[str, Tensor], CellPath | None]:
    """Of the first sequence: each step's, their products, the bounds, and the cell's path where there is one."""
    jacobians = step_jacobians(analysed, layer, 0)
    through, bounds = products(jacobians), log10_bounds(analysed, layer, 0, jacobians)
    retention = analysed.cell.retention(analysed.path.gates[layer])
    if retention is None or "cell" not in analysed.cell.state_names:
        return jacobians, through, bounds, None
    return jacobians, through, bounds, cell_path(jacobians, through, retention[:, 0])


def _layer_scalars(analysed: AnalysedNetwork, layer: int, at_last: Flow, whole: Flow) -> Iterator[tuple[str, float]]:
    for state in analysed.cell.state_names:
        _, low, high = at_last.half_life(state, layer)
        yield f"flow/{state}_half_life_low", low
        yield f"flow/{state}_half_life_high", high
    total = whole.total["hidden"][layer].norm().item()
    yield "flow/direct_share", whole.direct[layer].norm().item() / total if total else math.nan
    implied = gates_half_life(analysed, layer)
    if implied is not None:
        yield "flow/gates_half_life", implied[0]

    jacobians, through, bounds, path = _jacobians(analysed, layer)
    lags = at_lags(bounds.get("weights", bounds["steps"]))
    for (k, limit), norm in zip(lags.items(), through.log10_singular_values(list(lags))[:, 0].tolist(), strict=True):
        yield f"jacobian/norm_lag_{k}", norm
        yield f"jacobian/bound_lag_{k}", limit
    if path is not None:
        for k in lags:
            yield f"jacobian/cell_path_lag_{k}", path.along[k].item()
            yield f"jacobian/cell_rest_lag_{k}", path.rest[k].item()
    exponents = lyapunov_spectrum(jacobians)
    finite = exponents[exponents.isfinite()]
    yield "lyapunov/largest", exponents[0].item()
    if len(finite):
        yield "lyapunov/mean", finite.mean().item()
    for name, share in unit_shares(analysed, layer).items():
        yield f"unit/{name}", share
