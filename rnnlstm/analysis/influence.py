"""Influence: how much the answer would change with each input, ‖∂answer/∂x_t‖.

The answer is the output for the right class at the last scored position (for numbers, their sum); x_t is what enters
the recurrence at t, the token's embedding or the input's features. Norm over features. Unit: output per unit of
input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnnlstm.analysis.subject import Subject


def influence(subject: Subject) -> Tensor:
    """(T, B)."""
    batch = subject.at_last
    with torch.enable_grad():
        x = subject.network.embed(batch.inputs).detach().requires_grad_()
        outputs = subject.network.answer(x)[batch.mask]  # (B, O), a position of each sequence
        if not batch.targets.is_floating_point():
            outputs = outputs.gather(1, batch.targets[batch.mask][:, None])
        (gradient,) = torch.autograd.grad(outputs.sum(), x)
    return gradient.norm(dim=-1)
