"""Every identity of the gradient flow in float64: each cell, one layer and two, fresh and trained weights."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch

from rnnlstm.cells import CELLS, make_cell
from rnnlstm.config.schema import Surgery
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.flow import flow, gain_map, gates_half_life
from rnnlstm.instruments.jacobians import (
    cell_path,
    influence,
    jacobians_along,
    log10_bounds,
    lyapunov_spectrum,
    products,
    step_jacobians,
)
from rnnlstm.instruments.measurement import full_scalars, measure, unit_shares
from rnnlstm.instruments.probe import mean_by_kind, rows_by_lag
from rnnlstm.instruments.surgery_table import operate
from rnnlstm.instruments.weight_gradient import weight_gradients
from rnnlstm.record.glossary import explain
from rnnlstm.training.step import Trainer

from support.training import KINDS as CELL_KINDS
from support.training import plan_for

SMALL = ("task.length=12", "model.hidden_size=6", "model.embedding_size=4", "train.batch_size=5", "dtype=float64")
RNNS = [
    ("rnn", f"model.nonlinearity={n}") for n in ("relu", "sigmoid", "identity", "centred_sigmoid", "steep_sigmoid")
]
SETTINGS = [*((name, "seed=0") for name in CELLS), *RNNS]


@functools.cache  # nothing below changes a subject
def subject_for(model: str, *overrides: str, layers: int = 1, updates: int = 0) -> AnalysedNetwork:
    plan = plan_for(*SMALL, f"model={model}", f"model.num_layers={layers}", *overrides)
    trainer = Trainer(plan, [0])
    for step in range(1, updates + 1):
        trainer.step(step)
    network = plan.network(0)
    network.load_state_dict({name: w.detach() for name, w in trainer.model.weights(0).items()})
    return AnalysedNetwork.of(plan.task, network, plan.task.sample(0, 0, "probe", 5))


#: Fresh and trained, one layer and two; of the rest of the zoo the two ends.
KINDS = {"fresh": (1, 0), "trained-2": (2, 8), "fresh-2": (2, 0), "trained": (1, 8)}
SUBJECTS = [
    pytest.param(
        (setting, *how),
        id=f"{kind}-{'-'.join(setting)}",
        marks=() if setting[0] in CELL_KINDS else pytest.mark.slow,
    )
    for setting in SETTINGS
    for kind, how in KINDS.items()
    if setting[0] in ("rnn", "lstm", "lstm_1997", "gru") or kind in ("fresh", "trained-2")
]


@pytest.fixture(params=SUBJECTS)
def subject(request):
    setting, layers, updates = request.param
    return subject_for(*setting, layers=layers, updates=updates)


@pytest.fixture(params=SETTINGS, ids=["-".join(s) for s in SETTINGS])
def setting(request):
    return request.param


def close(found, expected, tolerance=1e-10):
    scale = expected.abs().max().clamp(min=1e-300)
    assert (found - expected).abs().max() <= tolerance * scale


def test_the_weight_gradient_by_step_and_by_lag_adds_up_to_autograds(subject):
    for everywhere in (False, True):
        for found in weight_gradients(subject, everywhere):
            close(found.by_step.sum(0), found.whole)
            close(found.by_lag.sum(0), found.whole)
            assert found.share[-1] == pytest.approx(1, abs=1e-10)
            assert found.error < 1e-10


def test_truncated_at_k_the_weight_gradient_is_that_of_truncated_backpropagation(setting):
    subject = subject_for(*setting)
    (found,) = weight_gradients(subject)
    for k in (1, 3, 7):
        truncated = AnalysedNetwork(subject.task, operate(subject.network, Surgery(truncate=k)), subject.batch)
        (whole,) = (w.whole for w in weight_gradients(truncated))
        close(found.by_lag[:k].sum(0), whole)


def test_every_scored_position_counts_with_its_own_lag():
    """Copy memory scores all positions: a pass for each, against the gradient cut off by hand."""
    subject = subject_for("lstm", "task=copy", "task.length=3")
    (found,) = weight_gradients(subject, everywhere=True)
    assert subject.batch.mask.all()
    close(found.by_lag.sum(0), found.whole)
    # Lag 0 alone: every state but the present one is cut off.
    cut = AnalysedNetwork(subject.task, operate(subject.network, Surgery(truncate=1)), subject.batch)
    (whole,) = (w.whole for w in weight_gradients(cut, everywhere=True))
    close(found.by_lag[0], whole)


def test_jacobians_are_autograds(subject):
    for layer in range(subject.layers):
        jacobians = step_jacobians(subject, layer, 1)
        cell, w = subject.cell, subject.cell.prepare(subject.weights(layer))
        inputs = subject.path.inputs[layer][:, 1]
        states = torch.cat([subject.path.states[layer][name][:, 1] for name in cell.state_names], 1)
        T = len(inputs)

        def through(state, first, cell=cell, w=w, inputs=inputs, T=T):
            parts = tuple(s[None] for s in state.chunk(len(cell.state_names)))
            for t in range(first, T):
                parts, _ = cell.step(cell.project(inputs[t : t + 1], w), parts, w)
            return torch.cat([s[0] for s in parts])

        found = products(jacobians)
        for k in (1, 5, T - 1):
            expected = torch.autograd.functional.jacobian(lambda s, first=T - k: through(s, first), states[T - k - 1])
            close(found.matrices[k] * found.log_norms[k].exp(), expected)
            sigma = torch.linalg.svdvals(expected)
            close(10 ** found.log10_singular_values([k])[0, :1], sigma[:1])


def test_the_bounds_are_never_broken(subject):
    for layer in range(subject.layers):
        for sequence in range(3):
            jacobians = step_jacobians(subject, layer, sequence)
            largest = products(jacobians).log10_singular_values()[:, 0]
            bounds = log10_bounds(subject, layer, sequence, jacobians)
            assert set(bounds) == ({"steps", "weights"} if subject.cell.name == "rnn" else {"steps"})
            for bound in bounds.values():
                assert (largest <= bound + 1e-9).all()
            if "weights" in bounds:
                assert (bounds["steps"] <= bounds["weights"] + 1e-9).all()
                sigma = torch.linalg.matrix_norm(subject.weights(layer)["weight_hh"], 2)
                loosest = torch.arange(len(largest)) * (subject.cell.steepest * sigma).log10()
                assert (bounds["weights"] <= loosest + 1e-9).all()


@pytest.mark.parametrize("model", ["lstm", "lstm_1997"])
@pytest.mark.parametrize("updates", [0, 8])
def test_the_cells_own_path_is_the_product_of_forget_gates(model, updates):
    subject = subject_for(model, updates=updates)
    retention = subject.cell.retention(subject.path.gates[0])[:, 0]
    jacobians, H = step_jacobians(subject, 0, 0), 6
    close(jacobians[:, H:, H:], torch.diag_embed(retention), 1e-14)
    found = products(jacobians)
    path = cell_path(jacobians, found, retention)
    for k in range(len(retention) + 1):
        full = (found.matrices[k] * found.log_norms[k].exp())[H:, H:]
        along = torch.diag(retention[len(retention) - k :].prod(0))
        assert 10 ** path.along[k] == pytest.approx(along.norm().item(), rel=1e-10)
        assert 10 ** path.full[k] == pytest.approx(full.norm().item(), rel=1e-10)
        assert 10 ** path.rest[k] == pytest.approx((full - along).norm().item(), rel=1e-6, abs=1e-12)
    # With h cut off from gates and candidate, that product is all there is.
    cut = operate(subject.network, Surgery(detach=True))
    w, cell = subject.weights(0), cut.recurrence.cell
    state = (torch.zeros(1, H, dtype=torch.float64), torch.zeros(1, H, dtype=torch.float64, requires_grad=True))
    start = state[1]
    for x in subject.path.inputs[0][:, 0]:
        state, _ = cell.step(cell.project(x[None], w), state, w)
    rows = [torch.autograd.grad(state[1][0, i], start, retain_graph=True)[0][0] for i in range(H)]
    close(torch.stack(rows), torch.diag(retention.prod(0)))


def test_lyapunov_exponents_of_what_is_known():
    T, N = 40, 7
    orthogonal = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64))[0]
    assert lyapunov_spectrum(orthogonal.expand(T, N, N)).abs().max() < 1e-12
    for a in (0.3, 1.0, 1.7):
        found = lyapunov_spectrum((a * torch.eye(N, dtype=torch.float64)).expand(T, N, N))
        assert (found - math.log(a)).abs().max() < 1e-12
    diagonal = torch.diag(torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64))
    found = lyapunov_spectrum(diagonal.expand(4000, 3, 3), skip=2000)
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64).log(), rtol=0, atol=1e-9)
    assert lyapunov_spectrum(torch.zeros(3, 2, 2).double()).isneginf().all()


def test_lyapunov_exponents_add_up_to_the_determinants(subject):
    """Σ λ_i = mean ln |det J_t|, for the LSTM on (h, c)."""
    jacobians = step_jacobians(subject, 0, 0)
    found = lyapunov_spectrum(jacobians)
    assert len(found) == 6 * len(subject.cell.state_names)
    expected = torch.linalg.slogdet(jacobians).logabsdet.mean()
    if expected > -20:  # else some Jacobian is singular to rounding
        assert found.sum().item() == pytest.approx(expected.item(), rel=1e-8, abs=1e-12)


def test_an_orthogonal_linear_network_neither_vanishes_nor_explodes():
    subject = subject_for("rnn", "model.nonlinearity=identity", "model.init=orthogonal")
    assert lyapunov_spectrum(step_jacobians(subject, 0, 0)).abs().max() < 1e-12
    assert flow(subject).half_life("hidden", 0)[0] == math.inf or flow(subject).half_life("hidden", 0)[0] > 1e9
    scaled = subject_for("rnn", "model.nonlinearity=identity", "model.init=orthogonal", "model.gain=0.9")
    close(lyapunov_spectrum(step_jacobians(scaled, 0, 0)), torch.full((6,), math.log(0.9), dtype=torch.float64))
    assert flow(scaled).half_life("hidden", 0)[0] == pytest.approx(math.log(2) / -math.log(0.9))


def test_direct_and_total_gradients_against_autograd(subject):
    """Direct: the gradient for a layer's stacked outputs. Total: that for each state, by a graph made by hand."""
    for batch in (subject.at_last, subject.batch):
        found = flow(subject, batch)
        x, kept, outputs_of = subject.network.embed(batch.inputs), [], []
        for layer in range(subject.layers):
            w, cell = subject.cell.prepare(subject.weights(layer)), subject.cell
            state = tuple(torch.zeros(5, 6, dtype=torch.float64) for _ in cell.state_names)
            hidden = []
            for projected in cell.project(x, w):
                state, _ = cell.step(projected, state, w)
                for s in state:
                    if s.requires_grad:
                        s.retain_grad()
                hidden.append(state)
            kept.append(hidden)
            x = torch.stack([s[0] for s in hidden])
            x.retain_grad()
            outputs_of.append(x)
        subject.task.loss(subject.network.readout(x), batch).backward()
        subject.network.zero_grad()
        for layer in range(subject.layers):
            direct = outputs_of[layer].grad.square().sum((1, 2)).sqrt().flip(0)
            close(found.direct[layer], direct)
            for k, name in enumerate(subject.cell.state_names):
                grads = [s[k].grad if s[k].grad is not None else torch.zeros(5, 6) for s in kept[layer]]
                close(found.total[name][layer], torch.stack(grads).double().square().sum((1, 2)).sqrt().flip(0))


