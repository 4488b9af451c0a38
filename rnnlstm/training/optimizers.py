"""Optimisers over stacked replicas. All of them work entry by entry, so replicas do not mix."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rnnlstm.sections import OptimizerOptions, RMSpropOptions, SGDOptions


def make_optimizer(options: OptimizerOptions, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015), RMSprop (Hinton 2012) or SGD, at PyTorch's other defaults."""
    weights = list(parameters)
    if isinstance(options, RMSpropOptions):
        return torch.optim.RMSprop(weights, lr=options.lr, alpha=options.alpha)
    if isinstance(options, SGDOptions):
        return torch.optim.SGD(weights, lr=options.lr, momentum=options.momentum, fused=True)
    return torch.optim.Adam(weights, lr=options.lr, fused=True)
