"""Jacobians through time: ∂state_t/∂state_k as a product of step Jacobians, its singular values, bounds and
exponents.

    J_t = ∂state_t/∂state_{t−1},        ∂state_T/∂state_k = J_T J_{T−1} … J_{k+1}

For the LSTM the state is (h, c) and J is 2H × 2H. Products are kept as a matrix of norm 1 and the logarithm of its
norm: after 200 steps of a sigmoid network they are near 1e-200. Bounds (Pascanu, Mikolov & Bengio 2013):

    ‖∂h_T/∂h_k‖ ≤ Π ‖J_j‖ ≤ Π ‖D_j‖ · σ_max(W)^(T−k),        D_j = diag φ'(a_j), of an RNN

Under zoneout at rate z, in expectation, J = z I + (1 − z) D W, and the last bound's factors are z + (1 − z) ‖D_j‖
σ_max(W).

Lyapunov exponents are the rates at which nearby states separate or converge, one for each direction:

    Q_{t+1} R_{t+1} = J_t Q_t,        λ_i = mean over t of ln |R_t,ii|        (nats a step)

Where all are below zero, gradients vanish in every direction, at the rate of the largest; above zero one explodes. An
orthogonal linear network has 0 in all directions, a·I has ln |a|. Source: Benettin et al. 1980; for recurrent
networks Engelken, Wolf & Abbott 2023; Vogt et al. 2022.

Dimensions: T time steps, B sequences, H hidden units, N numbers of state, K lags 0 … T.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from rnnlstm.cells import Cell, RNNCell, State, Weights
from rnnlstm.instruments.analysed_network import AnalysedNetwork

#: Time steps whose Jacobians are computed at once: limits the memory to about that of the result.
CHUNK = 25


def step_jacobians(analysed: AnalysedNetwork, layer: int, sequence: int) -> Tensor:
    """J_1 … J_T of one sequence: (T, N, N), rows by the state after, columns by the state before. N = H times the
    states."""
    path = analysed.path
    inputs = path.inputs[layer][:, sequence]
    states = [path.states[layer][name][:, sequence] for name in analysed.cell.state_names]
    after = torch.cat(states, 1)  # (T, N)
    before = torch.cat([torch.zeros_like(after[:1]), after[:-1]])
    return jacobians_along(analysed.cell, analysed.weights(layer), inputs, before)


def jacobians_along(cell: Cell, w: Weights, inputs: Tensor, before: Tensor) -> Tensor:
    """(T, N, N) for inputs (T, I) and the states before each step (T, N), by reverse mode, mapped over time."""
    count, w = len(cell.state_names), cell.prepare(w)

    def step(state: Tensor, x: Tensor) -> Tensor:
        parts: State = tuple(s[None] for s in state.chunk(count))
        after, _ = cell.step(cell.project(x[None], w), parts, w)
        return torch.cat([s[0] for s in after])

    mapped = vmap(jacrev(step))
    with torch.no_grad():
        return torch.cat(
            [mapped(s, x) for s, x in zip(before.split(CHUNK), inputs.split(CHUNK), strict=True)]
        ).detach()


@dataclass(frozen=True)
class Products:
    """∂state_T/∂state_{T−k} for k = 0 … K−1, as `matrices` (K, N, N) of Frobenius norm 1 times exp(`log_norms`)."""

    matrices: Tensor
    log_norms: Tensor

    def log10_singular_values(self, lags: Sequence[int] | None = None) -> Tensor:
        """(K, N) in descending order, of all lags or of these; below 1e-16 of the largest they are rounding."""
        chosen = list(range(len(self.matrices)) if lags is None else lags)
        values = torch.linalg.svdvals(self.matrices[chosen])
        return (values.log() + self.log_norms[chosen, None]) / math.log(10)

    def log10_norms(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """(K,): Frobenius norms of a block."""
        norms = self.matrices[:, rows, columns].flatten(1).norm(dim=1)
        return (norms.log() + self.log_norms) / math.log(10)


def products(jacobians: Tensor) -> Products:
    """From J_1 … J_T, (T, N, N), the products J_T … J_{T−k+1} for k = 0 … T; the empty one is I."""
    N = jacobians.shape[-1]
    matrix, log_norm = torch.eye(N, dtype=jacobians.dtype), 0.0
    matrices, logs = [], []
    for k in range(len(jacobians) + 1):
        norm = matrix.norm().item()
        if norm > 0:
            matrix, log_norm = matrix / norm, log_norm + math.log(norm)
        matrices.append(matrix)
        logs.append(log_norm if norm > 0 else -math.inf)
        if k < len(jacobians):
            matrix = matrix @ jacobians[-1 - k]
    return Products(torch.stack(matrices), torch.tensor(logs, dtype=torch.float64))


def log10_bounds(analysed: AnalysedNetwork, layer: int, sequence: int, jacobians: Tensor) -> dict[str, Tensor]:
    """Bounds of the spectral norm by lag, (T+1,) each: `steps`, Π ‖J_j‖; for an RNN `weights`, Π‖D_j‖ σ_max^k."""
    bounds = {"steps": _cumulated(torch.linalg.matrix_norm(jacobians, 2).log10())}
    cell = analysed.cell
    if isinstance(cell, RNNCell):
        w = analysed.weights(layer)
        slopes = slopes_along(cell, w, analysed, layer, sequence)  # (T, H)
        sigma = torch.linalg.matrix_norm(w["weight_hh"], 2)
        factors = cell.zoneout + (1 - cell.zoneout) * slopes.abs().amax(1) * sigma
        bounds["weights"] = _cumulated(factors.log10())
    return bounds


def slopes_along(cell: RNNCell, w: Weights, analysed: AnalysedNetwork, layer: int, sequence: int) -> Tensor:
    """φ'(a_t), (T, H), of an RNN along one sequence."""
    hidden = analysed.path.states[layer]["hidden"][:, sequence]
    before = torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]])
    with torch.enable_grad():
        a = cell.project(analysed.path.inputs[layer][:, sequence], w) + before @ w["weight_hh"].T
        a = (a + w["bias_hh"] if "bias_hh" in w else a).requires_grad_()
        (slopes,) = torch.autograd.grad(cell.phi(a).sum(), a)
    return slopes