def test_of_a_loss_at_the_last_step_only_the_last_step_is_direct():
    found = flow(subject_for("lstm"))
    assert found.direct[0, 0] > 0
    assert (found.direct[0, 1:] == 0).all()
    torch.testing.assert_close(found.direct[0, 0], found.total["hidden"][0, 0])
    rows = rows_by_lag(found.rows["hidden"], found.mask)[0]
    torch.testing.assert_close(rows.sum(1).sqrt(), found.total["hidden"][0])
    half_life, low, high = found.half_life("hidden", 0)
    assert low <= half_life <= high


def test_what_the_gates_imply_is_the_decay_of_a_cell_with_constant_gates():
    subject = subject_for("lstm")
    with torch.no_grad():
        recurrence = subject.network.recurrence
        for name, w in recurrence.layer_weights(0).items():
            w.zero_()
            if name == "bias_ih":
                w[6:12] = 2.0
    f = 1 / (1 + math.exp(-2.0))
    assert gates_half_life(subject, 0) == pytest.approx((math.log(2) / -math.log(f),) * 3)
    assert flow(subject).half_life("cell", 0)[0] == pytest.approx(math.log(2) / -math.log(f), rel=1e-6)
    assert gates_half_life(subject_for("lstm_1997"), 0)[0] == math.inf
    assert gates_half_life(subject_for("rnn"), 0) is None


