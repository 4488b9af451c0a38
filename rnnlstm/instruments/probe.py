"""The probe: one forward and backward pass of a replica on a fixed sample, with its recurrence recorded.

It logs ‖∂L/∂h_t‖ by lag, its half-life, and how open the gates are. L is the loss at each sequence's last scored
position alone: where every position is scored (copy memory), every h_t would receive loss directly, and hide what
came through time.

Dimensions: L layers, T time steps, B sequences, H hidden units, K = T lags.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnnlstm.models import Replicas
from rnnlstm.recurrence import Trace
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch

#: Lags whose gradient is logged as a number.
LAGS = (1, 10, 100)
#: Sequences of the sample: enough for a norm, and cheap.
SEQUENCES = 16
#: Norms below this are rounding and underflow, and are left out of the half-life.
SMALLEST = 1e-30
#: Activations of a gate below the one or above the other count as saturated.
SHUT, OPEN = 0.1, 0.9


@dataclass(frozen=True)
class Observation:
    """What a probe recorded. Every tensor is detached."""

    outputs: Tensor  #: (T, B, O)
    flow: dict[str, Tensor]  #: by state, (L, K): gradient norms by lag
    gates: list[dict[str, Tensor]]  #: by layer and gate, (T, B, H)


class Probe:
    """Looks at a replica on `batch`, always the first of its seed's stream `probe`."""

    def __init__(self, task: Task, seed: int, batch_size: int, device: torch.device) -> None:
        self.task = task
        self.batch: Batch = task.sample(seed, 0, "probe", min(batch_size, SEQUENCES)).to(device)
        self._last = last_scored(self.batch)

    def look(self, model: Replicas, replica: int) -> Observation:
        """Forward and backward pass; gradients reach no weight, so that training does not change."""
        trace = Trace()
        outputs = model.watched(replica, self.batch.inputs, trace)
        self.task.loss(outputs, self._last).backward()
        names = model.shell.recurrence.cell.state_names
        flow = {name: flow_by_lag(trace.rows(name), self._last.mask) for name in names}
        return Observation(outputs.detach(), flow, [trace.gates(layer) for layer in range(trace.layers)])

    def scalars(self, seen: Observation) -> dict[str, float]:
        """The logged values of an observation, by tag."""
        return dict(self._scalars(seen))

    def _scalars(self, seen: Observation) -> Iterator[tuple[str, float]]:
        several = len(seen.gates) > 1
        for layer, gates in enumerate(seen.gates):
            suffix = f"/layer_{layer}" if several else ""
            for state, norms in seen.flow.items():
                for lag in LAGS:
                    if lag < norms.shape[1]:
                        yield f"flow/{state}_lag_{lag}{suffix}", norms[layer, lag].item()
                name = "half_life" if state == "hidden" else f"{state}_half_life"
                yield f"flow/{name}{suffix}", half_life(norms[layer])
            for gate, activations in gates.items():
                for what, value in gate_values(activations).items():
                    yield f"gate/{gate}_{what}{suffix}", value
                for kind, value in by_kind(activations, self.batch, self.task.kind_names).items():
                    yield f"gate_by_kind/{gate}_{kind}{suffix}", value


def last_scored(batch: Batch) -> Batch:
    """The same batch with only each sequence's last scored position left in the mask."""
    later = batch.mask.flip(0).cumsum(0).flip(0)  # scored positions from here on, (T, B)
    return dataclasses.replace(batch, mask=batch.mask & (later == 1))


def rows_by_lag(rows: Tensor, mask: Tensor) -> Tensor:
    """Squared row norms (L, T, B) by lag, (L, K, B): lag k is k steps before the position that `mask` (T, B)
    scores, and 0 where a sequence is shorter than that."""
    last = mask.int().argmax(0)  # (B,)
    lags = torch.arange(mask.shape[0], device=rows.device)[:, None]  # (K, 1)
    t = last[None] - lags  # (K, B)
    index = t.clamp(min=0).expand(rows.shape[0], -1, -1)
    return rows.gather(1, index) * (t >= 0)


def flow_by_lag(rows: Tensor, mask: Tensor) -> Tensor:
    """Frobenius norms by lag, (L, K), from squared row norms `rows` (L, T, B). A sequence shorter than a lag adds
    nothing to it."""
    return rows_by_lag(rows, mask).sum(-1).sqrt()


def half_life(norms: Tensor) -> float:
    """Steps in which the gradient halves on its way back: −ln 2 / slope of ln ‖∂L/∂h‖ over lag (K,), least squares.

    Infinite where it does not shrink; NaN with fewer than two norms above `SMALLEST`.
    """
    return half_life_at(decay_rate(norms.double().cpu().numpy()))


def decay_rate(norms: np.ndarray) -> float:
    """The slope of ln ‖∂L/∂h‖ over lag (K,), least squares; NaN with fewer than two norms above `SMALLEST`."""
    lags = np.flatnonzero(norms > SMALLEST)
    return math.nan if len(lags) < 2 else float(np.polyfit(lags, np.log(norms[lags]), 1)[0])


def half_life_at(rate: float) -> float:
    """−ln 2 / rate, rate being the logarithm of the factor of one step; infinite where that does not shrink."""
    return math.inf if rate >= 0 else -math.log(2) / rate


def gate_values(activations: Tensor) -> dict[str, float]:
    """`mean` and `saturated` (share below 0.1 or above 0.9) of one gate, over everything in `activations`."""
    saturated = (activations < SHUT) | (activations > OPEN)
    return {"mean": activations.mean().item(), "saturated": saturated.double().mean().item()}


def by_kind(activations: Tensor, batch: Batch, kind_names: Sequence[str]) -> dict[str, float]:
    """Mean activation (T, B, H) while each kind of token is read; kinds that don't occur are left out."""
    return mean_by_kind(activations.mean(-1), batch.kinds, kind_names)


def mean_by_kind(values: Tensor, kinds: Tensor | None, names: Sequence[str]) -> dict[str, float]:
    """Mean of `values` (T, B) over each kind of token; kinds that don't occur are left out."""
    if kinds is None:
        return {}
    groups = {name: values[kinds == k] for k, name in enumerate(names)}
    return {name: chosen.mean().item() for name, chosen in groups.items() if len(chosen)}
