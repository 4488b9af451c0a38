"""Where clipping decides: plain SGD by rate, threshold and length; who solves the task, and who diverges."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rnnlstm.studies.common import ORTHOGONAL_TANH, QUIET, Comparison, more_diverge, more_solve
from rnnlstm.studies.loop import kept_rows, plan_of, train_row
from rnnlstm.studies.study import Check, Minutes, Row, Rows, Study, register_study

if TYPE_CHECKING:
    from rnnlstm.training.step import Trainer

NONE, NORM_01, NORM_1, VALUE = "none", "norm 0.1", "norm 1", "value 0.1"
CLIPS = {
    NONE: ("clip=none",),
    NORM_01: ("clip=norm", "clip.threshold=0.1"),
    NORM_1: ("clip=norm", "clip.threshold=1"),
    VALUE: ("clip=value", "clip.threshold=0.1"),
}
#: Pascanu's starts: nonlinearity, deviation of the recurrent weights, and whether they are the "smart" ones.
STARTS = {"σ, N(0, 0.01)": ("sigmoid", 0.01), "tanh, N(0, 0.1)": ("tanh", 0.1), "tanh, smart": ("tanh", None)}
CONNECTIONS, RADIUS = 15, 0.95


class Block(NamedTuple):
    """Rows that differ in rate and clipping alone, for one network at several lengths."""

    model: tuple[str, ...]
    lengths: tuple[int, ...]
    rates: tuple[float, ...]
    clips: tuple[str, ...]
    updates: int
    seeds: int


RNN, STARTED = "tanh RNN", "Pascanu's starts"
BLOCKS: dict[str, dict[str, Block]] = {
    "quick": {
        RNN: Block(ORTHOGONAL_TANH.overrides, (10,), (0.01, 0.1), (NONE, NORM_1), 500, 5),
    },
    "standard": {
        RNN: Block(ORTHOGONAL_TANH.overrides, (30, 50), (0.01, 0.03, 0.1), tuple(CLIPS), 20_000, 20),
        STARTED: Block(("model=rnn",), (20, 30, 50), (0.01,), (NONE, NORM_1), 20_000, 8),
    },
}


@register_study("clipping_map")
class ClippingMap(Study):
    title = "Where clipping decides"
    question = "At which rates and lengths does plain SGD diverge, or fail, for want of clipping?"
    reference = (
        "Pascanu, Mikolov & Bengio 2013, temporal order, success by length from three starts (from memory): plain "
        "SGD falls to zero as sequences grow, with clipping it solves longer ones. Their code "
        "(github.com/pascanur/trainingRNNs, read) replaces a gradient that is not finite, or huge, by 0.02 W_hh, "
        "where clipping is on; it tests every 20 updates and stops at 0 % error"
    )
    deviations = (
        "Temporal order (variant pascanu), 50 units, batch 20, SGD without momentum, orthogonal start at gain 1; "
        "tested every 100 updates, solved by the task's own criterion. A gradient that is not finite ends a seed: "
        "it counts as diverged. 20,000 updates against up to 5 million in the paper. Pascanu's starts: "
        "W_hh of N(0, 0.01), N(0, 0.1), or 15 connections a unit and spectral radius 0.95; other weights PyTorch's. "
        "One seed of each corner (lowest and highest rate, with and without clipping) was run first. At T=20 every "
        "corner of the tanh RNN solved the task (100 to 4,400 updates), and an LSTM did at T=20, 50 and 100 at rates "
        "0.1 and 1 (100 to 800 updates): there clipping can't decide, and these lengths were dropped. At T=30 all "
        "corners solved, too (600 to 13,700 updates); it was kept as the length before the border"
    )
    claims = ("C4",)
    caption = (
        "What to see: for each length, rate (rows) and kind of clipping (columns) the share of seeds that solve the "
        "task, and below it, where there are any, the share that diverged."
    )
    minutes = Minutes(quick=0.5, standard=120)
    figure = "solved"

    def settings(self, size: str) -> tuple[str, ...]:
        return tuple(_setting(name, T) for name, block in BLOCKS[size].items() for T in block.lengths)

    def measured(self, size: str, setting: str, folder: Path) -> list[Row]:
        ((name, block, T),) = [
            (name, block, T)
            for name, block in BLOCKS[size].items()
            for T in block.lengths
            if _setting(name, T) == setting
        ]
        budget = f"{block.updates} updates, {block.seeds} seeds"
        arms = itertools.product(block.rates, block.clips, STARTS if name == STARTED else ("",))
        wanted = {
            f"{setting}, {arm_name(*arm)}, {budget}": functools.partial(trained, setting, block, T, *arm)
            for arm in arms
        }
        return kept_rows(folder, wanted)

    def checks(self, size: str) -> list[Check]:
        if size == "quick":
            here = _setting(RNN, 10)
            return [
                Check(
                    "tanh RNN, T=10, rate 0.1: no seed diverges by norm, and no fewer solve it than without clipping",
                    lambda t: _no_worse(t(here, arm_name(0.1, NORM_1)), t(here, arm_name(0.1, NONE))),
                )
            ]
        return [
            _compared(RNN, T, 0.1, NORM_1, what) for T in BLOCKS[size][RNN].lengths for what in ("diverge", "solve")
        ]

    def draw(self, rows: Sequence[Row], path: Path) -> bool:
        draw_maps(Rows(rows), path)
        return True


def _setting(network: str, length: int) -> str:
    return f"{network}, T={length}"


def arm_name(rate: float, clip: str, start: str = "") -> str:
    return f"{start + ', ' if start else ''}SGD {rate:g}, clip {clip}"


def trained(setting: str, block: Block, length: int, rate: float, clip: str, start: str) -> Row:
    """All seeds of one condition, in lockstep."""
    model: tuple[str, ...] = ("model.hidden_size=50", "train.batch_size=20", "eval.every=100", "eval.samples=512")
    if start:
        model += (f"model.nonlinearity={STARTS[start][0]}",)
    plan = plan_of(
        *QUIET,
        "task=temporal_order",
        "task.variant=pascanu",
        f"task.length={length}",
        "optimizer=sgd",
        f"optimizer.lr={rate}",
        f"train.steps={block.updates}",
        f"seeds={block.seeds}",
        "device=cpu",
        "threads=1",
        *block.model,
        *CLIPS[clip],
        *model,
    )

    def begin(trainer: Trainer) -> None:
        if start:
            start_as_pascanu(trainer, STARTS[start][1])

    return train_row(plan, setting, arm_name(rate, clip, start), change=begin)


def start_as_pascanu(trainer: Trainer, deviation: float | None) -> None:
    """Draw the recurrent weights of each replica from its own seed: N(0, deviation²), or, for None, `CONNECTIONS`
    entries of N(0, 1) in each row, scaled to the spectral radius `RADIUS`."""
    import torch

    weights = trainer.model.parameters["recurrence.weight_hh_l0"]
    for r, seed in enumerate(trainer.seeds):
        generator = torch.Generator().manual_seed(seed)
        H = weights.shape[-1]
        drawn = torch.randn(H, H, generator=generator)
        if deviation is None:
            order = torch.rand(H, H, generator=generator).argsort(1)
            drawn = drawn * (order < CONNECTIONS)
            drawn *= RADIUS / torch.linalg.eigvals(drawn).abs().max()
        else:
            drawn *= deviation
        with torch.no_grad():
            weights[r].copy_(drawn)


def _no_worse(row: Row, other: Row) -> tuple[bool, str]:
    told = f"{row.arm}: solved {row.solved_count}, diverged {row.diverged_count} of {row.n}"
    told += f"; {other.arm}: {other.solved_count}, {other.diverged_count} of {other.n}"
    return row.diverged_count == 0 and row.solved_count >= other.solved_count, told


def _compared(network: str, length: int, rate: float, clip: str, what: str) -> Check:
    setting = _setting(network, length)

    def test(t: Rows) -> Comparison:
        clipped, free = t(setting, arm_name(rate, clip)), t(setting, arm_name(rate, NONE))
        return more_diverge(free, clipped) if what == "diverge" else more_solve(clipped, free)

    text = f"more seeds diverge without clipping than with {clip}"
    if what == "solve":
        text = f"more seeds solve the task with {clip} than without clipping"
    return Check(f"{setting}, SGD {rate:g}: {text}", test)


def draw_maps(rows: Rows, path: Path) -> None:
    """A map of shares for each setting."""
    import numpy as np

    from rnnlstm.reporting.figures import save_picture
    from rnnlstm.studies.figure import draw_share_map, panels

    settings = rows.settings
    across = min(3, len(settings))
    down = -(-len(settings) // across)
    figure, axes = panels(down, across, 0.8 + 3.3 * across, 0.4 + 2.4 * down)
    for panel in axes.flat[len(settings) :]:
        panel.axis("off")
    for panel, setting in zip(axes.flat, settings, strict=False):
        here = rows.of(setting)
        cells = [row.arm.rpartition(", clip ") for row in here]
        names, clips = (list(dict.fromkeys(cell[k] for cell in cells)) for k in (0, 2))
        shares = np.full((len(names), len(clips)), np.nan)
        for row, (name, _, clip) in zip(here, cells, strict=True):
            shares[names.index(name), clips.index(clip)] = row.solved_count / row.n
        draw_share_map(panel, shares, names, clips)
        for row, (name, _, clip) in zip(here, cells, strict=True):
            if row.diverged_count:
                at = clips.index(clip), names.index(name) + 0.3
                colour = "black" if row.solved_count > 0.6 * row.n else "white"
                told = f"{row.diverged_count / row.n:.0%} diverged"
                panel.text(*at, told, ha="center", va="center", fontsize=6.5, color=colour)
        panel.set_title(setting, fontsize=9)
        panel.set_xlabel("clipping", fontsize=9)
    save_picture(figure, path, 90)
