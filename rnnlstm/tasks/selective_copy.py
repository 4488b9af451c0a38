"""Selective copy (the denoise task of Jing et al. 2017; selective copying of Gu & Dao 2023).

Symbols stand at random places among blanks; when the marker comes, say them in order::

    step      0 … T−1                        T … T+n−1
    input     _ c _ _ a _ _ _ _ f _ … h _    :  :  :  … :
    target                                   c  a  f  … h

Unlike in copy memory there are no fixed delays to learn: the network has to store symbols and ignore blanks. n
symbols, uniform from the alphabet, at uniform places; only the recall is scored.
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
from rnnlstm.tasks.task import Task, register_task, share_right

LETTERS = "abcdefghijklmnopqrstuvwxyz"
BLANK = 0


@register_task("selective_copy")
@dataclass(frozen=True, kw_only=True)
class SelectiveCopy(Task):
    metric_name = "recall_accuracy"
    solved_when = "recall accuracy ≥ 0.99"
    kind_names = ("symbol", "blank", "recall")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(50, "steps T with symbols among blanks; sequences have T+n", at_least=1, at_most=1_000_000)
    symbols: int = option(10, "symbols to say again, n", at_least=1, at_most=1000)
    alphabet: int = option(8, "different symbols", at_least=2, at_most=len(LETTERS))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_length(self.symbols, "a place for each symbol")

    @property
    def sequence_length(self) -> int:
        return self.length + self.symbols

    @property
    def num_tokens(self) -> int:
        """Blank, the symbols, the marker."""
        return self.alphabet + 2

    @property
    def output_size(self) -> int:
        return self.alphabet

    @property
    def baseline(self) -> float:
        """Every symbol is as likely: the logarithm of the alphabet's size."""
        return math.log(self.alphabet)

    @property
    def scored_alike(self) -> bool:
        return True

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B, n = self.length, batch_size, self.symbols
        symbols = random.integers(0, self.alphabet, (n, B))
        places = random.choose(n, T, B).sort(0).values  # (n, B)
        tokens = torch.full((T + n, B), BLANK)
        tokens.scatter_(0, places, symbols + 1)
        tokens[T:] = self.alphabet + 1
        kinds = torch.ones(T + n, B, dtype=torch.int8)
        kinds.scatter_(0, places, torch.zeros(n, B, dtype=torch.int8))
        kinds[T:] = 2
        targets = torch.zeros(T + n, B, dtype=torch.int64)
        targets[T:] = symbols
        return Batch(tokens, targets, kinds == 2, kinds)

    def words(self, batch: Batch, b: int) -> list[str]:
        names = ["_", *LETTERS[: self.alphabet], ":"]
        return [names[token] for token in batch.inputs[:, b].tolist()]

    def decode(self, batch: Batch, b: int) -> str:
        said = "".join(LETTERS[k] for k in batch.targets[:, b][batch.mask[:, b]].tolist())
        return f"{''.join(self.words(batch, b))} → {said}"

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return "".join(LETTERS[k] for k in outputs[:, b][batch.mask[:, b]].argmax(-1).tolist())

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        return {"recall_accuracy": share_right(outputs, batch)}

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first, a middle and the last symbol."""
        number = batch.mask.cumsum(0)
        wanted = sorted({1, max(1, self.symbols // 2), self.symbols})
        return {f"symbol_{k}": batch.mask & (number == k) for k in wanted}
