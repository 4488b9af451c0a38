"""Associative recall (Ba et al. 2016; several questions: Arora et al. 2023).

Pairs of a key and a value, then a key: which value went with it? ::

    standard    c 9 k 8 j 3 f 1 _ _ _ _ … _ ? j        → 3, at the last step
    mqar        c 9 k 8 j 3 f 1 _ f _ j k … _ c        → 1, 3, 8, 9, each at its key

Keys are letters, all different, values digits, uniform. `standard` asks for one pair, uniform, after as many blanks
as the length leaves. `mqar` asks for each pair once, in random order at uniform places. Cross-entropy where a key
asks.

`mqar` asks the question of Arora et al., with data of its own. Zoology's `multiquery_ar` (HazyResearch/zoology,
zoology/data/associative_recall.py) differs, so that numbers of the two can't be compared:

================  ===============================  ================================================================
                  here                             zoology, at its defaults
vocabulary        26 keys, 10 values, a blank      8,192 tokens, the lower half keys, the upper values
values            drawn with repetition            all different within a sequence
filler            one blank token                  tokens drawn from the whole vocabulary, keys included
questions         uniform over all later steps     every second later step, the k-th with weight k^(a−1), a = 0.01:
                                                   most come soon after the pairs
training data     new at every update              100,000 sequences
answers of        10 values                        the whole vocabulary
================  ===============================  ==========================================================
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

KEYS, VALUES = "abcdefghijklmnopqrstuvwxyz", "0123456789"
NAMES = [*KEYS, *VALUES, "_", "?"]
BLANK, QUESTION = len(KEYS) + len(VALUES), len(KEYS) + len(VALUES) + 1


@register_task("associative_recall")
@dataclass(frozen=True, kw_only=True)
class AssociativeRecall(Task):
    metric_name = "accuracy"
    solved_when = "accuracy ≥ 0.99"
    kind_names = ("key", "value", "blank", "question", "query")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(50, "the whole sequence's length T", at_least=4, at_most=1_000_000)
    variant: str = option(
        "standard", "standard (Ba et al. 2016), mqar (Arora et al. 2023)", choices=("standard", "mqar")
    )
    pairs: int = option(4, "pairs of key and value, n", at_least=1, at_most=len(KEYS))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "mqar":
            self.require_length(3 * self.pairs, f"{self.pairs} pairs and a query for each")
        else:
            self.require_length(2 * self.pairs + 2, f"{self.pairs} pairs, the question and its key")

    @property
    def num_tokens(self) -> int:
        return len(NAMES)

    @property
    def output_size(self) -> int:
        return len(VALUES)

    @property
    def baseline(self) -> float:
        """Every digit is as likely: ln 10."""
        return math.log(len(VALUES))

    @property
    def plateaus(self) -> Mapping[str, float]:
        """Values known, their keys not: the mean entropy of a draw from n digits. A digit that occurs c
        times, c binomial, contributes −c/n ln(c/n)."""
        n, p = self.pairs, 1 / len(VALUES)
        chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
        entropy = -len(VALUES) * sum(chance[c] * c / n * math.log(c / n) for c in range(1, n + 1))
        # mqar has no single plateau: the first question may have any of n answers, the last only one.
        return {"values without keys": entropy} if self.variant == "standard" and n > 1 else {}

    @property
    def scored_alike(self) -> bool:
        return self.variant == "standard"

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B, n = self.length, batch_size, self.pairs
        keys = random.choose(n, len(KEYS), B)  # (n, B)
        values = random.integers(0, len(VALUES), (n, B))
        tokens = torch.full((T, B), BLANK)
        tokens[0 : 2 * n : 2], tokens[1 : 2 * n : 2] = keys, values + len(KEYS)
        kinds = torch.full((T, B), 2, dtype=torch.int8)
        kinds[0 : 2 * n : 2], kinds[1 : 2 * n : 2] = 0, 1
        targets = torch.zeros(T, B, dtype=torch.int64)
        if self.variant == "mqar":
            places = 2 * n + random.choose(n, T - 2 * n, B)  # in random order: pair by pair
            asked = torch.arange(n)[:, None].expand(n, B)
        else:
            places = torch.full((1, B), T - 1)
            asked = random.integers(0, n, (1, B))
            tokens[-2], kinds[-2] = QUESTION, 3
        tokens.scatter_(0, places, keys.gather(0, asked))
        kinds.scatter_(0, places, torch.full_like(places, 4, dtype=torch.int8))
        targets.scatter_(0, places, values.gather(0, asked))
        return Batch(tokens, targets, kinds == 4, kinds)

    def words(self, batch: Batch, b: int) -> list[str]:
        return [NAMES[token] for token in batch.inputs[:, b].tolist()]

    def decode(self, batch: Batch, b: int) -> str:
        said = " ".join(VALUES[k] for k in batch.targets[:, b][batch.mask[:, b]].tolist())
        return f"{' '.join(self.words(batch, b))} → {said}"

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return " ".join(VALUES[k] for k in outputs[:, b][batch.mask[:, b]].argmax(-1).tolist())

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        return {"accuracy": share_right(outputs, batch)}

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first and the last pair."""
        keys = batch.inputs[0 : 2 * self.pairs : 2]  # (n, B)
        return {
            "first_pair": batch.mask & (batch.inputs == keys[0]),
            "last_pair": batch.mask & (batch.inputs == keys[-1]),
        }
