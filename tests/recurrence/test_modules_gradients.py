"""Gradients of the recurrences by other ways: finite differences, one matrix on [h, x], and dropout's draws."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import rnnlstm.recurrence as recurrence
from rnnlstm.cells import CELLS, make_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.recurrence import BACKENDS, Recurrence

from support.training import KINDS, has_backend

#: Every choice of every cell, one at a time: a new cell or choice is tested by being there.
CHOICES = [
    pytest.param(name, {field.name: choice}, id=f"{name}-{field.name}={choice}")
    for name in CELLS
    for field in dataclasses.fields(CELLS[name])
    for choice in field.metadata["choices"] or ()
]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("name", "options", "backend"), [
    pytest.param(
        name, options, backend, id=f"{choice.id}-{backend}", marks=() if name in KINDS else pytest.mark.slow
    )
    for choice in CHOICES
    for name, options in [choice.values]
    for backend in ("reference", "fused")
    # An initialisation changes the weights, not the equations: each cell's default is enough here.
    if has_backend(make_cell(name, **options), backend) and options.get("init", "default") == "default"
])  # fmt: skip
def test_gradients_agree_with_finite_differences(name, options, backend):
    torch.manual_seed(0)
    model = Recurrence(make_cell(name, **options), 2, 3, 2, backend=backend, max_lag=6, dtype=torch.float64)
    weights = dict(model.named_parameters())
    count = len(model.cell.state_names)

    def run(x, *rest):
        state, values = rest[:count], rest[count:]
        given = state if count > 1 else state[0]
        call = torch.func.functional_call(model, dict(zip(weights, values, strict=True)), (x, given))
        return call[0], *(call[1] if count > 1 else [call[1]])

    assert torch.autograd.gradcheck(run, (randn(3, 2, 2), *(randn(2, 2, 3) for _ in range(count)), *weights.values()))


@pytest.mark.parametrize("backend", [backend for backend in BACKENDS if backend != "reference"])
@pytest.mark.parametrize(("name", "options"), CHOICES)
def test_every_backend_gives_the_references_values_and_gradients(name, options, backend):
    cell, results = make_cell(name, **options), []
    if not has_backend(cell, backend):
        words = {"torch": f"PyTorch has no {name} cell", "fused": f"there is no fused {name} cell"}[backend]
        with pytest.raises(OptionError, match=f"backend={backend}: {words}"):
            Recurrence(cell, 3, 4, backend=backend, max_lag=6)
        return
    for computed_by in ("reference", backend):
        torch.manual_seed(0)
        model = Recurrence(cell, 3, 4, 2, backend=computed_by, max_lag=6, dtype=torch.float64)
        x = randn(6, 2, 3)
        outputs, last = model(x)
        states = [last] if isinstance(last, torch.Tensor) else list(last)
        total = sum((r * torch.randn_like(r)).sum() for r in (outputs, *states))
        results.append([outputs, *states, *torch.autograd.grad(total, [x, *model.parameters()])])
    for a, b in zip(*results, strict=True):
        close(a, b)


def rnn_on_one_matrix(phi, x, h, weight, bias):
    outputs = []
    for step in x:
        h = phi(torch.cat([h, step], -1) @ weight.T + bias)
        outputs.append(h)
    return torch.stack(outputs), (h,)


def lstm_on_one_matrix(x, h, c, weight, bias):
    H, outputs = h.shape[-1], []
    for step in x:
        a = torch.cat([h, step], -1) @ weight.T + bias
        i, f, o = (1 / (1 + torch.exp(-a[:, k * H : (k + 1) * H])) for k in (0, 1, 3))
        c = f * c + i * torch.tanh(a[:, 2 * H : 3 * H])
        h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs), (h, c)


@pytest.mark.parametrize(("name", "backend"), [
    *((name, own) for name in ("tanh", "relu", "sigmoid", "identity", "lstm") for own in ("reference", "auto")),
    *((name, "torch") for name in ("tanh", "relu", "lstm")),
])  # fmt: skip
def test_one_matrix_on_hidden_and_input_equals_the_two_matrices(name, backend):
    torch.manual_seed(0)
    if name == "lstm":
        ours = recurrence.LSTM(3, 4, backend=backend, dtype=torch.float64)
    else:
        ours = recurrence.RNN(3, 4, nonlinearity=name, backend=backend, dtype=torch.float64)
    x, states = randn(7, 2, 3), [randn(1, 2, 4) for _ in ours.cell.state_names]
    weight = torch.cat([ours.weight_hh_l0, ours.weight_ih_l0], 1).detach().requires_grad_()
    bias = (ours.bias_ih_l0 + ours.bias_hh_l0).detach().requires_grad_()
    start = [s.detach()[0].requires_grad_() for s in states]
    if name == "lstm":
        outputs, last = lstm_on_one_matrix(x, *start, weight, bias)
    else:
        phi = {"tanh": torch.tanh, "relu": lambda a: a.clamp(min=0), "identity": lambda a: a}
        phi["sigmoid"] = lambda a: 1 / (1 + torch.exp(-a))
        outputs, last = rnn_on_one_matrix(phi[name], x, *start, weight, bias)
    theirs = [outputs, *last]

    outputs, last = ours(x, tuple(states) if len(states) > 1 else states[0])
    results = [outputs, *(s[0] for s in (last if len(states) > 1 else [last]))]
    for a, b in zip(results, theirs, strict=True):
        close(a, b)
    cotangents = [torch.randn_like(r) for r in results]
    given_x, given_weight, given_bias, *given = torch.autograd.grad(theirs, [x, weight, bias, *start], cotangents)
    names = ("weight_hh", "weight_ih", "bias_hh", "bias_ih")
    leaves = [x, *(getattr(ours, f"{key}_l0") for key in names), *states]
    grad_x, grad_hh, grad_ih, grad_bias_hh, grad_bias_ih, *grads = torch.autograd.grad(results, leaves, cotangents)
    close(grad_x, given_x)
    close(torch.cat([grad_hh, grad_ih], 1), given_weight)
    close(grad_bias_hh, given_bias)
    close(grad_bias_ih, given_bias)
    for a, b in zip(grads, given, strict=True):
        close(a[0], b)


@pytest.mark.parametrize("backend", ["reference", "fused", "torch"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_dropout_in_training_draws_what_torch_nn_draws(name, batch_first, backend):
    options = {"num_layers": 3, "dropout": 0.4, "batch_first": batch_first, "dtype": torch.float64}
    theirs = getattr(torch.nn, name)(5, 4, **options)
    ours = getattr(recurrence, name)(5, 4, backend=backend, **options)
    ours.load_state_dict(theirs.state_dict())
    x, results = randn(6, 2, 5), []
    for model in (ours, theirs):
        torch.manual_seed(1)
        outputs = model(x)[0]
        results.append([outputs, *torch.autograd.grad(outputs.square().sum(), [x, *model.parameters()])])
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_dropout_is_between_layers_and_in_training_only(name):
    torch.manual_seed(0)
    plain = getattr(recurrence, name)(5, 4, 2)
    dropped = getattr(recurrence, name)(5, 4, 2, dropout=1.0)
    dropped.load_state_dict(plain.state_dict())
    x, other = torch.randn(6, 2, 5), torch.randn(6, 2, 5)
    # All of the first layer's output is lost: its own last state stays, the second layer sees zeros, and no more.
    outputs, last = dropped(x)
    first = (last if name == "RNN" else last[0])[0]
    expected = plain(x)[1]
    assert torch.equal(first, (expected if name == "RNN" else expected[0])[0])
    assert torch.equal(outputs, dropped(other)[0])
    assert outputs.abs().min() > 0
    dropped.eval()
    assert torch.equal(dropped(x)[0], plain(x)[0])
    with pytest.warns(UserWarning, match="dropout=1.0 has no effect"):
        single = getattr(recurrence, name)(5, 4, 1, dropout=1.0)
    outputs = single(x)[0]
    assert torch.equal(outputs, single.eval()(x)[0])
