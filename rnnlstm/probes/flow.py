"""The gradient through time: ‖∂L/∂h_t‖ by lag, and its half-life.

L is the loss at each sequence's last scored position alone: where every position is scored (copy memory),
every h_t would receive loss directly, and nothing could be seen of what came through time.

Dimensions: L layers, T time steps, B sequences, K = T lags.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from rnnlstm.batch import Batch

#: Norms below this are rounding and underflow: they say nothing about the rate of decay.
SMALLEST = 1e-30


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