def test_influence_is_a_difference_quotient(setting):
    """‖∂answer/∂x_t‖ against the change of the answer along the gradient itself."""
    subject = subject_for(*setting, updates=4)
    values = influence(subject)
    x, batch, step = subject.network.embed(subject.batch.inputs).detach(), subject.at_last, 1e-6

    def answer(x):
        with torch.no_grad():
            return subject.network.answer(x)[batch.mask].gather(1, batch.targets[batch.mask][:, None])[:, 0]

    for t in (0, 6, 11):
        slopes = []
        for feature in range(x.shape[2]):
            nudge = torch.zeros_like(x)
            nudge[t, :, feature] = step
            slopes.append((answer(x + nudge) - answer(x - nudge)) / (2 * step))
        torch.testing.assert_close(values[t], torch.stack(slopes).norm(dim=0), rtol=1e-5, atol=1e-9)
    kinds = mean_by_kind(values, batch.kinds, subject.task.kind_names)
    assert kinds["trigger"] == pytest.approx(values[-1].mean().item())
    assert kinds["keyword"] == pytest.approx(values[0].mean().item())
    assert mean_by_kind(values, None, ()) == {}


def test_an_untrained_rnns_influence_depends_on_distance_alone():
    subject = subject_for("rnn", "task.length=60", "model.hidden_size=32")
    values = influence(subject).log10()
    by_distance = values.mean(1)
    spread_at_a_distance = (values - by_distance[:, None]).std()
    assert spread_at_a_distance < 0.1 * by_distance.std()


