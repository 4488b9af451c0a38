"""How much of a sum is left, on states made by hand."""

from __future__ import annotations

import pytest
import torch

from rnnlstm.studies import leak
from rnnlstm.studies.leak import along_its_first, slopes_over


def test_slopes_of_a_leaking_state_are_those_of_the_leak():
    """c_t = f^t (sum · v) + noise that does not depend on the sum: the share left at t is f^t."""
    generator = torch.Generator().manual_seed(0)
    sums = torch.rand(4096, generator=generator, dtype=torch.float64)
    v = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    f = torch.tensor([0.9**t for t in range(5)], dtype=torch.float64)
    noise = 0.01 * torch.randn(5, 4096, 3, generator=generator, dtype=torch.float64)
    slopes = slopes_over(sums, f[:, None, None] * sums[:, None] * v + noise)
    torch.testing.assert_close(slopes, f[:, None] * v, atol=5e-3, rtol=0)
    torch.testing.assert_close(along_its_first(slopes), f, atol=5e-3, rtol=0)


def test_what_turns_away_from_the_first_direction_is_lost():
    slopes = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-1.0, 5.0]])
    assert along_its_first(slopes).tolist() == [1.0, 0.0, -0.5]


@pytest.mark.parametrize("size", ["quick", "standard"])
def test_the_table_s_steps_are_among_the_readings(size):
    _, longest, reads, _ = leak.SIZES[size]
    assert set(reads) <= set(range(longest, reads[-1] + 1, (reads[-1] - longest) // leak.READINGS))
