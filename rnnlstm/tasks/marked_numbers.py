"""What the adding and the multiplication problem share: two marked numbers, in four protocols.

`standard` (Arjovsky, Shah & Bengio 2016): numbers uniform on [0, 1), one mark in each half, every sequence T long::

    value     0.41  0.87  0.13  0.55  0.92  0.30  0.68  0.24
    marker    0     1     0     0     0     0     1     0

`anywhere` (Bai, Kolter & Koltun 2018, by their code: locuslab/TCN, TCN/adding_problem/utils.py): both marks anywhere,
on two different steps, each pair as likely, so that two neighbours may be marked. The rest is as in `standard`.

`hochreiter` (Hochreiter & Schmidhuber 1997, experiments 4 and 5): the first mark is on one of the first ten steps,
the second on one of the first T/2−1 that are still unmarked; the first and the last step have the marker −1; lengths
are uniform on T … 1.1 T. A mark that falls on the first step can't be seen there, and its number is set to the
operation's neutral element. The paper says so of the first number; here it holds for the second as well, which can
fall there, too.

`pascanu` (Pascanu, Mikolov & Bengio 2013 and their code): lengths uniform on T … 1.1 T − 1, the first mark in the
first 10 % of the sequence, the second in the 40 % after that. Their code counts an answer as wrong whose squared
error is above 0.04, that is an error above 0.2 (from memory of that code; *not seen* here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rnnlstm.config.options import option
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomSource
from rnnlstm.tasks.task import OVER, Task, step_numbers, until_over

#: An answer that is off by less counts as right: Hochreiter & Schmidhuber 1997; Pascanu's code has 0.2² = 0.04.
NEAR, NEAR_IN_PASCANU = 0.04, 0.2
FIRST = 10  #: steps on which the first mark of `hochreiter` can be
UNMARKED, MARKED, PADDING = 0, 1, 2
ONE_LENGTH = ("standard", "anywhere")  #: protocols in which all sequences are as long


@dataclass(frozen=True, kw_only=True)
class MarkedNumbers(Task):
    """Subclasses define the target of two numbers, and the losses of guessing."""

    metric_name = "mse"
    metric_is_better = "lower"
    kind_names = ("unmarked", "marked", "padding")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(100, "the sequence's length T; hochreiter, pascanu: up to a tenth more", at_least=2,
                         at_most=1_000_000)  # fmt: skip
    variant: str = option(
        "standard",
        "protocol: standard (Arjovsky et al. 2016), anywhere (Bai et al. 2018), hochreiter (1997) or pascanu (2013)",
        choices=("standard", "anywhere", "hochreiter", "pascanu"),
    )

    lowest: ClassVar[float]  #: `hochreiter`: numbers are uniform from here to 1
    neutral: ClassVar[float]  #: `hochreiter`: the value of a number whose mark falls on the first step

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "hochreiter":
            self.require_length(FIRST + 1, "a first mark in ten steps, and a last step")
        elif self.variant == "pascanu":
            self.require_length(10, "its tenth holds the first mark")

    @property
    def sequence_length(self) -> int:
        longer = {"hochreiter": self.length // 10, "pascanu": self.length // 10 - 1}
        return self.length + longer.get(self.variant, 0)

    @property
    def input_size(self) -> int:
        return 2

    @property
    def output_size(self) -> int:
        return 1

    @property
    def second_on_first_step(self) -> float:
        """`hochreiter`: the chance that the second mark falls on the first step if the first mark did not."""
        return 1 / (self.length // 2 - 1)

    @property
    def near(self) -> float:
        """An answer that is off by less counts as right."""
        return NEAR_IN_PASCANU if self.variant == "pascanu" else NEAR

    def target(self, first: Tensor, second: Tensor) -> Tensor:
        """The answer (B,) to two numbers (B,)."""
        raise NotImplementedError

    @property
    def scored_alike(self) -> bool:
        return self.variant in ONE_LENGTH

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B = self.sequence_length, batch_size
        values = random.uniform((T, B))
        last, first, second = (steps[None] for steps in self._places(random, B))  # (1, B)
        markers = torch.zeros(T, B, dtype=torch.float32).scatter_(0, first, 1.0).scatter_(0, second, 1.0)
        if self.variant == "hochreiter":
            values = self.lowest + (1 - self.lowest) * values
            values[0] = torch.where(markers[0] == 1, self.neutral, values[0])
        kinds = markers.to(torch.int8)
        if self.variant == "hochreiter":
            markers[0] = -1
            markers.scatter_(0, last, -1.0)
            kinds[0] = UNMARKED
        answer = self.target(values.gather(0, first)[0], values.gather(0, second)[0])
        targets = torch.zeros(T, B, dtype=torch.float32).scatter_(0, last, answer[None])[..., None]
        mask = torch.zeros(T, B, dtype=torch.bool).scatter_(0, last, True)
        if self.variant not in ONE_LENGTH:
            over = step_numbers(T) > last
            values, markers = values.masked_fill(over, 0.0), markers.masked_fill(over, 0.0)
            kinds = kinds.masked_fill(over, PADDING)
        return Batch(torch.stack([values, markers], -1), targets, mask, kinds)

    def _places(self, random: RandomSource, B: int) -> tuple[Tensor, Tensor, Tensor]:
        """The last step, and those of the two marks, (B,) each."""
        T = self.length
        if self.variant == "standard":
            first, second = random.integers(0, T // 2, (B,)), random.integers(T // 2, T, (B,))
            return torch.full((B,), T - 1), first, second
        if self.variant == "anywhere":
            first, second = random.integers(0, T, (B,)), random.integers(0, T - 1, (B,))
            return torch.full((B,), T - 1), first, second + (second >= first)
        lengths = random.integers(T, self.sequence_length + 1, (B,))
        if self.variant == "hochreiter":
            first, second = random.integers(0, FIRST, (B,)), random.integers(0, T // 2 - 1, (B,))
            return lengths - 1, first, second + (second >= first)  # counted without the step that has the first mark
        tenth, wide = lengths // 10, 4 * lengths // 10
        return lengths - 1, random.integers(0, tenth, (B,)), tenth + random.integers(0, wide, (B,))

    def replacements(self, batch: Batch, steps: Tensor, pool: Batch, random: RandomSource) -> Mapping[str, Tensor]:
        """`number`: a fresh number under the same marker. `mark moved`: the mark stands elsewhere in its range."""
        (numbers,) = super().replacements(batch, steps, pool, random).values()
        numbers[..., 1] = batch.inputs[..., 1]  # `hochreiter`: the first and the last step keep their -1
        return {"number": numbers, "mark moved": self._with_marks_moved(batch, steps, random)}

    def _with_marks_moved(self, batch: Batch, steps: Tensor, random: RandomSource) -> Tensor:
        """Inputs in which the mark at each of `steps` (B,) has gone to a step, uniform, where it could be as well."""
        assert batch.kinds is not None
        inputs, step = batch.inputs.clone(), step_numbers(len(batch.kinds))
        if self.variant == "hochreiter":  # within the first ten steps it may be either mark
            within = torch.where(steps < FIRST, step < FIRST, step < self.length // 2)
        elif self.variant == "pascanu":
            lengths = batch.mask.int().argmax(0) + 1
            tenth, wide = lengths // 10, 4 * lengths // 10
            within = (step < tenth + wide) & ((step < tenth) == (steps < tenth))
        elif self.variant == "anywhere":
            within = torch.ones_like(inputs[..., 1], dtype=torch.bool)
        else:
            within = (step < self.length // 2) == (steps < self.length // 2)
        free = within & (batch.kinds == UNMARKED) & (inputs[..., 1] == 0)
        place = random.uniform((len(step), batch.size)).masked_fill(~free, -1.0).argmax(0)  # (B,)
        moves = ((batch.kinds.gather(0, steps[None]) == MARKED)[0] & free.any(0)).nonzero()[:, 0]
        inputs[steps[moves], moves, 1], inputs[place[moves], moves, 1] = 0.0, 1.0
        return inputs

    def decode(self, batch: Batch, b: int) -> str:
        return f"{' '.join(until_over(self.words(batch, b)))} → {batch.targets[:, b][batch.mask[:, b]].item():.2f}"

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        pairs = zip(batch.inputs[:, b, 0].tolist(), batch.kinds[:, b].tolist(), strict=True)
        return [OVER if k == PADDING else f"{value:.2f}{'*' if k == MARKED else ''}" for value, k in pairs]

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return f"{outputs[:, b][batch.mask[:, b]].item():.2f}"

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        error = batch.answers(outputs).double() - batch.at_scored(batch.targets).double()
        return {"mse": error.square().mean().item(), "within": (error.abs() < self.near).double().mean().item()}

    def right(self, outputs: Tensor, batch: Batch, b: int) -> bool:
        """In every protocol: an error below `near`. The mean squared error of one answer says little."""
        return self.metrics(outputs[:, b : b + 1], batch.sequence(b))["within"] == 1

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """Whether the first mark stands in the first or in the second half of the steps where it can be."""
        assert batch.kinds is not None
        first = (batch.kinds == MARKED).int().argmax(0)  # (B,)
        spans = {"standard": self.length // 2, "hochreiter": FIRST, "pascanu": self.length // 10}
        span = spans.get(self.variant, self.length)
        early = (first < span / 2).expand_as(batch.mask)
        return {"first_mark_early": batch.mask & early, "first_mark_late": batch.mask & ~early}
