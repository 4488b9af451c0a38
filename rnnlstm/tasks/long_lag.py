"""Long time lags (Hochreiter & Schmidhuber 1997, experiments 2a, 2b and 2c).

A class symbol x or y at the start has to be named again at the end; between lie p−1 symbols, always the same (2a) or
random (2b), or q and more random ones and a trigger (2c)::

    2a     input   x  a₁ a₂ a₃ … aₚ₋₁            target  a₁ a₂ a₃ … aₚ₋₁ x        length = p
    2b     input   x  a₇ a₂ a₇ … a₄              target  a₇ a₂ a₇ … a₄   x        length = p
    2c     input   b  x  a₃ a₉ a₁ … a₅  e        target                  x        length = q

In 2a and 2b the next symbol is predicted at every step, so that most of the loss is about the middle; the
metrics are of the last symbol. In 2c, after q distractors, the trigger e comes with probability 1/10 at each step,
else one more distractor (at most 60 more, which one sequence in 600 would exceed), and only the answer to it is
scored. Cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import option
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomSource
from rnnlstm.tasks.task import OVER, Task, register_task, step_numbers, until_over

MORE = 60  # distractors that 2c adds at most


@register_task("long_lag")
@dataclass(frozen=True, kw_only=True)
class LongLag(Task):
    metric_name = "accuracy"
    kind_names = ("class", "distractor", "last", "begin", "padding")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(50, "2a, 2b: steps p from class to answer; 2c: distractors at least, q", at_least=2,
                         at_most=1_000_000)  # fmt: skip
    variant: str = option(
        "2b",
        "2a: the same distractors; 2b: random ones; 2c: random length, a trigger (Hochreiter & Schmidhuber 1997)",
        choices=("2a", "2b", "2c"),
    )
    alphabet: int | None = option(None, "different distractors; null: p−1, in 2c q", at_least=2, at_most=1_000_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant != "2c":
            self.require_length(3, "two distractors between the class and the question")
        if self.variant == "2a" and self.distractors < self.length - 1:
            rule = f"2a shows {self.length - 1} distractors that all differ"
            raise OptionError("alphabet", self.alphabet, rule)

    @property
    def distractors(self) -> int:
        if self.alphabet is not None:
            return self.alphabet
        return self.length if self.variant == "2c" else self.length - 1

    @property
    def sequence_length(self) -> int:
        return self.length + MORE + 3 if self.variant == "2c" else self.length

    @property
    def num_tokens(self) -> int:
        """The distractors, x, y, and in 2c also e and b."""
        return self.distractors + (4 if self.variant == "2c" else 2)

    @property
    def output_size(self) -> int:
        return 2 if self.variant == "2c" else self.num_tokens

    @property
    def baseline(self) -> float:
        """The class costs ln 2. 2a: the rest is certain; 2b: p−1 distractors cost the logarithm of their number."""
        if self.variant == "2c":
            return math.log(2)
        middle = (self.length - 1) * math.log(self.distractors) if self.variant == "2b" else 0.0
        return (middle + math.log(2)) / self.length

    @property
    def solved_when(self) -> str:
        return f"every probability at the end within {self._tolerance}"

    @property
    def _tolerance(self) -> float:
        return 0.2 if self.variant == "2c" else 0.25

    def solved(self, metrics: Mapping[str, float]) -> bool:
        """The papers' criterion over 10,000 sequences in a row, here over the evaluation's."""
        return metrics["largest_error"] < self._tolerance

    @property
    def scored_alike(self) -> bool:
        return self.variant != "2c"

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B, A, step = self.sequence_length, batch_size, self.distractors, step_numbers(self.sequence_length)
        label = random.integers(0, 2, (B,))
        kinds = torch.ones(T, B, dtype=torch.int8)
        if self.variant == "2c":
            tokens = random.integers(0, A, (T, B))
            # Geometric, by its inverse: P(k more) = 1/10 · (9/10)^k.
            more = (torch.log1p(-random.uniform((B,)).double()) / math.log(0.9)).long().clamp(max=MORE)
            last = step == self.length + more + 2
            tokens[0], tokens[1], kinds[0], kinds[1] = A + 3, A + label, 3, 0
            over = step > self.length + more + 2
            tokens = torch.where(last | over, A + 2, tokens)
            kinds = kinds.masked_fill(last, 2).masked_fill(over, 4)
            return Batch(tokens, torch.where(last, label, 0), last.clone(), kinds)
        middle = step[: T - 1].expand(T - 1, B) if self.variant == "2a" else random.integers(0, A, (T - 1, B))
        answer = A + label[None]
        kinds[0], kinds[-1] = 0, 2
        mask = torch.ones(T, B, dtype=torch.bool)
        return Batch(torch.cat([answer, middle]), torch.cat([middle, answer]), mask, kinds)

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        names = [*(f"a{k + 1}" for k in range(self.distractors)), "x", "y", "e", "b"]
        pairs = zip(batch.inputs[:, b].tolist(), batch.kinds[:, b].tolist(), strict=True)
        return [OVER if kind == 4 else names[token] for token, kind in pairs]

    def decode(self, batch: Batch, b: int) -> str:
        classes = batch.targets[:, b][batch.mask[:, b]][-1].item() - (0 if self.variant == "2c" else self.distractors)
        return f"{' '.join(until_over(self.words(batch, b)))} → {'xy'[int(classes)]}"

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        said = int(outputs[:, b][batch.mask[:, b]][-1].argmax()) - (0 if self.variant == "2c" else self.distractors)
        return "xy"[said] if said >= 0 else f"a{said + self.distractors + 1}"

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """`accuracy` and `largest_error`, that of a probability of any class: both at the end of the sequence."""
        assert batch.kinds is not None
        end = batch.at_scored(batch.kinds) == 2  # (scored,)
        said, targets = self.probabilities(batch.answers(outputs)[end]), batch.at_scored(batch.targets)[end]
        error = said - torch.nn.functional.one_hot(targets, said.shape[-1])
        right = said.argmax(-1) == targets
        return {"accuracy": right.double().mean().item(), "largest_error": error.abs().max().item()}

    def probabilities(self, answers: Tensor) -> Tensor:
        """Of each class, in float64, from answers (…, O)."""
        return answers.double().softmax(-1)

    def right(self, outputs: Tensor, batch: Batch, b: int) -> bool:
        """Whether the most probable class is the right one, whatever its probability."""
        return self.metrics(outputs[:, b : b + 1], batch.sequence(b))["accuracy"] == 1

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """By class; 2c also by whether more than ten distractors were added."""
        assert batch.kinds is not None
        end = batch.mask & (batch.kinds == 2)
        x = batch.targets == (0 if self.variant == "2c" else self.distractors)
        masks = {"x": end & x, "y": end & ~x}
        if self.variant == "2c":
            far = step_numbers(len(end), end.device) > self.length + 12
            masks |= {"lag_short": end & ~far, "lag_long": end & far}
        return masks
