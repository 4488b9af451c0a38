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
from rnnlstm.training.batches import Feed
from rnnlstm.training.clip import ClipEvent, clip_replicas
from rnnlstm.training.curriculum import Curriculum
from rnnlstm.training.device import settle
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
    """Weights and optimiser state of R replicas, and the step that moves them on."""

    def __init__(self, plan: Plan, seeds: Sequence[int]) -> None:
        self.plan, self.seeds = plan, list(seeds)
        settle(plan.device)
        self.model = Replicas([plan.network(seed) for seed in seeds], plan.device, plan.config.precision)
        self.feed = Feed(self.seeds, plan.config.train.batch_size, plan.device, plan.config.data)
        capture = capture_on(plan.device) if plan.backend == "fused" else None  # fused: no noise, whose masks change
        self.passes = Graphs(self.model.parameters.values(), capture)
        self.optimizer = make_optimizer(plan.config.optimizer, self.model.parameters.values())
        self.curriculum = Curriculum(plan.task, plan.config.curriculum, len(self.seeds))
        self._masks: list[dict[str, Tensor]] | None = None  # noise of the present update
        self._frozen: list[int] = []
        self._held: dict[str, Tensor] = {}  # weights of the frozen, in their order

    def step(self, step: int) -> Update:
        """Update number `step`, from 1 on."""
        clip, tasks = self.plan.config.clip, self._tasks(step)
        batches = self.feed.take(tasks, step)
        self._masks = self._noise(step, batches)
        outputs, losses = self.passes(self._forward, tasks, batches)  # and backward, each by its own loss
        self.feed.ahead(self._tasks, step + 1)  # while a GPU is at work
        clips = clip_replicas(self.model.parameters, clip.name, clip.threshold, step)

        values = losses.tolist()
        broken = {r: what for r in range(len(clips)) if (what := _not_finite(values[r], clips[r]))}
        for replica in broken:
            self.freeze(replica)
        self._quieten()
        self.optimizer.step()
        self._restore()
        return Update(step, values, clips, broken, outputs, batches, tasks)

    def _forward(self, tasks: list[Task], batches: Sequence[Batch]) -> tuple[list[Tensor], Tensor]:
        """Outputs (T, B, O) of each replica, and losses (R,)."""
        outputs = self.model([batch.inputs for batch in batches], self._masks)
        each = zip(tasks, outputs, batches, strict=True)
        return outputs, torch.stack([task.loss(out, batch) for task, out, batch in each])

    def _tasks(self, step: int) -> list[Task]:
        """What each replica trains on in update number `step`."""
        return [self.curriculum.task(r, step) for r in range(len(self.seeds))]

    def _noise(self, step: int, batches: Sequence[Batch]) -> list[dict[str, Tensor]] | None:
        """The masks of an update for each replica: a replica's are its seed's, whatever is trained beside it."""
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

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises: ValueError or KeyError if the state is of another network or optimiser, RuntimeError for other
        shapes."""
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

    def freeze(self, replica: int) -> None:
        """Keep one replica's weights as they are from now on; the others' arithmetic stays the same."""
        if replica not in self._frozen:
            self._frozen.append(replica)
            self._rows = torch.tensor(self._frozen).to(self.plan.device)
            self._held = {k: w.detach().index_select(0, self._rows) for k, w in self.model.parameters.items()}

    @property
    def frozen(self) -> set[int]:
        return set(self._frozen)

    @torch.no_grad()
    def _quieten(self) -> None:
        """No gradient for the frozen: one that is not finite would stay in the optimiser's averages for good."""
        for name in self._held:
            if (gradient := self.model.parameters[name].grad) is not None:
                gradient.index_fill_(0, self._rows, 0)

    @torch.no_grad()
    def _restore(self) -> None:
        for name, weights in self._held.items():
            self.model.parameters[name].index_copy_(0, self._rows, weights)


def _not_finite(loss: float, clip: ClipEvent) -> str | None:
    """What is not finite, in words, or None."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(clip.norm_before):
        names = [name for name, norm in clip.norms.items() if not math.isfinite(norm)]
        return f"the gradient of {names[0] if names else 'all parameters together'} is not finite"
    return None


# Optimisers over stacked replicas. All of them work entry by entry, so replicas do not mix.


def make_optimizer(options: OptimizerOptions, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015), RMSprop (Hinton 2012) or SGD, at PyTorch's other defaults."""
    weights = list(parameters)
    if isinstance(options, RMSpropOptions):
        return torch.optim.RMSprop(weights, lr=options.lr, alpha=options.alpha)
    if isinstance(options, SGDOptions):
        return torch.optim.SGD(weights, lr=options.lr, momentum=options.momentum, fused=True)
    return torch.optim.Adam(weights, lr=options.lr, fused=True)
