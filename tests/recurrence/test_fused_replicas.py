"""Replicas as one leading dimension: tokens through a table, outputs at scored places alone, many live graphs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rnnlstm.cells import make_cell
from rnnlstm.recurrence.fused import engine, fused_replicas, native, portable
from rnnlstm.recurrence.fused.build import load_kernel
from rnnlstm.recurrence.fused.kinds import kind_of
from rnnlstm.recurrence.modules import reference_layer

needs_kernel = pytest.mark.skipif(load_kernel(torch.float64) is None, reason="no C compiler: only the portable loops")
ENGINES = [pytest.param(native, marks=needs_kernel, id="native"), pytest.param(portable, id="portable")]
CELLS = [
    ("rnn", {}), ("rnn", {"nonlinearity": "relu"}), ("rnn", {"nonlinearity": "centred_sigmoid"}), ("linear", {}),
    ("lstm", {}), ("lstm_1997", {}), ("gru", {}),
]  # fmt: skip
R, E, H = 3, 5, 7


@pytest.fixture(params=ENGINES)
def chosen(request, monkeypatch):
    monkeypatch.setattr("rnnlstm.recurrence.fused.function.engine_for", lambda *_: request.param)
    return request.param


def drawn(cell, layers, features, dtype=torch.float64):
    """Weights of each layer with R as their first dimension."""
    shapes = [cell.parameter_shapes(features if k == 0 else H, H, True) for k in range(layers)]
    return [
        {name: (0.5 * torch.randn(R, *shape, dtype=dtype)).requires_grad_() for name, shape in each.items()}
        for each in shapes
    ]


def one_by_one(cell, layers, x):
    """The reference's outputs (R, T, B, H) from inputs (R, T, B, I)."""
    each = []
    for r, inputs in enumerate(x):
        for w in layers:
            state = tuple(inputs.new_zeros(inputs.shape[1], H) for _ in cell.state_names)
            inputs, _ = reference_layer(cell, inputs, state, {name: weight[r] for name, weight in w.items()})
        each.append(inputs)
    return torch.stack(each)


