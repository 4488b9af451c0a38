"""What mixed precision errs by: loss and gradient on a fixed sample, against full precision with the same weights."""

from __future__ import annotations

import torch

from rnnlstm.batch import Batch
from rnnlstm.models import Replicas
from rnnlstm.recurrence import PRECISIONS
from rnnlstm.tasks import Task


def precision_errors(model: Replicas, replica: int, task: Task, batch: Batch) -> dict[str, float]:
    """|L − L*|/|L*| and ‖g − g*‖/‖g*‖, L and g being loss and gradient in bfloat16, L* and g* in full precision; one
    that is not defined is left out. Training can't notice."""
    losses, gradients = [], []
    for precision in PRECISIONS:
        weights, outputs = model.apart(replica, batch.inputs, precision)
        loss = task.loss(outputs, batch)
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        losses.append(loss.item())
        gradients.append(torch.cat([g.double().flatten() for g in found if g is not None]))
    (exact, rounded), (full, ours) = losses, gradients
    size = full.norm().item()
    errors = {"loss_error": abs(rounded - exact) / abs(exact)} if exact else {}
    return {**errors, "gradient_error": (ours - full).norm().item() / size} if size else errors
