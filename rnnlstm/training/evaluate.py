"""Evaluation on held-out sequences: the same at every call, and without any effect on training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from rnnlstm.batch import Batch
from rnnlstm.models import Replicas
from rnnlstm.tasks import Task

#: Time steps × sequences that go through the network at once: what still lies in a cache is quickest.
CHUNK = 25_000


@torch.no_grad()
def evaluate(model: Replicas, replica: int, task: Task, seed: int, samples: int) -> dict[str, float]:
    """`loss` and the task's metrics of one replica, on `samples` sequences of its seed's stream `eval`."""
    device = next(iter(model.parameters.values())).device
    size = max(1, min(samples, CHUNK // task.sequence_length))
    outputs, batches = [], []
    for step, start in enumerate(range(0, samples, size)):
        batch = task.sample(seed, step, "eval", min(size, samples - start)).to(device)
        outputs.append(model.one(replica, batch.inputs))  # (T, b, O)
        batches.append(batch)
    whole, batch = torch.cat(outputs, 1), _joined(batches)
    return {"loss": task.loss(whole, batch).item(), **task.metrics(whole, batch)}


def _joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one, side by side."""
    names = [field.name for field in dataclasses.fields(Batch) if getattr(batches[0], field.name) is not None]
    return Batch(**{name: torch.cat([getattr(batch, name) for batch in batches], 1) for name in names})
