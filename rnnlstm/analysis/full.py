"""What `probe=full` logs, by tag: the analyses of this room as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rnnlstm.analysis.flow import Flow, flow, gates_half_life
from rnnlstm.analysis.influence import influence
from rnnlstm.analysis.jacobians import at_lags, cell_path, log10_bounds, products, step_jacobians
from rnnlstm.analysis.lyapunov import lyapunov_spectrum
from rnnlstm.analysis.subject import Subject
from rnnlstm.analysis.units import unit_shares
from rnnlstm.analysis.weight_gradient import weight_gradients
from rnnlstm.probes.gates import mean_by_kind


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
