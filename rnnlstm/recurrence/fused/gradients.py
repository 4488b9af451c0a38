"""What a fused backward pass yields. Dimensions as in `portable.py`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, float64


class Gradients(NamedTuple):
    x: Tensor | None  #: (R, T, B, I), None where it is not wanted
    w_x: Tensor  #: (R, P·H, I)
    w_h: Tensor  #: (R, P·H, H)
    table: Tensor  #: (R, V, G·H)
    h0: Tensor  #: (R, B, H)
    c0: Tensor  #: (R, B, H)


class Rows(NamedTuple):
    """Squared norms for each sequence and time step, float64: of ∂L/∂h_t, of ∂L/∂c_t (zero where there is no cell
    state), and of the gradient for each block of pre-activations."""

    hidden: Tensor  #: (R, T, B)
    cell: Tensor  #: (R, T, B)
    blocks: Tensor  #: (R, T, B, G)

    @classmethod
    def like(cls, out: Tensor, blocks: int) -> Rows:
        """To be filled, for outputs (R, T, B, H)."""
        zeros = out.new_zeros((2 + blocks, *out.shape[:3]), dtype=float64)
        return cls(zeros[0], zeros[1], zeros[2:].flatten().view(*out.shape[:3], blocks))
