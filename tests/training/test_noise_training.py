"""Noise in training: a function of seed and step alone, seen by no instrument."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from rnnlstm.cells import draw_masks, make_cell, noisy
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.jacobians import log10_bounds, products, step_jacobians
from rnnlstm.instruments.measurement import full_scalars
from rnnlstm.tasks.random_streams import RandomStream
from rnnlstm.training.evaluation import evaluate
from rnnlstm.training.step import Trainer

from support.training import plan_for

NOISE = ("model.recurrent_dropout=0.25", "model.zoneout=0.2")
SMALL = ("task.length=10", "model.hidden_size=6", "model.num_layers=2", "train.batch_size=4", "dtype=float64")
UPDATES = 6
P, Z = 0.4, 0.3


def trained(plan, seeds, between=lambda trainer: None):
    trainer = Trainer(plan, seeds)
    for step in range(1, UPDATES + 1):
        update = trainer.step(step)
        between(trainer)
    return update, trainer.model.parameters


def test_masks_have_their_rates_and_longer_ones_begin_like_shorter_ones():
    cell = noisy(make_cell("lstm"), P, Z)

    def masks_of(steps, seed=3, step=1):
        stream = RandomStream(seed, "noise", step)
        return draw_masks(cell, stream.uniform, steps=steps, sequences=8, hidden_size=16, num_layers=2)

    kept, dropped, size = 0.0, 0.0, 0
    for step in range(50):
        masks = masks_of(4, step=step)
        assert masks["zoneout_mask_l1"].shape == (4, 8, 32)
        for layer in range(2):
            drop, keep = masks[f"recurrent_dropout_mask_l{layer}"], masks[f"zoneout_mask_l{layer}"]
            assert drop.unique().tolist() == [0.0, pytest.approx(1 / (1 - P), rel=1e-7)]
            assert keep.unique().tolist() == [0.0, 1.0]
            kept, dropped, size = kept + keep.sum().item(), dropped + (drop == 0).sum().item(), size + drop.numel()
    for count, rate, n in ((dropped, P, size), (kept, Z, 8 * size)):
        assert abs(count / n - rate) < 4 * math.sqrt(rate * (1 - rate) / n)
    short, long = masks_of(6), masks_of(12)
    assert all(torch.equal(mask, long[key][:6] if "zoneout" in key else long[key]) for key, mask in short.items())
    assert not torch.equal(short["zoneout_mask_l0"], masks_of(6, seed=4)["zoneout_mask_l0"])
    assert not torch.equal(short["zoneout_mask_l0"], short["zoneout_mask_l1"])
    assert not torch.equal(short["zoneout_mask_l0"][0], short["zoneout_mask_l0"][1])


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru", "orthogonal"])
def test_three_seeds_in_lockstep_are_each_seed_alone(model):
    plan = plan_for(f"model={model}", *SMALL, *NOISE)
    together, stacked = trained(plan, [4, 5, 6])
    for r, seed in enumerate((4, 5, 6)):
        alone, weights = trained(plan, [seed])
        torch.testing.assert_close(together.losses[r], alone.losses[0], rtol=1e-10, atol=1e-10)
        for name, weight in weights.items():
            torch.testing.assert_close(stacked[name][r], weight[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("key", ["model.recurrent_dropout", "model.zoneout"])
def test_the_same_seed_gives_the_same_bits_and_noise_makes_a_difference(key):
    plan = plan_for("model=lstm", *SMALL, f"{key}=0.25")
    (first, weights), (_, again) = trained(plan, [0]), trained(plan, [0])
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    quiet, _ = trained(plan_for("model=lstm", *SMALL), [0])
    assert abs(first.losses[0] - quiet.losses[0]) > 1e-6
    # Every step draws again, and every seed its own.
    trainer = Trainer(plan, [0, 1])
    batches = trainer.step(1).batches
    one, two = trainer._noise_masks(1, batches), trainer._noise_masks(2, batches)
    for name in one[0]:
        assert not torch.equal(one[0][name], two[0][name])
        assert not torch.equal(one[0][name], one[1][name])


def test_looking_and_evaluating_change_nothing(train):
    """Not what is trained, and not what is seen when looking twice."""
    scores = []

    def look(trainer):
        scores.append([evaluate(functools.partial(trainer.model.one, 0), plan.task, 0, 20) for _ in range(2)])

    plan = plan_for("model=lstm", *SMALL, *NOISE)
    (_, watched), (_, unwatched) = trained(plan, [0, 1], look), trained(plan, [0, 1])
    assert all(torch.equal(watched[name], unwatched[name]) for name in watched)
    assert all(first == again for first, again in scores)

    steps = ("model=gru", *NOISE, "train.steps=4", "log.every=1", "overwrite=true", "seeds=2")
    weights = []
    for every in (1, 4):
        outcome = train(*steps, "probe=full", f"probe.every={every}", f"eval.every={every}")
        assert {summary["status"] for summary in outcome.summaries} == {"done"}
        weights.append(torch.load(outcome.folder / "seed_1" / "weights.pt", weights_only=True))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru", "lru", "lstm_coupled"])
def test_analyses_look_at_the_expectation(model):
    dropout = () if model == "lru" else NOISE[:1]
    plan = plan_for(f"model={model}", *SMALL, *dropout, "model.zoneout=0.4")
    network = plan.network(0)
    if model == "rnn":  # weights so small that a bound without z would be broken
        with torch.no_grad():
            for layer in range(2):
                network.recurrence.layer_weights(layer)["weight_hh"].mul_(0.1)
    subject = AnalysedNetwork.of(plan.task, network, plan.task.sample(0, 0, "probe", 4))
    values = full_scalars(subject)
    assert values["unit/saturated/layer_0"] >= 0
    for layer in range(2):
        jacobians = step_jacobians(subject, layer, 0)
        largest = products(jacobians).log10_singular_values()[:, 0]
        for bound in log10_bounds(subject, layer, 0, jacobians).values():
            assert (largest <= bound + 1e-9).all()
        retention = subject.cell.retention(subject.path.gates[layer])
        if "cell" in subject.cell.state_names:  # J's block ∂c_t/∂c_{t−1} is diag of z + (1 − z) f_t
            found = jacobians[:, 6:, 6:]
            torch.testing.assert_close(found, torch.diag_embed(retention[:, 0]), rtol=1e-12, atol=1e-14)
            assert retention.min() > 0.4


def test_unit_shares_are_of_what_the_cell_computes():
    """ReLU units that are dead stay dead in the mixture, and those that are not are flat wherever φ is."""
    plan = plan_for("model=rnn", "model.nonlinearity=relu", *SMALL[:1], "model.hidden_size=6", "model.zoneout=0.4")
    network = plan.network(0)
    with torch.no_grad():
        network.recurrence.bias_ih_l0[0] = -100.0
    subject = AnalysedNetwork.of(plan.task, network, plan.task.sample(0, 0, "probe", 4))
    values = full_scalars(subject)
    assert values["unit/dead"] >= 1 / 6
    hidden = subject.path.states[0]["hidden"]
    before = torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]])
    w = subject.weights(0)
    a = subject.path.inputs[0] @ w["weight_ih"].T + w["bias_ih"] + before @ w["weight_hh"].T + w["bias_hh"]
    assert values["unit/saturated"] == pytest.approx((a <= 0).double().mean().item())
