"""State tracking: the running product in a group of permutations (Merrill, Petty & Sabharwal 2024).

Read permutations and name, at each step, what all of them so far do together, the first one applied first::

    parity    input   1  1  0  1        s3    input   213  231  321  123        s5    input   23451  21345
              target  1  0  0  1              target  213  321  123  123              target  23451  13452

A permutation is written as where it sends 1, 2, 3, …: 213 and then 231 send 1 to 2 and on to 3, so that their product
begins with 3. Each element of the group is a class and a token of its own, as in the authors' code: 2 of S₂ (parity,
where 1 is the swap), 6 of S₃, 120 of S₅. S₂ and S₃ are solvable groups, S₅ is not. With `elements=swaps` only the
identity and swaps of two neighbours are read. They generate the group, and of S₅ leave 600 products to learn in place
of 14,400. Inputs are uniform and independent. Cross-entropy at every step. All sequences have `length` steps: as each
step is scored, a sequence trains on all shorter lengths, too.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.special import xlogy

from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import option
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import LookupTable, RandomSource
from rnnlstm.tasks.task import Task, register_task, share_right, step_numbers

#: How many things each variant's group permutes.
PERMUTED = {"parity": 2, "s3": 3, "s5": 5}


class Group:
    """All permutations of `things` things in lexicographic order, numbered from 0, the identity."""

    def __init__(self, things: int) -> None:
        self.elements = list(itertools.permutations(range(things)))
        number = {element: k for k, element in enumerate(self.elements)}
        #: Row by row in one: `size`·a + b holds the number of "a after b", which sends k to a(b(k)).
        self.after = LookupTable([number[tuple(a[k] for k in b)] for a in self.elements for b in self.elements])
        swapped = [(*range(k), k + 1, k, *range(k + 2, things)) for k in range(things - 1)]
        self.swaps = LookupTable([0, *(number[swap] for swap in swapped)])  # the identity, and swaps of neighbours
        pairs = list(itertools.combinations(range(things), 2))
        self.odd = LookupTable([sum(e[i] > e[j] for i, j in pairs) % 2 for e in self.elements])  # inversions

    @property
    def size(self) -> int:
        return len(self.elements)

    def running_products(self, inputs: Tensor) -> Tensor:
        """int64 (T, B): at each step the product of the inputs (T, B) so far, the first one applied first.

        Each round doubles the number of inputs that a step's product covers, so that log₂ T rounds do.
        """
        products, covered = inputs, 1
        while covered < len(inputs):
            longer = self.after.at(products[covered:] * self.size + products[:-covered])
            products, covered = torch.cat([products[:covered], longer]), 2 * covered
        return products


@functools.cache
def group(things: int) -> Group:
    return Group(things)


@register_task("state_tracking")
@dataclass(frozen=True, kw_only=True)
class StateTracking(Task):
    metric_name = "accuracy"
    solved_when = "accuracy ≥ 0.99"
    kind_names = ("even", "odd")
    takes_scored_answers = True
    drawn_together = True
    scored_alike = True

    length: int = option(32, "time steps T", at_least=2, at_most=1_000_000)
    variant: str = option("parity", "the group: parity is S₂, s3 is S₃, s5 is S₅", choices=tuple(PERMUTED))
    elements: str = option(
        "all", "what is read: all elements; swaps: of two neighbours, and the identity", choices=("all", "swaps")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "parity" and self.elements == "swaps":
            raise OptionError("elements", self.elements, "parity has no others than the swap and the identity")

    @property
    def group(self) -> Group:
        return group(PERMUTED[self.variant])

    @property
    def num_tokens(self) -> int:
        return self.group.size if self.elements == "all" else len(self.group.swaps)

    @property
    def output_size(self) -> int:
        return self.group.size

    @property
    def baseline(self) -> float:
        """Mean entropy of the product: ln 2, ln 6, ln 120 at every step, of swaps less while they are few."""
        size, swaps = self.group.size, self.group.swaps.on(torch.device("cpu"))
        if self.elements == "all":
            return math.log(size)
        after = self.group.after.on(torch.device("cpu")).view(size, size)[swaps].flatten()  # (swaps · size)
        chance = F.one_hot(torch.tensor(0), size).double()
        nats = 0.0
        for step in range(self.length):
            if (chance * size - 1).abs().amax() < 1e-12:
                return (nats + (self.length - step) * math.log(size)) / self.length
            chance = torch.zeros_like(chance).index_add_(0, after, chance.repeat(len(swaps)) / len(swaps))
            nats -= float(xlogy(chance, chance).sum())
        return nats / self.length

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        inputs = random.integers(0, self.num_tokens, (self.length, batch_size))
        read, mask = self._read(inputs), torch.ones_like(inputs, dtype=torch.bool)
        return Batch(inputs, self.group.running_products(read), mask, self.group.odd.at(read).to(torch.int8))

    def _read(self, inputs: Tensor) -> Tensor:
        """The elements' numbers of tokens."""
        return inputs if self.elements == "all" else self.group.swaps.at(inputs)

    def words(self, batch: Batch, b: int) -> list[str]:
        return [self._word(k) for k in self._read(batch.inputs[:, b]).tolist()]

    def decode(self, batch: Batch, b: int) -> str:
        said = " ".join(self._word(k) for k in batch.targets[:, b][batch.mask[:, b]].tolist())
        return f"{' '.join(self.words(batch, b))} → {said}"

    def answer(self, outputs: Tensor, batch: Batch, b: int) -> str:
        return " ".join(self._word(k) for k in outputs[:, b][batch.mask[:, b]].argmax(-1).tolist())

    def _word(self, number: int) -> str:
        if self.variant == "parity":
            return str(number)
        return "".join(str(1 + place) for place in self.group.elements[number])

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Accuracy over all steps, and `at_end`, at the last one that is scored."""
        right = batch.answers(outputs).argmax(-1) == batch.at_scored(batch.targets)
        step = batch.scored // batch.size
        at_end = right[step == step.amax()].double().mean().item()
        return {"accuracy": share_right(outputs, batch), "at_end": at_end}

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first and the second half of the steps."""
        early = 2 * step_numbers(len(batch.mask), batch.mask.device) < len(batch.mask)
        return {"first_half": batch.mask & early, "second_half": batch.mask & ~early}
