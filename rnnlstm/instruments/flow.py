"""The gradient through time, total and direct, its half-life with an interval, and what the gates promise.

∂L/∂h_t is *total*: what reaches h_t on all ways. Its *direct* part comes through the layer's output at t
alone; for a loss at the last step that is nothing at all, anywhere before it. Unit: loss per unit of h.

Dimensions: L layers, T time steps, B sequences, K lags (0 is the last scored position), H units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnnlstm.instruments.probe import decay_rate, flow_by_lag, half_life, half_life_at, rows_by_lag
from rnnlstm.instruments.subject import Subject
from rnnlstm.recurrence import Trace, traced
from rnnlstm.tasks.batch import Batch

RESAMPLES = 400


@dataclass(frozen=True)
class Flow:
    """Frobenius norms over batch and units, by lag; `rows` are the squared norms of each sequence, (L, T, B)."""

    total: dict[str, Tensor]  #: by state, (L, K)
    direct: Tensor  #: of h, (L, K)
    rows: dict[str, Tensor]
    mask: Tensor  #: (T, B), the last scored positions

    def half_life(self, state: str, layer: int) -> tuple[float, float, float]:
        """Steps, with the ends of its 95 % interval: bootstrap over the sequences (Efron 1979)."""
        lags = rows_by_lag(self.rows[state], self.mask)[layer]  # (K, B)
        found = half_life(lags.sum(1).sqrt())
        rates = np.sort(_rates(lags))
        low, high = (half_life_at(rates[int(q * (len(rates) - 1))]) for q in (0.025, 0.975))
        return found, low, high


def flow(subject: Subject, loss_at: Batch | None = None) -> Flow:
    """∂L/∂state_t of the loss at the last scored positions, or of `loss_at`'s."""
    batch = subject.at_last if loss_at is None else loss_at
    trace = Trace()
    with torch.enable_grad(), traced(subject.network.recurrence, trace):
        outputs = subject.network.answer(subject.network.embed(batch.inputs).detach().requires_grad_())
        subject.task.loss(outputs, batch).backward()
    subject.network.zero_grad()
    mask = subject.at_last.mask
    rows = {name: trace.rows(name) for name in subject.cell.state_names}
    return Flow(
        {k: flow_by_lag(r, mask) for k, r in rows.items()}, flow_by_lag(trace.direct_rows(), mask), rows, mask
    )


def gates_half_life(subject: Subject, layer: int) -> tuple[float, float, float] | None:
    """What the gates imply: memory that is multiplied by f_t at each step halves in −ln 2 / mean ln f_t steps.

    Geometric mean over time and sequences, unit by unit; returns the median unit's half-life and those of the 10 %
    and the 90 % unit. Infinite where f = 1. None for a cell that has no path of its own for its memory.
    """
    retention = subject.cell.retention(subject.path.gates[layer])
    if retention is None:
        return None
    rates = retention.log().mean((0, 1))  # (H,)
    low, middle, high = (half_life_at(rates.quantile(q).item()) for q in (0.1, 0.5, 0.9))
    return middle, low, high


def _rates(lags: Tensor) -> np.ndarray:
    """Slopes of ln‖·‖ over lag, one for each resampling of the sequences; NaN alone where no slope can be told."""
    B = lags.shape[1]
    counts = np.random.default_rng(0).multinomial(B, np.full(B, 1 / B), RESAMPLES)  # (N, B)
    rates = np.array([decay_rate(norms) for norms in np.sqrt(counts @ lags.numpy().T)])
    known = rates[~np.isnan(rates)]
    return known if len(known) else np.array([math.nan])
