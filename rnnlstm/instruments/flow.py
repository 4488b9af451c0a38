"""The gradient through time, total and direct, its half-life with an interval, and the half-life the gates imply.

∂L/∂h_t is *total*: it reaches h_t on all paths. Its *direct* part comes through the layer's output at t alone; for a
loss at the last step it is zero at all earlier steps. Unit: loss per unit of h.

Dimensions: L layers, T time steps, B sequences, K lags (0 is the last scored position), H units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnnlstm.cells import make_cell
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.probe import decay_rate, flow_by_lag, half_life, half_life_at, rows_by_lag
from rnnlstm.models import Network, Sizes
from rnnlstm.recurrence import Trace, traced
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomStream

RESAMPLES = 400
#: Axes of the gain map.
GAINS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0)
LENGTHS = (5, 10, 20, 50, 100, 200, 365)


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
        steps = half_life(lags.sum(1).sqrt())
        rates = np.sort(_rates(lags))
        low, high = (half_life_at(rates[int(q * (len(rates) - 1))]) for q in (0.025, 0.975))
        return steps, low, high


def flow(analysed: AnalysedNetwork, loss_at: Batch | None = None) -> Flow:
    """∂L/∂state_t of the loss at the last scored positions, or of `loss_at`'s."""
    batch = analysed.at_last if loss_at is None else loss_at
    trace = Trace()
    with torch.enable_grad(), traced(analysed.network.recurrence, trace):
        outputs = analysed.network.answer(analysed.network.embed(batch.inputs).detach().requires_grad_())
        analysed.task.loss(outputs, batch).backward()
    analysed.network.zero_grad()
    mask = analysed.at_last.mask
    rows = {name: trace.rows(name) for name in analysed.cell.state_names}
    return Flow(
        {k: flow_by_lag(r, mask) for k, r in rows.items()}, flow_by_lag(trace.direct_rows(), mask), rows, mask
    )


def gates_half_life(analysed: AnalysedNetwork, layer: int) -> tuple[float, float, float] | None:
    """The half-life that the gates imply, in steps: memory multiplied by f_t at each step halves in −ln 2 / mean ln
    f_t.

    Geometric mean over time and sequences, unit by unit; returns the half-lives of the median unit, of the 10 %
    and of the 90 % unit. Infinite where f = 1. None for a cell without a path of its own for its memory.
    """
    retention = analysed.cell.retention(analysed.path.gates[layer])
    if retention is None:
        return None
    rates = retention.log().mean((0, 1))  # (H,)
    low, middle, high = (half_life_at(rates.quantile(q).item()) for q in (0.1, 0.5, 0.9))
    return middle, low, high


def _rates(lags: Tensor) -> np.ndarray:
    """Slopes of ln‖·‖ over lag, one for each resampling of the sequences; one NaN where no slope is defined."""
    B = lags.shape[1]
    counts = np.random.default_rng(0).multinomial(B, np.full(B, 1 / B), RESAMPLES)  # (N, B)
    rates = np.array([decay_rate(norms) for norms in np.sqrt(counts @ lags.numpy().T)])
    known = rates[~np.isnan(rates)]
    return known if len(known) else np.array([math.nan])


def gain_map(
    task: Task, nonlinearity: str, hidden_size: int, seed: int, gains: Sequence[float], lengths: Sequence[int]
) -> Tensor:
    """Where gradients vanish and where they explode: log10 of ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖, (gains, lengths).

    Each is of an untrained RNN on 8 sequences, W_h an orthogonal matrix times the gain g. A linear network's gradient
    grows as g^T, so that its boundary is g = 1 at every length; a nonlinearity with slopes below one moves it.
    """
    log_ratios = torch.zeros(len(gains), len(lengths), dtype=torch.float64)
    for i, gain in enumerate(gains):
        for j, length in enumerate(lengths):
            here = task.vary(length=length)
            network = Network(
                make_cell("rnn", nonlinearity=nonlinearity, init="orthogonal", gain=gain),
                Sizes(here.num_tokens, here.input_size, here.output_size, hidden_size),
                max_lag=here.sequence_length,
                generator=RandomStream(seed, "init").torch_generator(),
            )
            norms = flow(AnalysedNetwork.of(here, network, here.sample(seed, 0, "probe", 8))).total["hidden"][0]
            log_ratios[i, j] = norms[-1].log10() - norms[0].log10()
    return log_ratios
