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
    ("GRU", {}),
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


@pytest.mark.parametrize("backend", ["reference", "fused", "torch"])
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


@pytest.mark.parametrize("backend", ["reference", "fused", "torch"])
@pytest.mark.parametrize(("name", "options"), PAIRS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_strided_input_and_states_and_small_batches(name, options, backend, batch_first, batch):
    torch.manual_seed(0)
    common = {"num_layers": 2, "batch_first": batch_first, "dtype": torch.float64, **options}
    theirs = getattr(torch.nn, name)(5, 4, **common)
    ours = getattr(recurrence, name)(5, 4, backend=backend, **common)
    theirs.load_state_dict(ours.state_dict())
    shape = (batch, 6) if batch_first else (6, batch)
    # Every second entry along one axis, and another axis moved to the front: nothing lies as it is read.
    x = torch.randn(5, 2 * shape[0], shape[1], dtype=torch.float64).movedim(0, 2)[::2].requires_grad_()
    hx = [
        torch.randn(4, batch, 4, dtype=torch.float64).transpose(0, 2)[::2].requires_grad_()
        for _ in range(2 if name == "LSTM" else 1)
    ]
    assert batch == 0 or not (x.is_contiguous() or hx[0].is_contiguous())
    cotangents = [torch.randn(*shape, 4, dtype=torch.float64), *(torch.randn_like(h) for h in hx)]
    for a, b in zip(gradients(ours, x, hx, cotangents), gradients(theirs, x, hx, cotangents), strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("name", "options"), PAIRS)
def test_a_state_dict_loads_both_ways(name, options, bias, tmp_path):
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    classes = (getattr(recurrence, name), getattr(torch.nn, name))
    for source, target in (classes, classes[::-1]):
        giver, taker = (cls(5, 4, 2, bias=bias, dtype=torch.float64, **options) for cls in (source, target))
        assert not torch.equal(giver(x)[0], taker(x)[0])
        torch.save(giver.state_dict(), tmp_path / "weights.pt")
        assert str(taker.load_state_dict(torch.load(tmp_path / "weights.pt"))) == "<All keys matched successfully>"
        torch.testing.assert_close(giver(x)[0], taker(x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "fused", "torch"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_sequence_in_two_parts_is_the_whole(name, backend):
    model = getattr(recurrence, name)(5, 4, 2, backend=backend, dtype=torch.float64)
    x = torch.randn(9, 3, 5, dtype=torch.float64)
    whole, last = model(x)
    first, state = model(x[:4])
    second, end = model(x[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(end, last, rtol=1e-12, atol=1e-12)
