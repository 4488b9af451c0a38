"""Evaluation on held-out sequences: the same at every call, and without any effect on training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from rnnlstm.batch import Batch
from rnnlstm.models import Replicas
from rnnlstm.tasks import Task

#: Time steps × sequences that go through the network at once; bounds the memory an evaluation takes.
CHUNK = 250_000


@torch.no_grad()
def evaluate(model: Replicas, task: Task, seeds: Sequence[int], samples: int) -> list[dict[str, float]]:
    """`loss` and the task's metrics, replica by replica, each on `samples` sequences of its own stream `eval`."""
    device = next(iter(model.parameters.values())).device
    size = max(1, min(samples, CHUNK // task.sequence_length))
    outputs, batches = [], []
    for step, start in enumerate(range(0, samples, size)):
        count = min(size, samples - start)
        chunk = [task.sample(seed, step, "eval", count).to(device) for seed in seeds]
        outputs.append(model(torch.stack([batch.inputs for batch in chunk])))  # (R, T, b, O)
        batches.append(chunk)
    whole = torch.cat(outputs, 2)  # (R, T, samples, O)
    scores = []
    for replica, parts in enumerate(zip(*batches, strict=True)):
        batch = _joined(parts)
        scores.append({"loss": task.loss(whole[replica], batch).item(), **task.metrics(whole[replica], batch)})
    return scores


def _joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, side by side."""
    names = [field.name for field in dataclasses.fields(Batch) if getattr(batches[0], field.name) is not None]
    return Batch(**{name: torch.cat([getattr(batch, name) for batch in batches], 1) for name in names})