@dataclass(frozen=True)
class CellPath:
    """∂c_T/∂c_{T−k} split in two, as log10 Frobenius norms by lag, (T+1,)."""

    along: Tensor  #: Π f_j, the path through the cell alone: the whole where h is cut off from gates and candidate
    rest: Tensor  #: all paths through h
    full: Tensor
    log_retained: Tensor  #: (T+1, H): ln Π f_j, unit by unit


def cell_path(jacobians: Tensor, through: Products, retention: Tensor) -> CellPath:
    """For cells with states (h, c). `retention` (T, H) is f_t of the same sequence; J's block ∂c_t/∂c_{t−1} is
    diag(f_t)."""
    H = retention.shape[1]
    cells = slice(H, 2 * H)
    log_retained = torch.cat([torch.zeros(1, H, dtype=torch.float64), retention.log().flip(0).cumsum(0)])
    full = through.log10_norms(cells, cells)
    along = (torch.logsumexp(2 * log_retained, 1) / 2) / math.log(10)
    # The difference in the products' own scale, where neither part underflows alone.
    scaled = (log_retained - through.log_norms[:, None]).exp()
    rest = through.matrices[:, cells, cells] - torch.diag_embed(scaled)
    return CellPath(along, (rest.flatten(1).norm(dim=1).log() + through.log_norms) / math.log(10), full, log_retained)


def _cumulated(log_factors: Tensor) -> Tensor:
    """Logarithms of the products of the last k factors, k = 0 … T."""
    return torch.cat([torch.zeros(1, dtype=log_factors.dtype), log_factors.flip(0).cumsum(0)])


def at_lags(values: Tensor, lags: tuple[int, ...] = (1, 10, 100)) -> Mapping[int, float]:
    """The entries at these lags, where they exist."""
    return {k: values[k].item() for k in lags if k < len(values)}


def lyapunov_spectrum(jacobians: Tensor, skip: int = 0) -> Tensor:
    """Lyapunov exponents (N,), descending, in nats a step, from step Jacobians (T, N, N).

    The first `skip` steps only align Q. −∞ for a direction that a step maps to zero, such as a dead unit's.
    """
    T, N = len(jacobians), jacobians.shape[-1]
    generator = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(N, N, dtype=jacobians.dtype, generator=generator))
    total = torch.zeros(N, dtype=jacobians.dtype)
    for t in range(T):
        Q, R = torch.linalg.qr(jacobians[t] @ Q)
        if t >= skip:
            total += R.diagonal().abs().log()
    return (total / (T - skip)).sort(descending=True).values


def influence(analysed: AnalysedNetwork) -> Tensor:
    """How much the answer changes with each input, ‖∂answer/∂x_t‖ over features: (T, B). Unit: output per unit of
    input.

    The answer is the output for the right class at the last scored position (for numbers, their sum); x_t is the
    recurrence's input at t, the token's embedding or the input's features.
    """
    batch = analysed.at_last
    with torch.enable_grad():
        x = analysed.network.embed(batch.inputs).detach().requires_grad_()
        outputs = analysed.network.answer(x)[batch.mask]  # (B, O), a position of each sequence
        if not batch.targets.is_floating_point():
            outputs = outputs.gather(1, batch.targets[batch.mask][:, None])
        (gradient,) = torch.autograd.grad(outputs.sum(), x)
    return gradient.norm(dim=-1)
