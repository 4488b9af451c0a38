"""Temporal order (Hochreiter & Schmidhuber 1997, experiments 6a and 6b; Pascanu, Mikolov & Bengio 2013).

Which marks came, and in which order? Two (6b: three) marks X or Y stand far apart among distractors::

    6a        E d b X a c c b a Y d b … B        → XY, one of 4 classes, at the last step
    6b        E d b X a c Y b a c X b … B        → XYX, one of 8
    pascanu     d b X a c c b a Y d b … c        → XY

In 6a and 6b a sequence begins with E and ends with the trigger B, and its length is uniform on T … 1.1 T. Marks
stand at 10–20 % and 50–60 % of T (6b: 10–20, 33–43 and 66–76 %). In `pascanu` there is neither E nor B and all
sequences are T long. Distractors a, b, c, d and the marks are uniform. Cross-entropy at the last step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.config.options import option
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomSource
from rnnlstm.tasks.task import OVER, Task, register_task, share_right, step_numbers, until_over

NAMES = "abcdXYEB"
DISTRACTORS, X, START, TRIGGER = 4, 4, 6, 7
#: Where marks can stand, in per cent of T, both ends included (`pascanu`: without the upper end).
PLACES = {"6a": ((10, 20), (50, 60)), "6b": ((10, 20), (33, 43), (66, 76)), "pascanu": ((10, 20), (50, 60))}


@register_task("temporal_order")
@dataclass(frozen=True, kw_only=True)
class TemporalOrder(Task):
    metric_name = "accuracy"
    kind_names = ("distractor", "mark", "start", "trigger", "padding")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(100, "the sequence's length T; 6a, 6b: up to a tenth more", at_least=10, at_most=1_000_000)
    variant: str = option("6a", "6a: two marks; 6b: three (Hochreiter & Schmidhuber 1997); pascanu: two (2013)",
                          choices=tuple(PLACES))  # fmt: skip

    @property
    def marks(self) -> int:
        return len(PLACES[self.variant])

    @property
    def sequence_length(self) -> int:
        return self.length if self.variant == "pascanu" else self.length + self.length // 10

    @property
    def num_tokens(self) -> int:
        return 6 if self.variant == "pascanu" else 8

    @property
    def output_size(self) -> int:
        return int(2**self.marks)

    @property
    def baseline(self) -> float:
        """Every order is as likely: ln 4, of three marks ln 8."""
        return math.log(self.output_size)

    @property
    def plateaus(self) -> Mapping[str, float]:
        """Each stored mark halves the number of possible answers."""
        if self.marks == 2:
            return {"one mark stored": math.log(2)}
        return {"one mark stored": math.log(4), "two marks stored": math.log(2)}

    @property
    def solved_when(self) -> str:
        return "accuracy ≥ 0.99" if self.variant == "pascanu" else "every sequence right"

    def solved(self, metrics: Mapping[str, float]) -> bool:
        """6a, 6b: the paper asks for 2,000 sequences in a row; here all of the evaluation's must be right."""
        return metrics["accuracy"] >= (0.99 if self.variant == "pascanu" else 1.0)

    @property
    def scored_alike(self) -> bool:
        return self.variant == "pascanu"

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B, columns = self.sequence_length, batch_size, torch.arange(batch_size)
        step = step_numbers(T)
        tokens = random.integers(0, DISTRACTORS, (T, B))
        which = random.integers(0, 2, (self.marks, B))
        kinds = torch.zeros(T, B, dtype=torch.int8)
        for (low, high), mark in zip(PLACES[self.variant], which, strict=True):
            end = high * self.length // 100 + (self.variant != "pascanu")
            place = random.integers(low * self.length // 100, end, (B,))
            tokens[place, columns] = X + mark
            kinds[place, columns] = 1
        if self.variant == "pascanu":
            last = (step == T - 1).expand(T, B)
        else:
            lengths = random.integers(self.length, T + 1, (B,))
            last = step == lengths - 1
            tokens[0], kinds[0] = START, 2
            tokens = torch.where(step >= lengths - 1, TRIGGER, tokens)  # also where the sequence is over
            kinds = kinds.masked_fill(last, 3).masked_fill(step >= lengths, 4)
        powers = 2 ** torch.arange(self.marks - 1, -1, -1)[:, None]  # the first mark is the highest bit
        targets = torch.where(last, (which * powers).sum(0), 0)
        return Batch(tokens, targets, last.clone(), kinds)

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        pairs = zip(batch.inputs[:, b].tolist(), batch.kinds[:, b].tolist(), strict=True)
        return [OVER if kind == 4 else NAMES[token] for token, kind in pairs]

    def decode(self, batch: Batch, b: int) -> str:
        order = self._order(int(batch.targets[:, b][batch.mask[:, b]]))
        return f"{' '.join(until_over(self.words(batch, b)))} → {order}"

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return self._order(int(outputs[:, b][batch.mask[:, b]].argmax()))

    def _order(self, number: int) -> str:
        return f"{number:0{self.marks}b}".replace("0", "X").replace("1", "Y")

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        return {"accuracy": share_right(outputs, batch)}

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """By the right answer."""
        return {self._order(k): batch.mask & (batch.targets == k) for k in range(self.output_size)}
