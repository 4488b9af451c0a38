"""Counting: strings a^n b^n and a^n b^n c^n (Gers & Schmidhuber 2001; Weiss, Goldberg & Yahav 2018).

At every step name the next symbol. It is scored where the string so far leaves only one::

    anbn      input   #  a  a  a  b  b  b              anbncn    input   #  a  a  b  b  c  c
              target  a  .  .  .  b  b  #                        target  a  .  .  b  c  c  #

n is uniform on 1 … `length`. `#` stands before a string and is what follows its end. While a's are read, the next
symbol may be an a or a b (`.`, not scored), since n has no bound in the language. From the first b on everything is
determined, but only for a network that has counted the a's. Cross-entropy at the scored steps. A string is right if
each of them is; solved is every string right. Each n has one string only, so that there is nothing to learn by heart
but n itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import xlogy

from rnnlstm.config.options import option
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomSource
from rnnlstm.tasks.task import OVER, Task, register_task, right_sequences, share_right, step_numbers, until_over

NAMES = "#abc"
BORDER, PADDING = 0, 4  #: the number of `#`, and the kind of what comes after a string
LETTERS = {"anbn": 2, "anbncn": 3}  #: different letters of a string, k


@register_task("counting")
@dataclass(frozen=True, kw_only=True)
class Counting(Task):
    metric_name = "strings"
    solved_when = "every string right"
    kind_names = ("start", "a", "b", "c", "padding")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(50, "the largest n; anbn has 2n+1 steps, anbncn 3n+1", at_least=3, at_most=1_000_000)
    variant: str = option("anbn", "anbn: as many b as a; anbncn: as many b and c", choices=tuple(LETTERS))

    @property
    def letters(self) -> int:
        return LETTERS[self.variant]

    @property
    def sequence_length(self) -> int:
        return self.letters * self.length + 1

    @property
    def num_tokens(self) -> int:
        """`#` and the letters."""
        return self.letters + 1

    @property
    def output_size(self) -> int:
        return self.letters + 1

    @property
    def baseline(self) -> float:
        """Mean entropy of the next symbol, given its place in the string and that it is scored there."""
        N, k = self.length, self.letters
        t = torch.arange(1, self.sequence_length)
        counts = [
            (t % k == 0).long()
        ]  # for how many n each symbol follows at step t, and is scored: first `#`, t = kn
        for j in range(1, k):  # then the letters from b on, t // n = j and t > n
            counts.append(((t // j).clamp(max=N).minimum(t - 1) - t // (j + 1)).clamp(min=0))
        each = torch.stack(counts).double()  # (symbols, T−1)
        scored = each.sum(0)
        nats = xlogy(scored, scored).sum() - xlogy(each, each).sum()
        return float(nats / (N + scored.sum()))  # N more at step 0, where an a follows always

    @property
    def plateaus(self) -> Mapping[str, float]:
        """The letter that is read is known, its number is not: one in (N+1)/2 is its letter's last."""
        mean = (self.length + 1) / 2
        last = torch.tensor([1 / mean, 1 - 1 / mean], dtype=torch.float64)
        steps = (self.letters - 1) * mean  # scored ones of a string, without the first
        return {"letters not counted": float(-xlogy(last, last).sum() * steps / (steps + 1))}

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        return self.strings(random.integers(1, self.length + 1, (batch_size,)))

    def strings(self, n: Tensor) -> Batch:
        """The strings of these n, int64 (B,), each at most `length`."""
        step, end = step_numbers(self.sequence_length, n.device), self.letters * n
        over = step > end
        inputs = ((step - 1) // n + 1).masked_fill(over, BORDER)  # step 0: −1 // n = −1
        targets = (step // n + 1).masked_fill(step >= end, BORDER)
        mask = ((step == 0) | (step > n)) & ~over
        return Batch(inputs, targets, mask, inputs.to(torch.int8).masked_fill(over, PADDING))

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        pairs = zip(batch.inputs[:, b].tolist(), batch.kinds[:, b].tolist(), strict=True)
        return [OVER if kind == PADDING else NAMES[token] for token, kind in pairs]

    def decode(self, batch: Batch, b: int) -> str:
        read, said = "".join(until_over(self.words(batch, b))), batch.targets[:, b][batch.mask[:, b]]
        return f"{read} → {self._text(said)}"

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return self._text(outputs[:, b][batch.mask[:, b]].argmax(-1))

    def _text(self, symbols: Tensor) -> str:
        return "".join(NAMES[symbol] for symbol in symbols.tolist())

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Share of `strings` right at each scored step; of `symbols` right; and of `turns`, the symbols after the
        last of a letter."""
        answers, targets = batch.answers(outputs), batch.at_scored(batch.targets)
        right = answers.argmax(-1) == targets
        strings = right_sequences(right, batch).double().mean().item()
        scores = {"strings": strings, "symbols": share_right(answers, batch)}
        turns = batch.at_scored(self.turns(batch))
        if turns.any():
            scores["turns"] = right[turns].double().mean().item()
        return scores

    def solved(self, metrics: Mapping[str, float]) -> bool:
        return metrics["strings"] >= 1.0

    def turns(self, batch: Batch) -> Tensor:
        """bool (T, B): the steps that end a letter of which the number is told: the last b, and the last c."""
        return batch.mask & (batch.targets != batch.inputs) & (batch.inputs != BORDER)

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """The steps that end a letter; and strings of small and of large n."""
        long = ((batch.inputs == 1).sum(0) > self.length / 2).expand_as(batch.mask)
        return {
            "turns": self.turns(batch),
            "short_strings": batch.mask & ~long,
            "long_strings": batch.mask & long,
        }
