"""Evaluation on held-out sequences: the same sequences at every call, and no effect on training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rnnlstm.instruments.probe import SEQUENCES
from rnnlstm.models import Replicas
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch
from rnnlstm.training.plan import Plan

#: Time steps × sequences that go through the network at once: what fits a cache is fastest.
CHUNK = 25_000
#: Chunks that a GPU takes at once: one would leave it idle. The sequences are the same.
DEVICE_CHUNKS = 16


def evaluations(
    plan: Plan, model: Replicas, replica: int, seed: int, current: Task | None = None
) -> dict[str, dict[str, float]]:
    """All scores of one replica by the prefix of their tags.

    `eval` at the training length, `eval_slice` the headline metric on the task's slices there, `precision` the error
    of mixed precision, the plan's variations, and `eval_current` on the task `current`, the present one of a growing
    curriculum.
    """
    network, samples = functools.partial(model.one, replica), plan.config.eval.samples
    scores, slices = evaluate(network, plan.task, seed, samples, plan.device)
    by_prefix = {"eval": scores, "eval_slice": slices}
    if plan.config.precision != "full":
        sample = plan.task.sample(seed, 0, "probe", min(plan.config.train.batch_size, SEQUENCES)).to(plan.device)
        by_prefix["precision"] = precision_errors(model, replica, plan.task, sample)
    for prefix, variation in plan.variations.items():
        by_prefix[prefix], _ = evaluate(network, variation, seed, samples, plan.device)
    if current is plan.task:  # grown; the tag continues, so that a median over seeds is one over all of them
        by_prefix["eval_current"] = scores
    elif current is not None:
        by_prefix["eval_current"], _ = evaluate(network, current, seed, samples, plan.device)
    return by_prefix


@torch.no_grad()
def evaluate(
    network: Callable[..., Tensor],
    task: Task,
    seed: int,
    samples: int,
    device: torch.device | None = None,
    stream: str = "eval",
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of a network on `samples` sequences of one of the seed's streams: `loss` and the task's metrics; and the
    headline metric on each of the task's slices that has a scored position.

    `network` maps inputs (T, B) or (T, B, I) to outputs (T, B, O); called with `scored` (N,), places in (T·B), to
    those alone, (N, O).
    """
    size = max(1, min(samples, CHUNK // task.sequence_length))
    drawn = [
        task.sample(seed, step, stream, min(size, samples - start))
        for step, start in enumerate(range(0, samples, size))
    ]
    batch = _joined(drawn).to(device or torch.device("cpu"))
    at_once = size if batch.inputs.device.type == "cpu" else DEVICE_CHUNKS * size
    if task.takes_scored_answers:
        outputs = _answers(network, batch, at_once)
    else:
        outputs = torch.cat([network(inputs) for inputs in batch.inputs.split(at_once, 1)], 1)  # (T, B, O)
    scores = {"loss": task.loss(outputs, batch).item(), **task.metrics(outputs, batch)}
    slices = {}
    for name, part in task.slices(batch).items():
        mask = part & batch.mask
        here = outputs[batch.at_scored(mask)] if task.takes_scored_answers else outputs
        metrics = task.metrics(here, dataclasses.replace(batch, mask=mask)) if mask.any() else {}
        if task.metric_name in metrics:
            slices[name] = metrics[task.metric_name]
    return scores, slices


def _answers(network: Callable[..., Tensor], batch: Batch, at_once: int) -> Tensor:
    """The answers (scored, O) in the order of `batch.scored`, computed for `at_once` sequences at a time."""
    parts = [batch.sequences(slice(start, start + at_once)) for start in range(0, batch.size, at_once)]
    answers = torch.cat([network(part.inputs, scored=part.scored) for part in parts])  # part by part
    by_part = (batch.scored_sequences // at_once).argsort(stable=True)
    return answers[by_part.argsort()]


def _joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, side by side."""
    names = [field.name for field in dataclasses.fields(Batch) if getattr(batches[0], field.name) is not None]
    return Batch(**{name: torch.cat([getattr(batch, name) for batch in batches], 1) for name in names})


def precision_errors(model: Replicas, replica: int, task: Task, batch: Batch) -> dict[str, float]:
    """What mixed precision changes on one batch, with the same weights: |L − L*|/|L*| and ‖g − g*‖/‖g*‖.

    L and g are loss and gradient as the run computes them, L* and g* in full precision. An error that is not defined
    is left out.
    """
    losses, gradients = [], []
    for precision in ("full", model.precision):
        weights, outputs = model.apart(replica, batch.inputs, precision)
        loss = task.loss(outputs, batch)
        by_weight = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        losses.append(loss.item())
        gradients.append(torch.cat([g.double().flatten() for g in by_weight if g is not None]))
    (exact, rounded), (full, ours) = losses, gradients
    size = full.norm().item()
    errors = {"loss_error": abs(rounded - exact) / abs(exact)} if exact else {}
    return {**errors, "gradient_error": (ours - full).norm().item() / size} if size else errors
