"""Lyapunov exponents: the rates at which nearby states move apart, or together, in every direction.

    Q_{t+1} R_{t+1} = J_t Q_t,        λ_i = mean over t of ln |R_t,ii|        (nats a step)

Source: Benettin et al. 1980; for recurrent networks Engelken, Wolf & Abbott 2023; Vogt et al. 2022. Where all
exponents are below zero, gradients vanish in every direction at the rate of the largest; above zero one explodes. An
orthogonal linear network has 0 in all directions, a·I has ln |a|.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lyapunov_spectrum(jacobians: Tensor, skip: int = 0) -> Tensor:
    """(N,), descending, from step Jacobians (T, N, N); the first `skip` steps only turn Q into place.

    −∞ for a direction that a step flattens altogether, such as a dead unit's.
    """
    T, N = len(jacobians), jacobians.shape[-1]
    generator = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(N, N, dtype=jacobians.dtype, generator=generator))
    total = torch.zeros(N, dtype=jacobians.dtype)
    for t in range(T):
        Q, R = torch.linalg.qr(jacobians[t] @ Q)
        if t >= skip:
            total += R.diagonal().abs().log()
    return (total / (T - skip)).sort(descending=True).values
