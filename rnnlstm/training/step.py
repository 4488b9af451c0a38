"""The training step: R replicas, each with its own data, gradient, clipping and fate, in lockstep.

Dimensions: R replicas, T time steps, B sequences, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rnnlstm.cells import draw_masks, is_noisy
from rnnlstm.config.schema import OptimizerOptions, RMSpropOptions, SGDOptions
from rnnlstm.models import Replicas
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomStream
from rnnlstm.training.batches import TrainingBatches
from rnnlstm.training.clip import ClipEvent, clip_replicas
from rnnlstm.training.curriculum import Curriculum
from rnnlstm.training.device import make_deterministic
from rnnlstm.training.graphs import Graphs, capture_on
from rnnlstm.training.plan import Plan


@dataclass(frozen=True)
class Update:
    """What one update saw, replica by replica. Losses and gradients are those before the update."""

    step: int
    losses: list[float]
    clips: list[ClipEvent]
    broken: dict[int, str]  #: replicas whose loss or gradient was not finite, and what it was
    outputs: list[Tensor]  #: (T, B, O) of each replica, detached
    batches: list[Batch]
    tasks: list[Task]  #: what each was trained on: the task at the length of its curriculum


class Trainer:
    """Weights and optimiser state of R replicas, and the step that updates them."""

    def __init__(self, plan: Plan, seeds: Sequence[int]) -> None:
        self.plan, self.seeds = plan, list(seeds)
        make_deterministic(plan.device)
        self.model = Replicas([plan.network(seed) for seed in seeds], plan.device, plan.config.precision)
        self.batches = TrainingBatches(self.seeds, plan.config.train.batch_size, plan.device, plan.config.data)
        # The fused backend never has noise, whose masks change from update to update: a graph would replay old ones.
        self.graphs = Graphs(
            self.model.parameters.values(), capture_on(plan.device) if plan.backend == "fused" else None
        )
        self.optimizer = make_optimizer(plan.config.optimizer, self.model.parameters.values())
        self.curriculum = Curriculum(plan.task, plan.config.curriculum, len(self.seeds))
        self._frozen: list[int] = []
        self._frozen_weights: dict[str, Tensor] = {}  # by parameter, rows in the order of `_frozen`

    def step(self, step: int) -> Update:
        """Update number `step`, from 1 on.

        Batch → forward → loss → backward → clip → finite check → optimiser → restore the frozen.
        """
        tasks = self._tasks(step)
        batches = self.batches.take(tasks, step)
        masks = self._noise_masks(step, batches)

        def forward_and_backward(batches: Sequence[Batch]) -> tuple[list[Tensor], Tensor]:
            """Outputs (T, B, O) of each replica and losses (R,). On CUDA a graph records and replays this."""
            outputs = self.model([batch.inputs for batch in batches], masks)
            each = zip(tasks, outputs, batches, strict=True)
            losses = torch.stack([task.loss(out, batch) for task, out, batch in each])
            self.optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # replicas share no weight: each gets the gradient of its own loss
            return [out.detach() for out in outputs], losses.detach()

        outputs, losses = self.graphs(forward_and_backward, tasks, batches)
        self.batches.prefetch(self._tasks, step + 1)  # while a GPU still computes
        clips = clip_replicas(
            self.model.parameters, self.plan.config.clip.name, self.plan.config.clip.threshold, step
        )

        values = losses.tolist()
        broken = {r: what for r, clip in enumerate(clips) if (what := _not_finite(values[r], clip))}
        for replica in broken:
            self.freeze(replica)
        self._zero_frozen_gradients()
        self.optimizer.step()
        self._restore_frozen_weights()
        return Update(step, values, clips, broken, outputs, batches, tasks)

    def freeze(self, replica: int) -> None:
        """Keep one replica's weights as they are from now on; the others' arithmetic stays the same."""
        if replica not in self._frozen:
            self._frozen.append(replica)
            self._rows = torch.tensor(self._frozen).to(self.plan.device)
            self._frozen_weights = {
                name: weight.detach().index_select(0, self._rows) for name, weight in self.model.parameters.items()
            }

    @torch.no_grad()
    def _zero_frozen_gradients(self) -> None:
        """A gradient that is not finite would stay in the optimiser's averages for good."""
        for name in self._frozen_weights:
            if (gradient := self.model.parameters[name].grad) is not None:
                gradient.index_fill_(0, self._rows, 0)

    @torch.no_grad()
    def _restore_frozen_weights(self) -> None:
        """The optimiser moves a weight without a gradient, too: by its averages, or by weight decay."""
        for name, weights in self._frozen_weights.items():
            self.model.parameters[name].index_copy_(0, self._rows, weights)

    def _tasks(self, step: int) -> list[Task]:
        """What each replica trains on in update number `step`."""
        return [self.curriculum.task(r, step) for r in range(len(self.seeds))]

    def _noise_masks(self, step: int, batches: Sequence[Batch]) -> list[dict[str, Tensor]] | None:
        """Masks of recurrent dropout and zoneout for each replica, drawn from its own seed; None without noise."""
        recurrence = self.model.shell.recurrence
        if not is_noisy(recurrence.cell):
            return None
        masks = [
            draw_masks(
                recurrence.cell,
                RandomStream(seed, "noise", step).uniform,
                steps=batch.inputs.shape[0],
                sequences=batch.inputs.shape[1],
                hidden_size=recurrence.hidden_size,
                num_layers=recurrence.num_layers,
                dtype=self.plan.dtype,
            )
            for seed, batch in zip(self.seeds, batches, strict=True)
        ]
        return [{name: mask.to(self.plan.device) for name, mask in each.items()} for each in masks]

    def state(self) -> dict[str, Any]:
        """Weights (of all replicas, stacked), optimiser, curriculum and who is frozen. Tensors are on the CPU."""
        return {
            "weights": {name: weight.detach().cpu() for name, weight in self.model.parameters.items()},
            "optimizer": tree_map(lambda v: v.cpu() if isinstance(v, Tensor) else v, self.optimizer.state_dict()),
            "lengths": list(self.curriculum.lengths),
            "frozen": sorted(self._frozen),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back an earlier `state()`.

        Raises: ValueError or KeyError if the state is of another network or optimiser, RuntimeError for other shapes.
        """
        if set(state["weights"]) != set(self.model.parameters):
            raise ValueError("it has other weights")
        with torch.no_grad():
            for name, weight in self.model.parameters.items():
                if weight.shape != state["weights"][name].shape:
                    raise ValueError(f"{name} has another shape")
                weight.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curriculum.lengths = list(state["lengths"])
        for replica in state["frozen"]:  # its weights are what they were when it was frozen
            self.freeze(replica)

    @property
    def frozen(self) -> set[int]:
        return set(self._frozen)


def make_optimizer(options: OptimizerOptions, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015), RMSprop (Hinton 2012) or SGD, at PyTorch's other defaults.

    All of them work entry by entry, so the rows of stacked replicas do not mix.
    """
    weights = list(parameters)
    if isinstance(options, RMSpropOptions):
        return torch.optim.RMSprop(weights, lr=options.lr, alpha=options.alpha)
    if isinstance(options, SGDOptions):
        return torch.optim.SGD(weights, lr=options.lr, momentum=options.momentum, fused=True)
    return torch.optim.Adam(weights, lr=options.lr, fused=True)


def _not_finite(loss: float, clip: ClipEvent) -> str | None:
    """What is not finite, in words, or None."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(clip.norm_before):
        names = [name for name, norm in clip.norms.items() if not math.isfinite(norm)]
        return f"the gradient of {names[0] if names else 'all parameters together'} is not finite"
    return None
