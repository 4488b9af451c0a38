"""Parts of the network of 1997: values and gradients by hand, and when a cell is added."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from rnnlstm.studies import lag_parts, loop
from rnnlstm.studies.lag_network import STILL_FALLS, WINDOW, Growth, LagNetwork, SquaredLongLag, with_squared_error
from rnnlstm.training.step import Trainer

SMALL = ("task=long_lag", "task.length=6", "model=lstm_1997", "model.hidden_size=4", "model.embedding_size=3")
RUN = ("train.batch_size=4", "eval.samples=16", "probe=off", "device=cpu", "threads=1", "seeds=2")


def plan(*further):
    return loop.plan_of(*SMALL, *RUN, *further)


def grown(at=None):
    growth = Growth(2)
    growth.added_at = [at, at]
    return growth


def trainer_with(direct, growth, *further):
    trainer = Trainer(plan(*further), [0, 1])
    trainer.model = LagNetwork(trainer.model, direct, growth)
    return trainer


@pytest.mark.parametrize("at", [None, 3])
@pytest.mark.parametrize("direct", [False, True])
def test_outputs_and_gradients_by_the_equation(at, direct):
    trainer = trainer_with(direct, grown(at))
    plain = Trainer(plan(), [0, 1]).model
    tokens = [trainer.plan.task.sample(seed, 1, batch_size=5).inputs for seed in (0, 1)]
    if direct:
        with torch.no_grad():
            trainer.model.parameters["direct.weight"].normal_(generator=torch.Generator().manual_seed(1))
    outputs = trainer.model(tokens)
    for r, (out, x) in enumerate(zip(outputs, tokens, strict=True)):
        weights = trainer.model.weights(r)
        expected = plain.one(r, x) if at else weights["readout.bias"].expand(*x.shape, -1)
        if direct:
            one_hot = torch.nn.functional.one_hot(x, trainer.plan.task.num_tokens).to(out.dtype)
            expected = expected + one_hot @ weights["direct.weight"]
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(trainer.model.one(r, x), expected)
        places = torch.tensor([0, 7, 29])
        torch.testing.assert_close(trainer.model.one(r, x, places), expected.flatten(0, 1)[places])
    torch.stack(outputs).square().sum().backward()
    for name, weight in trainer.model.parameters.items():
        seen = bool((weight.grad != 0).any())
        assert seen == (at is not None or name in ("readout.bias", "direct.weight")), name


def test_before_it_is_added_the_cell_does_not_move_and_after_it_learns():
    growth = grown()
    trainer = trainer_with(False, growth)
    before = {name: weight.detach().clone() for name, weight in trainer.model.parameters.items()}
    trainer.step(1)
    moved = [name for name, weight in trainer.model.parameters.items() if not torch.equal(weight, before[name])]
    assert moved == ["readout.bias"]
    growth.added_at = [1, None]
    trainer.step(2)
    weight, old = trainer.model.parameters["recurrence.weight_hh_l0"], before["recurrence.weight_hh_l0"]
    assert not torch.equal(weight[0], old[0])
    assert torch.equal(weight[1], old[1])


def test_a_direct_connection_starts_at_nothing():
    trainer, plain = trainer_with(True, None), Trainer(plan(), [0, 1])
    tokens = [trainer.plan.task.sample(seed, 1, batch_size=5).inputs for seed in (0, 1)]
    for ours, theirs in zip(trainer.model(tokens), plain.model(tokens), strict=True):
        assert torch.equal(ours, theirs)


def test_a_cell_is_added_when_the_loss_stops_falling():
    growth = Growth(2)
    for step in range(1, 4 * WINDOW + 1):
        window = (step - 1) // WINDOW
        falling, stalled = 0.5**window, 1 - (1 - STILL_FALLS) * min(window, 2) * 1.1
        growth.watch(None, SimpleNamespace(step=step, losses=[falling, stalled]))
    assert growth.added_at == [None, 4 * WINDOW]  # it fell by 1.1 % twice, then not at all


@pytest.mark.parametrize("variant", ["2a", "2b"])
def test_the_squared_error_its_baseline_and_its_criterion(variant):
    task = SquaredLongLag(length=6, variant=variant)
    batch = task.sample(0, 0, batch_size=4000)
    p = torch.zeros(6, task.num_tokens, dtype=torch.float64)  # the probabilities of each symbol at each step
    for t in range(5):
        p[t] = (batch.targets[t, :, None] == torch.arange(task.num_tokens)).double().mean(0)
    p[5, -2:] = 0.5
    outputs = torch.logit(p.clamp(1e-9, 1 - 1e-9))[:, None].expand(6, batch.size, -1)
    assert task.loss(outputs, batch).item() == pytest.approx(task.baseline, rel=0.01)
    assert task.metrics(outputs, batch)["largest_error"] == pytest.approx(0.5)
    by_hand = (p[:, None] - torch.nn.functional.one_hot(batch.targets, task.num_tokens)).square().sum(-1).mean()
    assert task.loss(outputs, batch).item() == pytest.approx(by_hand.item())


def test_a_plan_with_squared_error_keeps_the_tasks_options():
    changed = with_squared_error(plan("task.variant=2a"))
    assert (changed.task.length, changed.task.variant) == (6, "2a")
    assert changed.task.sample(3, 2).inputs.equal(plan("task.variant=2a").task.sample(3, 2).inputs)


@pytest.mark.parametrize(("confirmed", "solved"), [(0.1, True), (0.5, False)])
def test_a_solution_has_to_hold_on_the_sequences_that_confirm_it(monkeypatch, confirmed, solved):
    asked = []

    def evaluate(network, task, seed, samples):
        asked.append(samples)
        return {"loss": 1.0, "accuracy": 1.0, "largest_error": 0.1 if samples == 16 else confirmed}, {}

    monkeypatch.setattr("rnnlstm.training.evaluation.evaluate", evaluate)
    row = loop.train_row(plan("train.steps=1", "eval.every=1"), "2b", "an arm", confirm=64)
    assert row.solved == [solved, solved]
    assert asked == [16, 64, 16, 64]


def test_a_row_says_when_the_cell_was_added(monkeypatch):
    monkeypatch.setitem(lag_parts.SIZES, "quick", (4, 2 * WINDOW, 64, lag_parts.CHOICES, ("eval.every=100",)))
    row = lag_parts.trained("quick", "2b, 4", (lag_parts.DELAYED,))
    assert row.arm == "cell delayed"
    added = row.scores.get("cell_added_at", [])
    assert all(at in (None, 2.0 * WINDOW) for at in added)
    assert math.isfinite(row.median("loss"))
