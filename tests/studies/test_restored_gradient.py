"""The tanh RNN's other backward passes: values and gradients against autograd in float64, and by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from rnnlstm.studies import loop, restored_gradient, studies
from rnnlstm.studies.backward_passes import GivenGradient, LastState, omega, omega_gradient, passed_back
from rnnlstm.studies.study import Row
from rnnlstm.training.step import Trainer

from support.training import plan_for

R, T, B, H = 2, 7, 3, 4
METHODS = {"plain": 0.0, "rescaled": 0.0, "misdirected": 0.0, "regularised": 3.0}


def tensors(gain=1.0):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return normal(R, T, B, H), gain * normal(R, H, H), normal(R, B, H)


def by_autograd(projected, w, g, rescale=False):
    """h_{T−1}, and the gradients of ⟨g, h_{T−1}⟩ with respect to projected, w and each h_t, by PyTorch. `rescale`: a
    hook gives each ∂L/∂h_t of a sequence the norm of its row of `g`."""
    projected, w = projected.clone().requires_grad_(), w.clone().requires_grad_()
    hs, h = [], torch.zeros(R, B, H, dtype=torch.float64)
    for t in range(T):
        h = torch.tanh(projected[:, t] + torch.einsum("rbj,rij->rbi", h, w))
        if rescale:
            h.register_hook(lambda d: d * g.norm(dim=-1, keepdim=True) / d.norm(dim=-1, keepdim=True))
        h.retain_grad()
        hs.append(h)
    (h * g).sum().backward()
    return h.detach(), projected.grad, w.grad, [h.detach() for h in hs], [h.grad for h in hs]


def ours(projected, w, g, method, weight=0.0):
    projected, w = projected.clone().requires_grad_(), w.clone().requires_grad_()
    h = LastState.apply(projected, w, method, weight)
    (h * g).sum().backward()
    return h.detach(), projected.grad, w.grad


def omega_of(w, hs, gs):
    """Ω as a function of W_hh alone, each term by the paper's equation, with h and ∂L/∂h constant."""
    terms = [
        ((gs[t] * (1 - hs[t] ** 2)) @ w).norm(dim=-1) / gs[t].norm(dim=-1) - 1 for t in range(1, T)
    ]  # each (R, B)
    return torch.stack(terms).square().mean((0, 2))


@pytest.mark.parametrize("gain", [0.1, 1.0])
@pytest.mark.parametrize("rescale", [False, True])
def test_gradients_are_those_of_autograd(gain, rescale):
    projected, w, g = tensors(gain)
    expected = by_autograd(projected, w, g, rescale)
    found = ours(projected, w, g, "rescaled" if rescale else "plain")
    for value, right in zip(found, expected, strict=False):
        torch.testing.assert_close(value, right, rtol=1e-10, atol=1e-14)


def test_a_rescaled_gradient_has_the_same_norm_at_every_step_and_the_plain_direction_at_the_last():
    projected, w, g = tensors(0.1)
    *_, plain = by_autograd(projected, w, g)
    *_, rescaled = by_autograd(projected, w, g, rescale=True)
    *_, hs, _ = by_autograd(projected, w, g)
    passed = passed_back(torch.stack(hs, 1), w, g)
    assert plain[0].norm() < 1e-4 * plain[-1].norm()
    for t in range(T):
        d = passed["units"][:, t] * passed["norms"][:, -1]
        torch.testing.assert_close(d, rescaled[t])
        torch.testing.assert_close(d.norm(dim=-1), g.norm(dim=-1))
        torch.testing.assert_close(passed["units"][:, t] * passed["norms"][:, t], plain[t], rtol=1e-9, atol=1e-14)


