"""The training step: R replicas, each with its own data, gradient, clipping and fate, in lockstep.

Dimensions: R replicas, T time steps, B sequences, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.batch import Batch
from rnnlstm.cells import draw_masks, is_noisy
from rnnlstm.models import Replicas
from rnnlstm.random_stream import RandomStream
from rnnlstm.training.clip import ClipEvent, clip_replicas
from rnnlstm.training.optimizers import make_optimizer
from rnnlstm.training.plan import Plan


@dataclass(frozen=True)
class Update:
    """What one update saw, replica by replica. Losses and gradients are those before the update."""

    step: int
    losses: list[float]
    clips: list[ClipEvent]
    broken: dict[int, str]  #: replicas whose loss or gradient was not finite, and what it was
    outputs: Tensor  #: (R, T, B, O), detached
    batches: list[Batch]


class Trainer:
    """Weights and optimiser state of R replicas, and the step that moves them on."""

    def __init__(self, plan: Plan, seeds: Sequence[int]) -> None:
        self.plan, self.seeds = plan, list(seeds)
        self.model = Replicas([plan.network(seed) for seed in seeds], plan.device)
        self.optimizer = make_optimizer(plan.config.optimizer, self.model.parameters.values())
        self._held: dict[int, dict[str, Tensor]] = {}

    def step(self, step: int) -> Update:
        """Update number `step`, from 1 on."""
        config, task = self.plan.config, self.plan.task
        batches = [
            task.sample(seed, step, batch_size=config.train.batch_size).to(self.plan.device) for seed in self.seeds
        ]
        inputs = torch.stack([batch.inputs for batch in batches])
        outputs = self.model(inputs, self._noise(step, batches))  # (R, T, B, O)
        losses = torch.stack([task.loss(out, batch) for out, batch in zip(outputs, batches, strict=True)])  # (R,)

        self.optimizer.zero_grad()
        losses.sum().backward()  # each replica's gradient is its own loss's
        clips = clip_replicas(self.model.parameters, config.clip.name, config.clip.threshold, step)

        values = losses.tolist()
        broken = {r: what for r in range(len(clips)) if (what := _not_finite(values[r], clips[r]))}
        for replica in broken:
            self.freeze(replica)
        self.optimizer.step()
        self._restore()
        return Update(step, values, clips, broken, outputs.detach(), batches)

    def _noise(self, step: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """The masks of an update, (R, …) each: a replica's are its seed's, whatever is trained beside it."""
        recurrence = self.model.shell.recurrence
        if not is_noisy(recurrence.cell):
            return {}
        masks = [
            draw_masks(
                recurrence.cell,
                RandomStream(seed, "noise", step),
                steps=batch.inputs.shape[0],
                sequences=batch.inputs.shape[1],
                hidden_size=recurrence.hidden_size,
                num_layers=recurrence.num_layers,
                dtype=self.plan.dtype,
            )
            for seed, batch in zip(self.seeds, batches, strict=True)
        ]
        return {name: torch.stack([each[name] for each in masks]).to(self.plan.device) for name in masks[0]}

    def freeze(self, replica: int) -> None:
        """Keep one replica's weights as they are from now on; the others' arithmetic stays the same."""
        if replica not in self._held:
            self._held[replica] = {k: w.detach().clone() for k, w in self.model.weights(replica).items()}

    @property
    def frozen(self) -> set[int]:
        return set(self._held)

    @torch.no_grad()
    def _restore(self) -> None:
        for replica, weights in self._held.items():
            for name, weight in weights.items():
                self.model.parameters[name][replica] = weight


def _not_finite(loss: float, clip: ClipEvent) -> str | None:
    """What is not finite, in words, or None."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(clip.norm_before):
        names = [name for name, norm in clip.norms.items() if not math.isfinite(norm)]
        return f"the gradient of {names[0] if names else 'all parameters together'} is not finite"
    return None
