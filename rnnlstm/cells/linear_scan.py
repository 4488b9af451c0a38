"""h_t = a_t h_{t−1} + b_t for all time steps at once.

Log-depth scan (Hillis & Steele 1986; Blelloch 1990): pairs (a, b) compose as (a₂a₁, a₂b₁ + b₂), so that after k
rounds each step holds the composition of the 2^k steps up to it. Equal to the loop to rounding; O(T log T) work, log
T rounds.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """a, b (T, …), h0 (…): h_1 … h_T, (T, …). Real or complex."""
    b = torch.cat([(b[0] + a[0] * h0)[None], b[1:]])
    reach = 1
    while reach < len(b):
        b = torch.cat([b[:reach], a[reach:] * b[:-reach] + b[reach:]])
        a = torch.cat([a[:reach], a[reach:] * a[:-reach]])
        reach *= 2
    return b
