"""Copy memory (Hochreiter & Schmidhuber 1997 in spirit; protocol of Arjovsky, Shah & Bengio 2016).

Remember ten symbols through a delay of T steps and say them in order::

    step      0 … 9      10 … T+8   T+9   T+10 … T+19
    input     s₁ … s₁₀   _  …  _     :     _  …  _
    target    _  …  _    _  …  _     _     s₁ … s₁₀

Symbols are drawn uniformly from eight. Input is one-hot over ten (blank, eight symbols, delimiter); the
output has nine classes (blank, eight symbols) at each of the T+20 positions, all of them scored. Other
papers score the recall alone or use other delimiters: those are other variants with other baselines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnlstm.batch import Batch
from rnnlstm.options import option
from rnnlstm.random_stream import RandomStream
from rnnlstm.tasks.task import Task, register_task

ALPHABET = 8  # symbols, classes 1 … 8
RECALL = 10  # symbols to remember
BLANK, DELIMITER = 0, 9


@register_task("copy")
@dataclass(frozen=True, kw_only=True)
class CopyMemory(Task):
    metric_name = "recall_accuracy"
    solved_when = "recall accuracy ≥ 0.99"
    kind_names = ("symbol", "blank", "delimiter", "recall")

    length: int = option(50, "the delay T; sequences have T+20 steps", at_least=1, at_most=1_000_000)
    variant: str = option("standard", "protocol: standard (Arjovsky et al. 2016)", choices=("standard",))

    @property
    def sequence_length(self) -> int:
        return self.length + 2 * RECALL

    @property
    def input_size(self) -> int:
        return ALPHABET + 2

    @property
    def output_size(self) -> int:
        return ALPHABET + 1

    @property
    def baseline(self) -> float:
        """Blanks are certain, each of the ten symbols costs ln 8: 10·ln 8 / (T+20)."""
        return RECALL * math.log(ALPHABET) / self.sequence_length

    def generate(self, random: RandomStream, batch_size: int) -> Batch:
        T = self.sequence_length
        symbols = random.integers(1, ALPHABET + 1, (RECALL, batch_size))
        tokens = torch.full((T, batch_size), BLANK)
        tokens[:RECALL] = symbols
        tokens[T - RECALL - 1] = DELIMITER
        targets = torch.full((T, batch_size), BLANK)
        targets[T - RECALL :] = symbols
        kinds = torch.full((T, batch_size), self.kind_names.index("blank"), dtype=torch.int8)
        kinds[:RECALL] = self.kind_names.index("symbol")
        kinds[T - RECALL - 1] = self.kind_names.index("delimiter")
        kinds[T - RECALL :] = self.kind_names.index("recall")
        inputs = F.one_hot(tokens, ALPHABET + 2).float()  # (T, B, 10)
        return Batch(inputs, targets, torch.ones(T, batch_size, dtype=torch.bool), kinds)

    def decode(self, batch: Batch, b: int) -> str:
        return f"{_letters(batch.inputs[:, b].argmax(-1))} → {_letters(batch.targets[:, b])}"

    def words(self, batch: Batch, b: int) -> list[str]:
        return list(_letters(batch.inputs[:, b].argmax(-1)))

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return _letters(outputs[:, b].argmax(-1))

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        # Always answering blank is right at all but ten positions: only the recall tells anything.
        right = outputs.argmax(-1) == batch.targets  # (T, B)
        return {
            "recall_accuracy": right[-RECALL:].double().mean().item(),
            "accuracy": right.double().mean().item(),
        }


def _letters(tokens: Tensor) -> str:
    return "".join("_abcdefgh:"[k] for k in tokens.tolist())