def same(ours, theirs, weights):
    """Values, and gradients for all weights."""
    cotangent = torch.randn_like(ours)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    found = [torch.autograd.grad((out * cotangent).sum(), weights, retain_graph=True) for out in (ours, theirs)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("vocabulary", [1, 4, 50], ids=lambda v: f"{v}tokens")
@pytest.mark.parametrize(("name", "options"), CELLS)
def test_tokens_and_scored_places_equal_the_detour_over_embedding_and_all_outputs(
    chosen, name, options, vocabulary, layers
):
    """50 tokens are more than half of T·B: then the embedding is looked up as usual."""
    torch.manual_seed(0)
    cell, T, B = make_cell(name, **options), 6, 5
    weights = drawn(cell, layers, E)
    embedding = torch.randn(R, vocabulary, E, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(vocabulary, (R, T, B))
    scored = torch.stack([torch.randperm(T * B)[:4] for _ in range(R)])
    every = [embedding, *(weight for each in weights for weight in each.values())]

    detour = one_by_one(
        cell, weights, torch.stack([F.embedding(t, e) for t, e in zip(tokens, embedding, strict=True)])
    )
    same(fused_replicas(cell, weights, tokens, embedding), detour, every)
    picked = torch.stack([out.flatten(0, 1)[places] for out, places in zip(detour, scored, strict=True)])
    same(fused_replicas(cell, weights, tokens, embedding, scored), picked, every)


@pytest.mark.parametrize(("name", "options"), CELLS)
def test_numbers_as_inputs_and_a_place_below_zero(chosen, name, options):
    torch.manual_seed(1)
    cell, T, B = make_cell(name, **options), 9, 33  # more than one slice, of unequal sizes
    weights = drawn(cell, 1, 2)
    x = torch.randn(R, T, B, 2, dtype=torch.float64)
    every = list(weights[0].values())
    scored = torch.stack([torch.randperm(T * B)[:40] for _ in range(R)])
    scored[1, 30:] = -1
    theirs = one_by_one(cell, weights, x)
    ours = fused_replicas(cell, weights, x, None, scored)
    picked = [out.flatten(0, 1)[places[places >= 0]] for out, places in zip(theirs, scored, strict=True)]
    torch.testing.assert_close(torch.cat([*(ours[r, : len(p)] for r, p in enumerate(picked))]), torch.cat(picked))
    # A gradient at a place below 0 reaches nothing.
    cotangent = torch.randn_like(ours)
    found = torch.autograd.grad((ours * cotangent).sum(), every)
    loss = sum((p * cotangent[r, : len(p)]).sum() for r, p in enumerate(picked))
    for a, b in zip(found, torch.autograd.grad(loss, every), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def kernel_call(tokens=(0, 1, 2), scored=(0, 2), T=3, V=3):
    """One LSTM of one sequence by the kernel, whose loss is the sum of what is scored."""
    cell = make_cell("lstm")
    torch.manual_seed(0)
    weights = {
        name: torch.randn(1, *shape).requires_grad_() for name, shape in cell.parameter_shapes(E, H, True).items()
    }
    embedding = torch.randn(1, V, E)
    filler = torch.zeros(1, 20, 1, dtype=torch.int64)  # V rows are then few for T·B
    given = torch.cat([torch.tensor(tokens, dtype=torch.int64).view(1, T, 1), filler], 1)
    out = fused_replicas(cell, [weights], given, embedding, torch.tensor([scored], dtype=torch.int64))
    out.sum().backward()


@needs_kernel
@pytest.mark.parametrize("token", [-1, 3, 2**40, -(2**62)])
def test_a_token_outside_the_table_is_refused(token):
    kernel_call()
    with pytest.raises(IndexError, match="a token number is outside the table"):
        kernel_call(tokens=(0, token, 1))


@needs_kernel
@pytest.mark.parametrize(("scored", "words"), [((0, 23), "index out of range"), ((0, 2**40), "index out of range"),
                                              ((5, 5), "a position is scored twice")])  # fmt: skip
def test_places_outside_the_outputs_and_twice_the_same_are_refused(scored, words):
    with pytest.raises(IndexError, match=words):
        kernel_call(scored=scored)


@needs_kernel
def test_the_kernel_itself_checks_the_places():
    cell, x = make_cell("rnn"), torch.randn(1, 4, 2, 3)
    w_x, w_h, zero = torch.randn(1, H, 3), torch.randn(1, H, H), torch.zeros(1, 2, H)
    kind = kind_of(cell)
    out, gates, cells = native.forward(kind, None, None, x, w_x, w_h, torch.zeros(1, 1, H), zero, zero)
    for place in (8, 2**40):
        scored = torch.tensor([[0, place]])
        with pytest.raises(IndexError, match="a scored position is outside the outputs"):
            native.backward(kind, None, scored, None, 1, x, w_x, w_h, zero, zero, out, gates, cells,
                            torch.randn(1, 2, H), None, True)  # fmt: skip


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_two_live_graphs_of_one_shape_share_nothing(name):
    torch.manual_seed(2)
    cell = make_cell(name)
    weights, x = [drawn(cell, 1, 2) for _ in range(2)], torch.randn(2, R, 30, 40, 2, dtype=torch.float64)
    expected = []
    for w, each in zip(weights, x, strict=True):
        fused_replicas(cell, w, each).square().sum().backward()
        expected.append([weight.grad.clone() for weight in w[0].values()])
        for weight in w[0].values():
            weight.grad = None
    first, second = (fused_replicas(cell, w, each) for w, each in zip(weights, x, strict=True))
    second.square().sum().backward()
    first.square().sum().backward()
    for w, gradients in zip(weights, expected, strict=True):
        assert all(torch.equal(weight.grad, g) for weight, g in zip(w[0].values(), gradients, strict=True))


@needs_kernel
def test_a_larger_call_and_a_smaller_one_use_one_workspace():
    cell = make_cell("lstm")
    torch.manual_seed(3)
    weights = drawn(cell, 1, 2)
    results = []
    for T, B in ((3, 4), (200, 50), (3, 4)):
        x = torch.ones(R, T, B, 2, dtype=torch.float64)
        for weight in weights[0].values():
            weight.grad = None
        fused_replicas(cell, weights, x).sum().backward()
        results.append([weight.grad.clone() for weight in weights[0].values()])
    largest = native._SCRATCH.memory
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))
    fused_replicas(cell, weights, torch.ones(R, 100, 50, 2, dtype=torch.float64)).sum().backward()
    assert native._SCRATCH.memory is largest


def test_the_engine_puts_activations_in_order_for_any_number_of_slices():
    for B in (1, 5, 33, 50, 100):
        cell = make_cell("lstm")
        x = torch.randn(2, 4, B, 3, dtype=torch.float64)
        torch.manual_seed(B)
        w_x, w_h, table = (torch.randn(2, 4 * H, n, dtype=torch.float64) for n in (3, H, 1))
        zero = torch.zeros(2, B, H, dtype=torch.float64)
        kind = kind_of(cell)
        given = (kind, None, None, x, w_x, w_h, table.mT.contiguous(), zero, zero)
        in_order = [
            engine.activations(kind, None, found.forward(*given)[1], B, H)
            for found in ((native, portable) if native.available(x.dtype) else (portable,))
        ]
        torch.testing.assert_close(in_order[0], in_order[-1], rtol=1e-12, atol=1e-12)