def test_units_dead_and_saturated():
    subject = subject_for("rnn", "model.nonlinearity=relu")
    with torch.no_grad():
        weights = subject.network.recurrence.layer_weights(0)
        weights["bias_ih"][:2] = -100.0
    assert unit_shares(subject, 0)["dead"] == pytest.approx(2 / 6)
    for nonlinearity, high in (("tanh", 10.0), ("sigmoid", 10.0), ("steep_sigmoid", 5.0), ("centred_sigmoid", 20.0),
                               ("centred_steep_sigmoid", 5.0), ("wide_steep_sigmoid", 5.0)):  # fmt: skip
        subject = subject_for("rnn", f"model.nonlinearity={nonlinearity}")
        with torch.no_grad():
            subject.network.recurrence.layer_weights(0)["bias_ih"][:3] = high
        assert 0.5 <= unit_shares(subject, 0)["saturated"] < 0.9


def test_the_gain_map_of_a_linear_network_is_known():
    task = plan_for("task.length=10").task
    gains, lengths = (0.8, 1.0, 1.25), (5, 9)
    found = gain_map(task, "identity", 8, 0, gains, lengths)
    expected = torch.tensor([[(n - 1) * math.log10(g) for n in lengths] for g in gains], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # drawn in float32
    assert (gain_map(task, "tanh", 8, 0, gains, lengths) < found).all()


@pytest.mark.slow
def test_a_measurement_and_the_full_probe_agree_and_every_tag_is_in_the_glossary(subject):
    measured = measure("it", subject)
    scalars = full_scalars(subject)
    several = subject.layers > 1
    for m in measured:
        numbers, suffix = m.numbers(), f"/layer_{m.layer}" if several else ""
        assert m.bound_holds()
        assert scalars[f"lyapunov/largest{suffix}"] == pytest.approx(numbers["lyapunov_largest"])
        assert scalars[f"weight_gradient/share_last_10{suffix}"] == pytest.approx(numbers["weight_share_last_10"])
        assert scalars[f"jacobian/norm_lag_10{suffix}"] == pytest.approx(numbers["log10_jacobian_norm_lag_10"])
        assert scalars["influence/keyword"] == pytest.approx(numbers["influence_keyword"])
    assert all(explain(tag) for tag in scalars)


def test_measuring_leaves_the_network_as_it_was():
    subject = subject_for("lstm", layers=2)
    before = {name: w.clone() for name, w in subject.network.state_dict().items()}
    random = torch.get_rng_state()
    measure("it", subject)
    assert all(torch.equal(before[name], w) for name, w in subject.network.state_dict().items())
    assert all(w.grad is None for w in subject.network.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_sequences_that_end_at_different_steps_keep_their_own_lags():
    subject = subject_for("lstm")
    mask = torch.zeros_like(subject.batch.mask)
    mask[[11, 9, 11, 6, 9], range(5)] = True
    targets = torch.zeros_like(subject.batch.targets)
    uneven = AnalysedNetwork(
        subject.task, subject.network, dataclasses.replace(subject.batch, mask=mask, targets=targets)
    )
    (found,) = weight_gradients(uneven)
    close(found.by_lag.sum(0), found.whole)
    assert found.by_lag[11].norm() > 0  # only those that end at step 11 reach so far


def test_step_jacobians_of_a_cell_of_ones_own():
    cell = make_cell("rnn", nonlinearity="identity")
    w = {"weight_ih": torch.zeros(2, 1).double(), "weight_hh": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()}
    found = jacobians_along(cell, w, torch.zeros(3, 1).double(), torch.zeros(3, 2).double())
    torch.testing.assert_close(found, w["weight_hh"].expand(3, 2, 2))
