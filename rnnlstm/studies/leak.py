"""What becomes of a stored sum: networks trained well past the criterion, and read long after the last number."""

from __future__ import annotations

import itertools
from pathlib import Path

from rnnlstm.studies.common import CHRONO, GRU, QUIET, each
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep, register_study

ARMS: tuple[Arm, ...] = (CHRONO, GRU)
#: By size: the shortest and the longest training sequence, steps at which the answer is read, updates.
SIZES = {"quick": (10, 20, (20, 40, 100), 600), "standard": (20, 100, (100, 200, 500, 1000), 6000)}
SEQUENCES = 1024


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
        "much of the sum is left"
    )
    claims = ("C15", "C17")
    caption = (
        "What to see: the share of a sum that is left in the answer at the longest test, long after the second "
        "number; 1 is all of it."
    )
    minutes = Minutes(quick=0.7, standard=45)
    columns = tuple(f"{what}_{t}" for what in ("mse_at", "left_at") for t in (20, 40, 100, 200, 500, 1000))
    figure = ("left_at_1000", "left_at_100")

    def sweep(self, size: str) -> Sweep:
        shortest, longest, _, steps = SIZES[size]
        task = ("task=adding", f"task.length={longest}", "curriculum=uniform", f"curriculum.start={shortest}")
        setting = Setting(f"adding {shortest}–{longest}", task, ARMS, steps, rate=3e-3)
        common = (*QUIET, "threads=1", "train.batch_size=32", "train.stop_when_solved=false")
        few = ("model.hidden_size=32", "eval.samples=512") if size == "quick" else ()
        return Sweep((setting,), final_seeds=5 if size == "quick" else 10, common=(*common, *few))

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """The mean squared error on whole sequences of each length, and the share of the sum that is left at each
        step of continued ones."""
        import torch

        from rnnlstm.studies.common import network_of
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
        with torch.no_grad():
            answers = network(torch.cat([batch.inputs, unmarked]))[..., 0]
        sums = batch.inputs[..., 0].mul(batch.inputs[..., 1]).sum(0)
        apart = sums - sums.mean()
        return values | {
            f"left_at_{t}": ((answers[t - 1] * apart).sum() / apart.square().sum()).item() for t in reads
        }

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