def test_a_misdirected_gradient_goes_back_from_the_last_step_in_the_next_sequence():
    projected, w, g = tensors(0.1)
    *_, hs, plain = by_autograd(projected, w, g)
    found = passed_back(torch.stack(hs, 1), w, g, misdirected=True)
    before = (plain[-2] / plain[-2].norm(dim=-1, keepdim=True)).roll(1, dims=1)
    torch.testing.assert_close(found["units"][:, -2], before)
    v = torch.einsum("rbi,rij->rbj", before * (1 - hs[-2] ** 2), w)
    torch.testing.assert_close(found["units"][:, -3], v / v.norm(dim=-1, keepdim=True))
    rescaled, misdirected = (ours(projected, w, g, method) for method in ("rescaled", "misdirected"))
    assert torch.equal(rescaled[1][:, -1], misdirected[1][:, -1])
    assert (rescaled[1][:, 0] - misdirected[1][:, 0]).abs().max() > 0.1


def test_the_regulariser_and_its_immediate_derivative():
    projected, w, g = tensors(0.7)
    *_, hs, gs = by_autograd(projected, w, g)
    passed = passed_back(torch.stack(hs, 1), w, g)
    torch.testing.assert_close(omega(passed), omega_of(w, hs, gs))
    leaf = w.clone().requires_grad_()
    omega_of(leaf, hs, gs).sum().backward()
    torch.testing.assert_close(omega_gradient(passed), leaf.grad)
    for r, i, j in ((0, 0, 0), (1, 2, 3)):  # finite differences
        step = torch.zeros_like(w)
        step[r, i, j] = 1e-6
        slope = (omega_of(w + step, hs, gs) - omega_of(w - step, hs, gs))[r] / 2e-6
        assert omega_gradient(passed)[r, i, j].item() == pytest.approx(slope.item(), rel=1e-7, abs=1e-9)
    plain, regularised = ours(projected, w, g, "plain"), ours(projected, w, g, "regularised", 3.0)
    torch.testing.assert_close(regularised[2] - plain[2], 3 * leaf.grad)
    assert torch.equal(regularised[1], plain[1])  # W_hh alone is regularised


def test_one_unit_by_hand():
    """h_0 = tanh 0.5, h_1 = tanh(0.3 + 2 h_0), g_1 = −4: g_0 = g_1 (1 − h_1²) 2; rescaled it is −4."""
    projected = torch.tensor([0.5, 0.3], dtype=torch.float64).view(1, 2, 1, 1)
    w, g = torch.full((1, 1, 1), 2.0, dtype=torch.float64), torch.full((1, 1, 1), -4.0, dtype=torch.float64)
    h0 = math.tanh(0.5)
    h1 = math.tanh(0.3 + 2 * h0)
    ratio, last = 2 * (1 - h1**2), -4 * (1 - h1**2)
    for method, first in (("plain", -4 * ratio), ("rescaled", -4.0)):
        _, d_projected, d_w = ours(projected, w, g, method)
        assert d_projected.flatten().tolist() == pytest.approx([first * (1 - h0**2), last])
        assert d_w.item() == pytest.approx(last * h0)
    _, _, d_w = ours(projected, w, g, "regularised", 3.0)
    assert d_w.item() == pytest.approx(last * h0 + 3 * 2 * (ratio - 1) * (1 - h1**2))


def test_a_direction_outlives_the_norm_and_saturation_ends_it():
    """In float32 the norm underflows to 0 behind 300 steps of slope 1/2; the direction does not. Behind tanh = 1
    exactly nothing is left, and nothing is NaN."""
    w = torch.full((1, 1, 1), 0.5)
    g = torch.ones(1, 1, 1)
    passed = passed_back(torch.zeros(1, 301, 1, 1), w, g)
    assert passed["norms"][0, 0].item() == 0
    assert passed["units"][0, 0].item() == 1
    assert omega(passed).item() == pytest.approx(0.25)
    hs = torch.zeros(1, 4, 1, 1)
    hs[:, 2] = 1
    passed = passed_back(hs, w, g)
    assert passed["units"].flatten().tolist() == [0, 0, 1, 1]
    assert omega(passed).item() == pytest.approx((0.25 + 1) / 2)  # t = 1 has no gradient, and does not count
    assert omega_gradient(passed).item() == pytest.approx(2 * -0.5 / 2)


