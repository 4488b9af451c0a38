"""‖∂L/∂h_t‖ and ‖∂L/∂c_t‖ against a manual unroll with retained gradients, at each t separately."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import rnnlstm

MODULES = [
    ("RNN", {"nonlinearity": "tanh"}),
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"nonlinearity": "sigmoid"}),
    ("RNN", {"nonlinearity": "identity"}),
    ("LSTM", {"init": "chrono", "max_lag": 12}),
    ("GRU", {}),
]
WITH_BACKENDS = [
    (name, options, backend)
    for name, options in MODULES
    for backend in ("reference", "fused", "torch")
    if backend != "torch" or options.get("nonlinearity") not in ("sigmoid", "identity")
]
PHI = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda a: a}


def by_hand(module, x, loss_of):
    """(outputs, per state name (L, T) norms): written out here, with `retain_grad` on every state."""
    kept = []
    for layer in range(module.num_layers):
        w_ih, w_hh, b_ih, b_hh = (
            getattr(module, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = x.new_zeros(x.shape[1], module.hidden_size)
        states = []
        for x_t in x:
            a = F.linear(x_t, w_ih, b_ih) + F.linear(h, w_hh, b_hh)
            if isinstance(module, rnnlstm.GRU):
                (r_x, z_x, n_x), (r_h, z_h, n_h) = (
                    F.linear(x_t, w_ih, b_ih).chunk(3, -1),
                    F.linear(h, w_hh, b_hh).chunk(3, -1),
                )
                n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
                h = n + torch.sigmoid(z_x + z_h) * (h - n)
            elif isinstance(module, rnnlstm.LSTM):
                i, f, g, o = a.chunk(4, -1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                c.retain_grad()
            else:
                h = PHI[module.nonlinearity](a)
            h.retain_grad()
            states.append((h, c))
        kept.append(states)
        x = torch.stack([h for h, _ in states])
    loss_of(x).backward()
    names = ("hidden", "cell") if isinstance(module, rnnlstm.LSTM) else ("hidden",)
    return {
        name: torch.tensor([[s[k].grad.norm() if s[k].grad is not None else 0.0 for s in layer] for layer in kept])
        for k, name in enumerate(names)
    }


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("name", "options", "backend"), WITH_BACKENDS)
@pytest.mark.parametrize("scored", ["last", "all"])
def test_against_a_manual_unroll(name, options, backend, layers, scored):
    torch.manual_seed(0)
    module = getattr(rnnlstm, name)(5, 4, layers, backend=backend, dtype=torch.float64, **options)
    x = torch.randn(12, 3, 5, dtype=torch.float64)
    weights = torch.randn(12, 3, 4, dtype=torch.float64)
    if scored == "last":
        weights[:-1] = 0

    def loss_of(outputs):
        return (outputs * weights).square().sum() if scored == "all" else (outputs[-1] * weights[-1]).square().sum()

    with rnnlstm.record_gradients(module) as g:
        loss_of(module(x)[0]).backward()
    for state, reference in by_hand(module, x, loss_of).items():
        recorded = getattr(g, state)
        assert recorded.shape == (layers, 12)
        for t in range(12):
            error = (recorded[:, t] - reference[:, t]).abs().max()
            assert error <= 1e-10 * reference[:, t].abs().max()


def test_the_direct_part_alone_would_not_do():
    """The gradient of PyTorch's output is zero before the last step; the total one is not."""
    torch.manual_seed(0)
    module = rnnlstm.LSTM(5, 4, backend="torch")
    x = torch.randn(6, 3, 5)
    outputs, _ = module(x)
    outputs.retain_grad()
    outputs[-1].sum().backward()
    assert outputs.grad[:-1].abs().max() == 0
    with rnnlstm.record_gradients(module) as g:
        module(x)[0][-1].sum().backward()
    assert (g.hidden > 0).all()


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_recording_changes_neither_values_nor_gradients(name, backend):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {"r": getattr(rnnlstm, name)(5, 4, 2, backend=backend), "head": torch.nn.Linear(4, 1)}
    )
    x = torch.randn(6, 3, 5)

    def gradients():
        model.zero_grad()
        model["head"](model["r"](x)[0]).sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients()
    with rnnlstm.record_gradients(model) as g:
        recorded = gradients()
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert model["r"].trace is None
    assert g.hidden.shape == (2, 6)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="this one has 0"), rnnlstm.record_gradients(torch.nn.LSTM(2, 3)):
        pass
    two = torch.nn.ModuleList([rnnlstm.RNN(2, 3), rnnlstm.RNN(2, 3)])
    with pytest.raises(ValueError, match="this one has 2"), rnnlstm.record_gradients(two):
        pass
    with rnnlstm.record_gradients(two[0]) as g:
        pass
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        _ = g.hidden
    with pytest.raises(AttributeError, match="no cell state"):
        _ = g.cell
