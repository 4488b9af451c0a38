"""Noise in the recurrence, to regularise training: recurrent dropout and zoneout.

Recurrent dropout at rate p. Of h_{t−1} the recurrent weights see

    h_{t−1} ⊙ m/(1−p),   m ~ Bernoulli(1−p) for each sequence and unit, one m for all its time steps.

A path of the state past these weights is not masked: c of the LSTM, z ⊙ h of the GRU. Evaluation uses no m, since
E[m/(1−p)] = 1. Source: Gal & Ghahramani 2016; cf. Semeniuta, Severyn & Barth 2016, who mask the candidate instead.

Zoneout at rate z. Each unit of each state s (h; of the LSTM h and c) may keep its value:

    s_t = k_t ⊙ s_{t−1} + (1 − k_t) ⊙ s̃_t,   k_t ~ Bernoulli(z), drawn for each time step and state,

where s̃_t is what the cell computes; the LSTM's h̃_t sees c̃_t, not c_t. Evaluation replaces k_t by its expectation z.
Source: Krueger et al. 2017.

A noisy cell draws nothing. It finds its masks among its layer's weights; without masks it computes as in evaluation.

Dimensions: T time steps, B sequences, H hidden units, S states of the cell, L layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeGuard

import torch
from torch import Tensor

from rnnlstm.cells.cell import Cell, State, Weights
from rnnlstm.config.errors import OptionError

DROPOUT = "recurrent_dropout_mask"  #: (B, H): m/(1−p), for `Cell.seen`
ZONEOUT = "zoneout_mask"  #: (T, B, S·H): k of every step, state by state
MASKS = (DROPOUT, ZONEOUT)


def noisy(cell: Cell, recurrent_dropout: float = 0.0, zoneout: float = 0.0) -> Cell:
    """`cell` with noise at these rates, in [0, 1); `cell` itself if both are 0.

    Raises: OptionError for another rate, or if dropping h would change nothing.
    """
    for key, rate in (("recurrent_dropout", recurrent_dropout), ("zoneout", zoneout)):
        if not 0 <= rate < 1:
            raise OptionError(key, rate, "must be at least 0 and below 1")
    if recurrent_dropout and not _sees_masks(cell):
        rule = (
            f"it would change nothing: no weight of the {cell.name} cell sees h by way of Cell.seen or Cell.recurrent"
        )
        raise OptionError("recurrent_dropout", recurrent_dropout, rule)
    return with_noise(cell, recurrent_dropout, zoneout) if recurrent_dropout or zoneout else cell


def with_noise(cell: Cell, recurrent_dropout: float, zoneout: float) -> Cell:
    """As `noisy`, without its checks."""
    attributes = {"noiseless": cell, "recurrent_dropout": float(recurrent_dropout), "zoneout": float(zoneout)}
    cls = type(f"Noisy{type(cell).__name__}", (_Noisy, type(cell)), attributes)
    result: Cell = cls(**{field.name: getattr(cell, field.name) for field in dataclasses.fields(cell)})
    return result


def is_noisy(cell: Cell) -> TypeGuard[_Noisy]:
    return isinstance(cell, _Noisy)


def draw_masks(
    cell: Cell, uniform: Callable[[tuple[int, ...]], Tensor],
    *, steps: int, sequences: int, hidden_size: int, num_layers: int, dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:  # fmt: skip
    """The masks of T steps and B sequences, for all layers of a noisy cell: `zoneout_mask_l0` and so on. `uniform`
    draws float32 numbers of a shape, uniform on [0, 1).

    With equal B, the masks of longer sequences begin with those of shorter ones.
    """
    B, H, L = sequences, hidden_size, num_layers
    masks: dict[str, Tensor] = {}
    if p := cell.recurrent_dropout:
        for layer in range(L):
            masks[f"{DROPOUT}_l{layer}"] = (uniform((B, H)) >= p).to(dtype) / (1 - p)
    if z := cell.zoneout:
        # Time is the first dimension and this the last draw, so that longer sequences begin with the same numbers.
        kept = (uniform((steps, L, B, len(cell.state_names) * H)) < z).to(dtype)
        masks |= {f"{ZONEOUT}_l{layer}": mask for layer, mask in enumerate(kept.unbind(1))}
    return masks


class _Noisy(Cell):
    """Mixed in before a cell's class: noise around the steps of the noiseless cell.

    It calls the noiseless cell, not `super()`: a cell whose step calls its own `retention` must not get the one
    below.
    """

    noiseless: Cell

    def prepare(self, w: Weights) -> Weights:
        masks = {name: w[name] for name in MASKS if name in w}
        return {**self.noiseless.prepare({name: weight for name, weight in w.items() if name not in masks}), **masks}

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """In training k follows the pre-activations, (T, B, G·H + S·H), so that each step gets its own."""
        projected = self.noiseless.project(x, w)
        return torch.cat([projected, w[ZONEOUT]], -1) if ZONEOUT in w else projected

    def step(self, projected: Tensor, state: State, w: Weights) -> tuple[State, dict[str, Tensor]]:
        kept: tuple[Tensor | float, ...] = (self.zoneout,) * len(state)
        if ZONEOUT in w:
            width = len(state) * state[0].shape[-1]
            kept = projected[..., -width:].chunk(len(state), -1)
            projected = projected[..., :-width]
        new, gates = self.noiseless.step(projected, state, w)
        if self.zoneout:
            new = tuple(k * old + (1 - k) * s for k, old, s in zip(kept, state, new, strict=True))
        return new, gates

    def retention(self, gates: Mapping[str, Tensor]) -> Tensor | None:
        """In expectation: z + (1 − z) times the noiseless cell's."""
        factor = self.noiseless.retention(gates)
        return None if factor is None else self.zoneout + (1 - self.zoneout) * factor

    @property
    def has_scan(self) -> bool:
        return False

    @property
    def has_torch_layer(self) -> bool:
        return False


def _sees_masks(cell: Cell) -> bool:
    """Whether masking h changes a step, on random numbers."""
    B, I, H = 8, 3, 8  # noqa: E741
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    w = cell.prepare({name: random(*shape) for name, shape in cell.parameter_shapes(I, H, True).items()})
    projected, state = cell.project(random(B, I), w), tuple(random(B, H) for _ in cell.state_names)
    with_h, _ = cell.step(projected, state, w)
    without, _ = cell.step(projected, state, {**w, DROPOUT: torch.zeros(B, H, dtype=torch.float64)})
    return any(not torch.equal(a, b) for a, b in zip(with_h, without, strict=True))
