"""The training step: R replicas, each with its own data, gradient, clipping and fate, in lockstep.

Dimensions: R replicas, T time steps, B sequences, O output features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rnnlstm.cells import draw_masks, is_noisy
from rnnlstm.config.schema import OptimizerOptions
from rnnlstm.models import Replicas
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomStream
from rnnlstm.training.batches import TrainingBatches
from rnnlstm.training.clip import ClipEvent, clip_replicas
from rnnlstm.training.curriculum import Curriculum
from rnnlstm.training.device import make_deterministic
from rnnlstm.training.graphs import Graphs, capture_on
from rnnlstm.training.optimizers import make_optimizer
from rnnlstm.training.plan import Plan


@dataclass(frozen=True)
class Update:
    """What one update saw, replica by replica. Losses and gradients are those before the update."""

    step: int
    losses: list[float]
    clips: list[ClipEvent]
    broken: dict[int, str]  #: replicas whose loss or gradient was not finite, and what it was
    outputs: list[Tensor]  #: of each replica, detached: (T, B, O), or (N, O) if its task takes the scored ones alone
    batches: list[Batch]
    tasks: list[Task]  #: what each was trained on: the task at the length of its curriculum


class OptimizerState(TypedDict):
    """PyTorch's state_dict of an optimiser."""

    state: dict[int, dict[str, Tensor | None]]  #: by a weight's number and an entry's name
    param_groups: list[dict[str, Any]]


class TrainerState(TypedDict):
    """All entries that a checkpoint holds of a `Trainer`. Tensors are on the CPU."""

    weights: dict[str, Tensor]  #: of all replicas, stacked
    optimizer: OptimizerState
    lengths: list[int]  #: of the curriculum, for each replica
    frozen: list[int]


class Trainer:
    """Weights and optimiser state of R replicas, and the step that updates them."""

    def __init__(self, plan: Plan, seeds: Sequence[int]) -> None:
        self.plan, self.seeds = plan, list(seeds)
        make_deterministic(plan.device)
        networks = [plan.network(seed) for seed in seeds]
        self.model = Replicas(networks, plan.device, plan.config.precision, plan.task.one_hot_inputs)
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
            """Outputs of each replica and losses (R,). On CUDA a graph records and replays this."""
            scored = [b.scored for b in batches] if all(task.takes_scored_answers for task in tasks) else None
            outputs = self.model([batch.inputs for batch in batches], masks, scored)
            each = zip(tasks, outputs, batches, strict=True)
            losses = torch.stack([task.loss(out, batch) for task, out, batch in each])
            self.optimizer.zero_grad()
            losses.sum().backward()  # replicas share no weight: each gets the gradient of its own loss
            return [out.detach() for out in outputs], losses.detach()

        outputs, losses = self.graphs(forward_and_backward, tasks, batches)
        self.batches.prefetch(self._tasks, step + 1)  # while a GPU still computes
        clip = self.plan.config.clip
        clips = clip_replicas(self.model.parameters, clip.name, clip.threshold, step, clip.norm_type)

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

    @torch.no_grad()
    def start_from(self, weights: Sequence[Mapping[str, Tensor]]) -> None:
        """Take these weights, of each replica, in place of the initial ones."""
        for replica, theirs in enumerate(weights):
            for name, weight in self.model.weights(replica).items():
                weight.copy_(theirs[name])

    def state(self) -> TrainerState:
        return {
            "weights": {name: weight.detach().cpu() for name, weight in self.model.parameters.items()},
            "optimizer": tree_map(lambda v: v.cpu() if isinstance(v, Tensor) else v, self.optimizer.state_dict()),
            "lengths": list(self.curriculum.lengths),
            "frozen": sorted(self._frozen),
        }

    def load_state(self, state: TrainerState) -> None:
        """Take back an earlier `state()`.

        Raises: ValueError or KeyError if the state is of another network, curriculum or optimiser.
        """
        if set(state["weights"]) != set(self.model.parameters):
            raise ValueError("it has other weights")
        for name, weight in self.model.parameters.items():
            _require_like(state["weights"][name], weight, name)
        self._load_optimizer(state["optimizer"])
        self.curriculum.load(state["lengths"])
        with torch.no_grad():
            for name, weight in self.model.parameters.items():
                weight.copy_(state["weights"][name])
        for replica in state["frozen"]:  # its weights are what they were when it was frozen
            self.freeze(replica)

    def _load_optimizer(self, saved: OptimizerState) -> None:
        """Take back an optimiser's state_dict, checked: PyTorch takes any shape, and fails in a later step.

        Its settings are those of the configuration, so those that were saved only have to be the same.
        """
        settings = self.optimizer.state_dict()["param_groups"]
        if len(saved["param_groups"]) != len(settings):
            raise ValueError("it has other param_groups")
        for now, then in zip(settings, saved["param_groups"], strict=True):
            for key, value in now.items():
                if key in then and (type(then[key]) is not type(value) or then[key] != value):
                    raise ValueError(f"its optimiser has another {key}")
        expected = _state_after_a_step(self.plan.config.optimizer)
        weights = list(self.model.parameters.items())
        for number, entries in saved["state"].items():
            if not 0 <= number < len(weights):
                raise ValueError("its optimiser is of other weights")
            kept = {
                name: value for name, value in entries.items() if value is not None
            }  # momentum 0, in some versions
            if kept.keys() != expected.keys():
                raise ValueError("its optimiser is another one")
            for name, value in kept.items():
                words = f"the optimiser's {name}"
                if expected[name].ndim:
                    _require_like(value, weights[number][1], f"{words} of {weights[number][0]}")
                elif value.ndim or not value.is_floating_point() or not value.isfinite():
                    raise ValueError(f"{words} is no number")
                if name in NEVER_NEGATIVE and (value < 0).any():
                    raise ValueError(f"{words} is negative")
        self.optimizer.load_state(saved["state"])

    @property
    def frozen(self) -> set[int]:
        return set(self._frozen)


#: Entries of an optimiser's state: counts and means of squares.
NEVER_NEGATIVE = ("step", "exp_avg_sq", "square_avg")


def _state_after_a_step(options: OptimizerOptions) -> dict[str, Tensor]:
    """What the optimiser keeps of a weight, by name, without what is None."""
    weight = torch.zeros(1)
    weight.grad = torch.zeros(1)
    optimizer = make_optimizer(options, [weight])
    optimizer.step()
    return optimizer.state[0]


def _require_like(value: Tensor, like: Tensor, name: str) -> None:
    """Check shape and dtype. Raises: ValueError."""
    if value.shape != like.shape:
        raise ValueError(f"{name} has another shape")
    if value.dtype != like.dtype:
        raise ValueError(f"{name} has another dtype")


def is_dense(tensor: Tensor) -> bool:
    """Whether it has a number of its own in the CPU's memory for each entry: an expanded one has fewer, and takes
    as much more memory as it likes once it is computed with."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _not_finite(loss: float, clip: ClipEvent) -> str | None:
    """What is not finite, in words, or None."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(clip.euclidean_before):
        names = [name for name, norm in clip.norms.items() if not math.isfinite(norm)]
        return f"the gradient of {names[0] if names else 'all parameters together'} is not finite"
    return None
