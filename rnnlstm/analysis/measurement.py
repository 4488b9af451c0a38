"""Everything that is measured of one layer of a network, in one object: for tables, figures and files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rnnlstm.analysis.flow import Flow, flow, gates_half_life
from rnnlstm.analysis.influence import influence
from rnnlstm.analysis.jacobians import CellPath, cell_path, log10_bounds, products, step_jacobians
from rnnlstm.analysis.lyapunov import lyapunov_spectrum
from rnnlstm.analysis.subject import Subject
from rnnlstm.analysis.units import unit_shares
from rnnlstm.analysis.weight_gradient import WeightGradient, weight_gradients
from rnnlstm.probes.gates import by_kind, mean_by_kind


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
