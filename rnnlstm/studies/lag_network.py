"""Parts of Hochreiter & Schmidhuber's network of 1997 around any recurrent network of this project.

    y_t = W_hy h_t + b + D x_t                    D: a direct connection from the input, x_t one of V symbols
    y_t = b + D x_t                               until the cell is added
    L   = mean over steps of Σ_k (σ(y_k) − target_k)²     logistic outputs with a squared error

Dimensions: R replicas, T time steps, B sequences, V symbols, O output features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from rnnlstm.models import Replicas
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.long_lag import LongLag
from rnnlstm.training.plan import Plan
from rnnlstm.training.step import Trainer, Update

#: The cell is added when the mean loss of WINDOW updates is not below this share of that of the WINDOW before.
WINDOW, STILL_FALLS = 100, 0.99


class Growth:
    """When each replica's cell is added: once its loss stops falling."""

    def __init__(self, replicas: int) -> None:
        self.added_at: list[int | None] = [None] * replicas
        self._losses: list[list[float]] = [[] for _ in range(replicas)]

    def watch(self, trainer: Trainer, update: Update) -> None:
        for r, loss in enumerate(update.losses):
            if self.added_at[r] is not None:
                continue
            losses = self._losses[r]
            losses.append(loss)
            if len(losses) % WINDOW == 0 and len(losses) > WINDOW:
                last, before = sum(losses[-WINDOW:]), sum(losses[-2 * WINDOW : -WINDOW])
                if last > STILL_FALLS * before:
                    self.added_at[r] = update.step

    def added(self, replica: int) -> bool:
        return self.added_at[replica] is not None


class LagNetwork(Replicas):
    """`model`'s replicas, whose weights it shares, with a direct connection, which starts at 0, and with cells that
    are added as `growth` says. Inputs are symbols (T, B)."""

    def __init__(self, model: Replicas, direct: bool, growth: Growth | None) -> None:
        self.__dict__.update(vars(model))
        self.growth = growth
        if direct:
            R, V, _ = self.parameters["embedding.weight"].shape
            O = self.parameters["readout.bias"].shape[1]  # noqa: E741
            zero = self.parameters["readout.bias"].detach().new_zeros(R, V, O)
            self.parameters = {**self.parameters, "direct.weight": zero.requires_grad_()}

    def __call__(
        self, inputs: Sequence[Tensor], noise: Any = None, scored: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        outputs = super().__call__(inputs, noise, scored)
        places: Sequence[Tensor | None] = scored or [None] * len(inputs)
        return [
            self._with_parts(r, out, x, at)
            for r, (out, x, at) in enumerate(zip(outputs, inputs, places, strict=True))
        ]

    def one(
        self,
        replica: int,
        inputs: Tensor,
        scored: Tensor | None = None,
        noise: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        return self._with_parts(replica, super().one(replica, inputs, scored, noise), inputs, scored)

    def _with_parts(self, r: int, outputs: Tensor, inputs: Tensor, scored: Tensor | None) -> Tensor:
        """y_t from W_hy h_t + b, (T, B, O) or those at places `scored`, (N, O)."""
        if self.growth is not None and not self.growth.added(r):
            # Not b alone: weights without a gradient would have no state in the optimiser.
            outputs = self.parameters["readout.bias"][r] + 0 * outputs
        if (direct := self.parameters.get("direct.weight")) is not None:
            symbols = inputs if scored is None else inputs.flatten()[scored]
            outputs = outputs + F.embedding(symbols, direct[r])
        return outputs


def with_squared_error(plan: Plan) -> Plan:
    """The plan of a long lag with logistic outputs and squared error."""
    options = {field.name: getattr(plan.task, field.name) for field in dataclasses.fields(plan.task)}
    return dataclasses.replace(plan, task=SquaredLongLag(**options))


@dataclass(frozen=True, kw_only=True)
class SquaredLongLag(LongLag):
    """2a and 2b with an output σ(y) for each class and the squared error, summed over classes."""

    takes_scored_answers = True

    @property
    def baseline(self) -> float:
        """Of A distractors each with probability 1/A the least squared error is 1 − 1/A; of two classes 1/2."""
        middle = (self.length - 1) * (1 - 1 / self.distractors) if self.variant == "2b" else 0.0
        return (middle + 0.5) / self.length

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        said, targets = batch.answers(outputs).sigmoid(), batch.at_scored(batch.targets)  # (scored, O), (scored,)
        return (said - F.one_hot(targets, said.shape[-1])).square().sum(-1).mean()

    def probabilities(self, answers: Tensor) -> Tensor:
        return answers.double().sigmoid()
