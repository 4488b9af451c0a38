"""The adding problem (Hochreiter & Schmidhuber 1997; protocol of Arjovsky, Shah & Bengio 2016).

Add two marked numbers that lie far apart::

    value     0.41  0.87  0.13  0.55  0.92  0.30  0.68  0.24     uniform on [0, 1)
    marker    0     1     0     0     0     0     1     0        one mark in each half
    target                                              1.55     at the last step

The squared error of the answer at the last step is the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.batch import Batch
from rnnlstm.options import option
from rnnlstm.random_stream import RandomStream
from rnnlstm.tasks.task import Task, register_task


@register_task("adding")
@dataclass(frozen=True, kw_only=True)
class Adding(Task):
    metric_name = "mse"
    metric_is_better = "lower"
    solved_when = "mean squared error < 0.01"
    kind_names = ("unmarked", "marked")

    length: int = option(100, "the whole sequence's length T", at_least=2, at_most=1_000_000)
    variant: str = option("standard", "protocol: standard (Arjovsky et al. 2016)", choices=("standard",))

    @property
    def input_size(self) -> int:
        return 2

    @property
    def output_size(self) -> int:
        return 1

    @property
    def baseline(self) -> float:
        """Always answering 1, the mean: the variance of a sum of two uniforms, 2 · 1/12."""
        return 1 / 6

    @property
    def plateaus(self) -> Mapping[str, float]:
        """One operand stored, the other guessed as 1/2: the variance of a single uniform."""
        return {"one operand stored": 1 / 12}

    def generate(self, random: RandomStream, batch_size: int) -> Batch:
        T, half = self.length, self.length // 2
        values = random.uniform((T, batch_size))
        first = random.integers(0, half, (batch_size,))
        second = random.integers(half, T, (batch_size,))
        columns = torch.arange(batch_size)
        markers = torch.zeros(T, batch_size)
        markers[first, columns] = 1
        markers[second, columns] = 1
        targets = torch.zeros(T, batch_size, 1)
        targets[-1, :, 0] = values[first, columns] + values[second, columns]
        mask = torch.zeros(T, batch_size, dtype=torch.bool)
        mask[-1] = True
        return Batch(torch.stack([values, markers], -1), targets, mask, markers.to(torch.int8))

    def decode(self, batch: Batch, b: int) -> str:
        steps = [f"{value:.2f}{'*' if mark else ''}" for value, mark in batch.inputs[:, b].tolist()]
        return f"{' '.join(steps)} → {batch.targets[-1, b, 0].item():.2f}"

    def words(self, batch: Batch, b: int) -> list[str]:
        return [f"{value:.2f}{'*' if mark else ''}" for value, mark in batch.inputs[:, b].tolist()]

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return f"{outputs[-1, b, 0].item():.2f}"

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        error = outputs[batch.mask].double() - batch.targets[batch.mask].double()
        return {"mse": error.square().mean().item()}

    def solved(self, metrics: Mapping[str, float]) -> bool:
        return metrics["mse"] < 0.01
