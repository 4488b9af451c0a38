"""The drop-in modules against torch.nn, in float64: values and all gradients, with random cotangents."""

from __future__ import annotations

import itertools

import pytest
import torch

import rnnlstm.recurrence as recurrence

PAIRS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
]
SHAPES = list(itertools.product([1, 7], [1, 2, 3], [False, True], [False, True]))


def gradients(module, x, hx, cotangents):
    """Outputs, last states, and gradients for input, states and weights."""
    leaves = [x, *hx, *module.parameters()]
    given = (hx[0] if len(hx) == 1 else tuple(hx)) if hx else None
    outputs, last = module(x, given)
    results = [outputs, *([last] if isinstance(last, torch.Tensor) else last)]
    total = sum((r * c).sum() for r, c in zip(results, cotangents, strict=True))
    return results + list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize(("name", "options"), PAIRS)
@pytest.mark.parametrize(("steps", "layers", "bias", "batch_first"), SHAPES)
def test_equal_to_torch_nn(name, options, backend, steps, layers, bias, batch_first):
    torch.manual_seed(0)
    common = {
        "num_layers": layers,
        "bias": bias,
        "batch_first": batch_first,
        "dtype": torch.float64,
        **options,
    }
    theirs = getattr(torch.nn, name)(5, 4, **common)
    ours = getattr(recurrence, name)(5, 4, backend=backend, **common)
    ours.load_state_dict(theirs.state_dict())
    shape = (3, steps) if batch_first else (steps, 3)
    states = 2 if name == "LSTM" else 1
    for batched, given in itertools.product([True, False], [True, False]):
        x = torch.randn(*(shape if batched else (steps,)), 5, dtype=torch.float64, requires_grad=True)
        hx = [
            torch.randn(layers, *([3] if batched else []), 4, dtype=torch.float64, requires_grad=True)
            for _ in range(states if given else 0)
        ]
        out, last = theirs(x)
        cotangents = [torch.randn_like(t) for t in (out, *([last] if states == 1 else last))]
        for a, b in zip(gradients(ours, x, hx, cotangents), gradients(theirs, x, hx, cotangents), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), PAIRS)
def test_same_seed_gives_the_same_weights_as_torch_nn(name, options):
    torch.manual_seed(3)
    theirs = getattr(torch.nn, name)(5, 4, 2, **options)
    torch.manual_seed(3)
    ours = getattr(recurrence, name)(5, 4, 2, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    theirs.load_state_dict(ours.state_dict())
