"""Copy memory (Hochreiter & Schmidhuber 1997 in spirit; protocol of Arjovsky, Shah & Bengio 2016).

Remember ten symbols through a delay of T steps and say them in order::

    step      0 … 9      10 … T+8   T+9   T+10 … T+19
    input     s₁ … s₁₀   _  …  _     :     _  …  _
    target    _  …  _    _  …  _     _     s₁ … s₁₀

Symbols are drawn uniformly from eight. Input is one-hot over ten (blank, eight symbols, delimiter); the
output has nine classes (blank, eight symbols). In `standard` each of the T+20 positions is scored. "Copy memory" is
not one task; the others differ, here with two symbols and T = 4::

    standard      input  s₁ s₂ _  _  _  :  _  _      target  _  _  _  _  _  _  s₁ s₂
    delimiters    input  s₁ s₂ _  _  _  :  :  :      target  _  _  _  _  _  _  s₁ s₂     one-hot form of the next
    scalar        input  s₁ s₂ 0  0  0  9  9  9      target  _  _  _  _  _  _  s₁ s₂     Bai, Kolter & Koltun 2018
    on_marker     input  s₁ s₂ _  _  _  _  :  _      target  _  _  _  _  _  _  s₁ s₂     Lezcano-Casado 2019
    recall_only   input  s₁ s₂ _  _  _  _  :  :      target                    s₁ s₂     Gu, Goel & Ré 2022
    variable      input  s₁ s₂ _  :  _  _            target  _  _  _  _  s₁ s₂           Tallec & Ollivier 2018

In `scalar` an input is one number a step, as in their code (locuslab/TCN, TCN/copy_memory/utils.py): 0 is the blank,
1 … 8 are the symbols, 9 is the delimiter. Their readout has a tenth class, which is never right.
In `variable` each sequence has a delay of its own, uniform on 1 … T; what comes after its recall is not scored.
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
from rnnlstm.tasks.task import OVER, Task, register_task, step_numbers, until_over

ALPHABET = 8  # symbols, classes 1 … 8
RECALL = 10  # symbols to remember
BLANK, DELIMITER = 0, 9
VARIANTS = ("standard", "variable", "delimiters", "scalar", "on_marker", "recall_only")


@register_task("copy")
@dataclass(frozen=True, kw_only=True)
class CopyMemory(Task):
    metric_name = "recall_accuracy"
    solved_when = "recall accuracy ≥ 0.99"
    kind_names = ("symbol", "blank", "delimiter", "recall", "padding")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(50, "the delay T; sequences have T+20 steps", at_least=1, at_most=1_000_000)
    variant: str = option("standard", f"protocol: {', '.join(VARIANTS)}", choices=VARIANTS)

    @property
    def sequence_length(self) -> int:
        return self.length + 2 * RECALL

    @property
    def input_size(self) -> int:
        return 1 if self.variant == "scalar" else ALPHABET + 2

    @property
    def one_hot_inputs(self) -> bool:  # type: ignore[override]
        return self.variant != "scalar"

    @property
    def output_size(self) -> int:
        return ALPHABET + 1

    @property
    def baseline(self) -> float:
        """Blanks are certain, each of the ten symbols costs ln 8: 10·ln 8 over the number of scored positions, which
        is T+20, 10 in `recall_only`, and (T+1)/2 + 20 on average in `variable`."""
        scored = {"recall_only": RECALL, "variable": (self.length + 1) / 2 + 2 * RECALL}
        return RECALL * math.log(ALPHABET) / scored.get(self.variant, self.sequence_length)

    @property
    def scored_alike(self) -> bool:
        return self.variant != "variable"

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B, step = self.sequence_length, batch_size, step_numbers(self.sequence_length)
        symbols = random.integers(1, ALPHABET + 1, (RECALL, B))
        varied = self.variant == "variable"
        # Without lengths of their own, what all sequences share has one column.
        delay = random.integers(1, self.length + 1, (B,)) if varied else torch.full((1,), self.length)
        recall = RECALL + delay  # (B,): the first step that is asked for a symbol
        over = step >= recall + RECALL  # (T, B)
        asked = (step >= recall) & ~over
        marked = step == recall - 1
        if self.variant == "on_marker":
            marked = step == recall
        elif self.variant in ("delimiters", "scalar"):
            marked = marked | asked
        elif self.variant == "recall_only":
            marked = asked

        tokens = torch.zeros(T, B, dtype=torch.int64).masked_fill_(marked, DELIMITER)
        tokens[:RECALL] = symbols
        targets = torch.zeros_like(tokens).scatter_(0, (step[:RECALL] + recall).expand(RECALL, B), symbols)
        kinds = torch.ones_like(over, dtype=torch.int8)
        kinds.masked_fill_(marked, 2).masked_fill_(asked, 3).masked_fill_(over, 4)
        kinds[:RECALL] = 0
        mask = asked if self.variant == "recall_only" else ~over
        if self.variant == "scalar":
            inputs = tokens[..., None].to(torch.float32)
        else:
            inputs = torch.zeros(T, B, ALPHABET + 2, dtype=torch.float32).scatter_(-1, tokens[..., None], 1.0)
        return Batch(inputs, targets, mask.expand(T, B).contiguous(), kinds.expand(T, B).contiguous())

    def decode(self, batch: Batch, b: int) -> str:
        return f"{''.join(until_over(self.words(batch, b)))} → {_letters(batch.targets[:, b][batch.mask[:, b]])}"

    def words(self, batch: Batch, b: int) -> list[str]:
        assert batch.kinds is not None
        sequence = batch.inputs[:, b]  # (T, I)
        letters = _letters(sequence[:, 0].long() if self.variant == "scalar" else sequence.argmax(-1))
        return [OVER if kind == 4 else s for s, kind in zip(letters, batch.kinds[:, b].tolist(), strict=True)]

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return _letters(outputs[:, b].argmax(-1)[batch.mask[:, b]])

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        # Always answering blank is right at all but ten positions: only the recall tells anything.
        targets = batch.at_scored(batch.targets)
        right = (batch.answers(outputs).argmax(-1) == targets).double()  # (scored,)
        return {"recall_accuracy": right[targets != BLANK].mean().item(), "accuracy": right.mean().item()}

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first, a middle and the last symbol; `variable`: short and long delays."""
        recall = batch.targets != BLANK
        number = recall.cumsum(0)  # 1 at the first symbol
        masks = {f"symbol_{k}": recall & (number == k) for k in (1, RECALL // 2, RECALL)}
        if self.variant == "variable":
            long = (recall.int().argmax(0) - RECALL > self.length / 2).expand_as(recall)
            masks |= {"delay_short": recall & ~long, "delay_long": recall & long}
        return masks


def _letters(tokens: Tensor) -> str:
    return "".join("_abcdefgh:"[k] for k in tokens.tolist())