def plan(*further):
    return plan_for("model=rnn", "task=keyword", "task.length=9", "dtype=float64", "seeds=2", *further)


@pytest.mark.parametrize("method", METHODS)
def test_the_forward_pass_is_the_projects(method):
    trainer = Trainer(plan(), [0, 1])
    batches = trainer.batches.take([trainer.plan.task] * 2, 1)
    inputs, scored = [batch.inputs for batch in batches], [batch.scored for batch in batches]
    other = GivenGradient(trainer.model, method, METHODS[method])
    for value, right in zip(other(inputs, None, scored), trainer.model(inputs, None, scored), strict=True):
        torch.testing.assert_close(value, right, rtol=1e-12, atol=1e-14)
    for r in range(2):
        assert torch.equal(other.one(r, inputs[r]), trainer.model.one(r, inputs[r]))


def test_plain_training_is_the_projects_and_the_others_are_not():
    losses = {}
    for method in (None, *METHODS):
        trainer = Trainer(plan(), [0, 1])
        if method is not None:
            trainer.model = GivenGradient(trainer.model, method, METHODS[method])
        losses[method] = torch.tensor([trainer.step(step).losses for step in range(1, 6)])
    torch.testing.assert_close(losses["plain"], losses[None], rtol=1e-10, atol=0)
    for method in ("rescaled", "misdirected", "regularised"):
        torch.testing.assert_close(losses[method][0], losses[None][0])  # before the first update
        assert (losses[method][-1] - losses[None][-1]).abs().min() > 1e-4


def test_other_networks_methods_and_losses_are_refused():
    trainer = Trainer(plan(), [0])
    with pytest.raises(ValueError, match="method must be one of"):
        GivenGradient(trainer.model, "double")
    for other in (["model.nonlinearity=relu"], ["model.num_layers=2"], ["model=lstm"]):
        with pytest.raises(ValueError, match="only the tanh RNN"):
            GivenGradient(Trainer(plan(*other), [0]).model, "plain")
    tokens, model = torch.zeros(9, 2, dtype=torch.int64), GivenGradient(trainer.model, "plain")
    for scored in (None, [torch.arange(2)]):
        with pytest.raises(ValueError, match="loss at the last step"):
            model([tokens], None, scored)


def test_rows_are_kept_and_read(tmp_path, monkeypatch):
    """An interrupt loses the row that was being trained, and no other."""
    study, asked = studies()["restored_gradient"], []

    def trained(size, length, rate, arm):
        asked.append((length, rate, arm))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return Row(*restored_gradient.names(length, rate, arm), seeds=[0], metric=[0.5])

    monkeypatch.setattr(restored_gradient, "trained", trained)
    with pytest.raises(KeyboardInterrupt):
        study.measured("quick", "T=12", tmp_path / "runs")
    assert len(json.loads((tmp_path / "runs" / loop.KEPT).read_text())) == 3
    rows = [row for name in study.settings("quick") for row in study.measured("quick", name, tmp_path / "runs")]
    expected = restored_gradient.conditions("quick")
    assert asked == [*expected[:4], *expected[3:]]
    assert [(row.setting, row.arm) for row in rows] == [restored_gradient.names(*at) for at in expected]
    asked.clear()
    assert study.measured("quick", "T=30", tmp_path / "runs") == [row for row in rows if row.setting == "T=30"]
    assert not asked


@pytest.mark.slow
def test_a_condition_is_trained(monkeypatch):
    monkeypatch.setitem(restored_gradient.SIZES, "quick", ((8, 12), 30, 2, ("eval.every=10", "eval.samples=64")))
    row = restored_gradient.trained("quick", 8, 1e-2, "gradient rescaled")
    assert (row.n, row.steps, row.hidden_size, row.rate) == (2, 30, 32, 1e-2)
    assert row.solved == [step is not None for step in row.steps_to_solve]
    assert all(0 <= value <= 1 for value in row.metric)
    assert set(row.scores) == {"log10_gradient_kept", "saturated"}
    assert row == restored_gradient.trained("quick", 8, 1e-2, "gradient rescaled")
