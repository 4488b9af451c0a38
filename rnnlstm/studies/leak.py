"""What becomes of a stored sum: networks trained well past the criterion, and read long after the last number."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.studies.common import CHRONO, GRU, QUIET, each
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

if TYPE_CHECKING:
    from torch import Tensor

ARMS: tuple[Arm, ...] = (CHRONO, GRU)
#: By size: the shortest and the longest training sequence, steps at which the answer is read, updates.
SIZES = {"quick": (10, 20, (20, 40, 100), 600), "standard": (20, 100, (100, 200, 500, 1000), 6000)}
SEQUENCES = 1024
READINGS = 18  #: of continued sequences; those of SIZES are among them


@register_study("leak")
class Leak(Study):
    title = "Does a stored sum leak?"
    question = "Trained well past the criterion, does a network still lose a sum in a thousand steps, as by a leak?"
    reference = (
        "No published table. A memory that is multiplied by f at each step keeps f^t of a value, a straight line in "
        "log c against t (Gers, Schmidhuber & Cummins 2000, from memory)"
    )
    deviations = (
        "Adding, lengths drawn for each update, one rate (0.003), ten seeds, no stop at the criterion of 0.01. Two "
        "tests: whole sequences of each length, as in the study length; and sequences of the longest training length "
        "that are continued by unmarked numbers. In the second the slope of the answer over the true sum says how "
        "much of the sum is left in the answer, and the slopes of the units of c (GRU: h) how much in the state, "
        "along their direction at the end of the training length"
    )
    claims = ("C15", "C17")
    caption = (
        "What to see: the share of a sum that is left in the answer, and in the state, long after the second number; "
        "each thin line a seed, medians thick. A leak by the same factor at each step is a straight line."
    )
    minutes = Minutes(quick=0.7, standard=45)
    columns = tuple(f"{what}_{t}" for what in ("mse_at", "left_at", "kept_at") for t in (20, 40, 100, 200, 500, 1000))

    def sweep(self, size: str) -> Sweep:
        shortest, longest, _, steps = SIZES[size]
        task = ("task=adding", f"task.length={longest}", "curriculum=uniform", f"curriculum.start={shortest}")
        setting = Setting(f"adding {shortest}–{longest}", task, ARMS, steps, rate=3e-3)
        common = (*QUIET, "threads=1", "train.batch_size=32", "train.stop_when_solved=false")
        few = ("model.hidden_size=32", "eval.samples=512") if size == "quick" else ()
        return Sweep((setting,), final_seeds=5 if size == "quick" else 10, common=(*common, *few))

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """The mean squared error on whole sequences of each length; and for continued sequences the share of the sum
        that is left in the answer and in the state, from the training length on."""
        import torch

        from rnnlstm.instruments.memory_trace import states_of
        from rnnlstm.studies.common import network_of
        from rnnlstm.tasks.batch import Batch
        from rnnlstm.training.evaluation import evaluate

        plan, network = network_of(folder, seed)
        _, longest, reads, _ = SIZES[size]
        values = {
            f"mse_at_{t}": evaluate(network, plan.task.vary(length=t), seed, SEQUENCES, stream="test")[0]["mse"]
            for t in reads
        }
        batch = plan.task.vary(length=longest).sample(seed, 0, "test", SEQUENCES)
        generator = torch.Generator().manual_seed(seed)
        more = torch.rand(reads[-1] - longest, SEQUENCES, generator=generator)
        unmarked = torch.stack([more, torch.zeros_like(more)], -1)
        inputs = torch.cat([batch.inputs, unmarked])
        with torch.no_grad():
            answers = network(inputs)  # (T, B, 1)
        states = states_of(network, Batch(inputs, batch.targets, batch.mask))
        sums = batch.inputs[..., 0].mul(batch.inputs[..., 1]).sum(0)
        slopes = slopes_over(sums, answers[..., 0:1])[:, 0]
        kept = along_its_first(slopes_over(sums, states.get("cell", states["hidden"]))[longest - 1 :])
        readings = range(longest, reads[-1] + 1, (reads[-1] - longest) // READINGS)
        values |= {f"left_at_{t}": slopes[t - 1].item() for t in readings}
        return values | {f"kept_at_{t}": kept[t - longest].item() for t in readings}

    def draw(self, rows: Sequence[Row], path: Path) -> bool:
        draw_shares(rows, path)
        return True

    def checks(self, size: str) -> list[Check]:
        shortest, longest, reads, _ = SIZES[size]
        setting, last = f"adding {shortest}–{longest}", reads[-1]

        def rows(t: Rows) -> list[Row]:
            return [t(setting, arm.name) for arm in ARMS]

        checks = [
            Check(
                f"a sum is lost: at {last} steps the median share that is left is below 0.9, in both networks",
                lambda t: (
                    all(row.median(f"left_at_{last}") < 0.9 for row in rows(t)),
                    each(rows(t), f"left_at_{last}"),
                ),
            ),
            Check(
                "what is left falls from each reading to the next (medians), in both networks",
                lambda t: (
                    all(_falls(row, reads) for row in rows(t)),
                    "; ".join(_told(row, reads) for row in rows(t)),
                ),
            ),
        ]
        if size == "standard":
            checks.append(
                Check(
                    "training on helps: the chrono LSTM's median error at 500 steps is below the plateau 1/12",
                    lambda t: (rows(t)[0].median("mse_at_500") < 1 / 12, each(rows(t), "mse_at_500")),
                )
            )
        return checks


def _left(row: Row, reads: tuple[int, ...]) -> list[float]:
    return [row.median(f"left_at_{t}") for t in reads]


def _falls(row: Row, reads: tuple[int, ...]) -> bool:
    return all(after < before for before, after in itertools.pairwise(_left(row, reads)))


def _told(row: Row, reads: tuple[int, ...]) -> str:
    return f"{row.arm} " + ", ".join(f"{left:.3g}" for left in _left(row, reads))


def slopes_over(sums: Tensor, values: Tensor) -> Tensor:
    """Least-squares slopes over the sums (B,) of each of the values (T, B, H), at each step: (T, H)."""
    apart = sums - sums.mean()
    slopes: Tensor = (values * apart[:, None]).sum(1) / apart.square().sum()
    return slopes


def along_its_first(slopes: Tensor) -> Tensor:
    """Of vectors (T, H) the component along the first, as a share of its length: (T,)."""
    share: Tensor = slopes @ slopes[0] / slopes[0].square().sum()
    return share


def draw_shares(rows: Sequence[Row], path: Path) -> None:
    """Shares left in the answer and in the state, over the time step, on a logarithmic scale."""
    import numpy as np

    from rnnlstm.reporting.colours import PALETTE, named_network, style_numbers
    from rnnlstm.reporting.figures import save_picture
    from rnnlstm.studies.figure import panels

    figure, axes = panels(1, 2, 8.5, 3.4)
    names = [row.arm for row in rows]
    colours = [PALETTE[k] for k in style_numbers(names, [named_network(name) or name for name in names])]
    for panel, (start, title) in zip(
        axes[0], (("left_at_", "in the answer"), ("kept_at_", "in the state")), strict=True
    ):
        for row, colour in zip(rows, colours, strict=True):
            steps = sorted(int(name.removeprefix(start)) for name in row.scores if name.startswith(start))
            curves = np.array([row.scores[f"{start}{t}"] for t in steps], dtype=float)  # (steps, seeds)
            curves[curves <= 0] = np.nan
            panel.plot(steps, curves, color=colour, linewidth=0.6, alpha=0.5)
            medians = np.array([row.median(f"{start}{t}") for t in steps])
            panel.plot(steps, np.where(medians > 0, medians, np.nan), color=colour, linewidth=2.2, label=row.arm)
        panel.set_yscale("log")
        panel.set_ylim(1e-2, 4)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("time step", fontsize=9)
    axes[0, 0].set_ylabel("share of the sum that is left", fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False)
    save_picture(figure, path, 90)
