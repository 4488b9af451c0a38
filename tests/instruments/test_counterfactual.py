"""Counterfactual influence: networks whose answer is known by hand, replacements of every task, and what may not
matter."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import pytest
import torch

from rnnlstm.cells import make_cell
from rnnlstm.config.errors import ConfigError
from rnnlstm.instruments import counterfactual
from rnnlstm.instruments.counterfactual import by_decade, counterfactual_influence, counterfactual_scalars, spaced
from rnnlstm.models import Network
from rnnlstm.models.network import Sizes
from rnnlstm.record.files import read_lines
from rnnlstm.tasks import TASKS, make_task
from rnnlstm.tasks.random_streams import RandomStream

from support.training import plan_for, quick_if

K = 4


def network_of(task, nonlinearity, hidden):
    sizes = Sizes(task.num_tokens, task.input_size, task.output_size, hidden, embedding_size=hidden)
    cell = make_cell("rnn", nonlinearity=nonlinearity)
    network = Network(cell, sizes, max_lag=1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    return network


def latch(task, strength=20.0, readout=1.0):
    """A tanh RNN that keeps the first token: unit k is +1 for dish k, and no later input (20) outweighs a state (50)
    of ±1. tanh(20) is 1 in float64, and its slope 0."""
    network = network_of(task, "tanh", K)
    with torch.no_grad():
        network.embedding.weight[:K] = 2 * torch.eye(K) - 1
        w = network.recurrence.layer_weights(0)
        w["weight_ih"].copy_(strength * torch.eye(K))
        w["weight_hh"].copy_(50.0 * torch.eye(K))
        network.readout.weight.copy_(readout * torch.eye(K))
    return network


@functools.cache
def keyword(**options):
    return make_task("keyword", **{"length": 30, "num_keywords": K, "decoys": 0.2, **options})


def by_label(rows):
    return {row.label: row for row in by_decade(rows)}


def test_a_saturated_latch_holds_the_first_word_and_its_gradient_is_zero():
    rows = counterfactual_influence(keyword(), latch(keyword()), 0)
    (first,) = [row for row in rows if row.kind == "keyword"]
    assert (first.distance, first.places, first.changed, first.gradient) == (29, 256, 1.0, 0.0)
    others = [row for row in rows if row.kind != "keyword"]
    assert {row.kind for row in others} == {"filler", "decoy"}  # there is one question, which nothing can replace
    assert all((row.changed, row.divergence, row.gradient) == (0.0, 0.0, 0.0) for row in others)


def test_the_divergence_is_that_of_the_two_answers():
    """Outputs are s for the dish and −s for the others: KL = 2s (p₁ − p₂)."""
    s = 0.75  # exact in float32, too
    (first, *_) = counterfactual_influence(keyword(), latch(keyword(), readout=s), 0)
    total = math.exp(s) + (K - 1) * math.exp(-s)
    assert first.divergence == pytest.approx(2 * s * (math.exp(s) - math.exp(-s)) / total, rel=1e-12)


def test_where_a_unit_is_not_saturated_the_gradient_sees_it_too():
    """Without recurrence only the last step counts; a sum over all steps counts each alike."""
    task = make_task("adding", length=12)
    network = network_of(task, "identity", 1)
    with torch.no_grad():
        w = network.recurrence.layer_weights(0)
        w["weight_ih"].copy_(torch.tensor([[1.0, 0.0]]))
        w["weight_hh"].fill_(1.0)
        network.readout.weight.fill_(2.0)
    rows = counterfactual_influence(task, network, 0, 1024)
    assert {row.label for row in rows} == {"unmarked, number", "marked, number", "marked, mark moved"}
    assert all(row.gradient == pytest.approx(2.0) and row.divergence is None for row in rows)
    assert not any(row.changed for row in rows if row.way == "mark moved")
    rows = [row for row in rows if row.way == "number"]
    places = sum(row.places for row in rows)
    mean = sum(row.changed * row.places for row in rows) / places
    assert places == 12 * 1024
    # Of two uniform numbers the mean distance is 1/3, its standard deviation 1/√18.
    assert mean == pytest.approx(2 / 3, abs=4 * 2 / math.sqrt(18 * places))
    with torch.no_grad():
        w["weight_hh"].fill_(0.0)
    rows = [row for row in counterfactual_influence(task, network, 0) if row.way == "number"]
    assert all((row.changed > 0) == (row.distance == 0) == (row.gradient > 0) for row in rows)


def test_a_network_that_sees_marks_alone():
    """It halves what it has at each step, and adds a mark: numbers change nothing, a mark that moves does."""
    task = make_task("adding", length=12)
    network = network_of(task, "identity", 1)
    with torch.no_grad():
        w = network.recurrence.layer_weights(0)
        w["weight_ih"].copy_(torch.tensor([[0.0, 1.0]]))
        w["weight_hh"].fill_(0.5)
        network.readout.weight.fill_(1.0)
    found = counterfactual_influence(task, network, 0)
    assert not any(row.changed for row in found if row.way == "number")
    moved = [row for row in found if row.way == "mark moved"]
    assert {row.kind for row in moved} == {"marked"}
    assert all(row.changed > 0 for row in moved)
    assert sum(row.places for row in moved) == 2 * 256


@pytest.mark.parametrize("name", ["keyword", "adding"])
def test_a_constant_network_depends_on_nothing(name):
    plan = plan_for(f"task={name}", "task.length=12", "model.hidden_size=6", "dtype=float64")
    network = plan.network(0)
    with torch.no_grad():
        network.readout.weight.zero_()
    rows = counterfactual_influence(plan.task, network, 0, 32)
    assert rows
    assert not any(row.changed or row.divergence or row.gradient for row in rows)


def small(*overrides):
    return plan_for("task.length=24", "model.hidden_size=6", "task.shortest=12", "task.decoys=0.2", *overrides)


@pytest.mark.parametrize("model", ["rnn", "lstm", "lru"])
def test_how_many_texts_are_read_together_and_from_where_does_not_matter(model, monkeypatch):
    plan = small(f"model={model}", "model.num_layers=2", "dtype=float64")
    network = plan.network(0)
    usual = counterfactual_influence(plan.task, network, 3, 24)
    others = [counterfactual_influence(plan.task, network, 3, 24, at_once) for at_once in (7, 1000)]
    monkeypatch.setattr(counterfactual, "PIECES", 1)  # each text is read from its beginning
    others.append(counterfactual_influence(plan.task, network, 3, 24))
    for other in others:
        for one, same in zip(usual, other, strict=True):
            values = [dataclasses.astuple(row) for row in (one, same)]
            assert values[0][:7] == values[1][:7]
            assert values[0][7:] == pytest.approx(values[1][7:], rel=1e-9, abs=1e-15)


def test_the_same_seed_gives_the_same_and_nothing_is_changed():
    plan = small("model=lstm")
    network = plan.network(0)
    before = {name: w.clone() for name, w in network.state_dict().items()}
    random = torch.get_rng_state()
    first = counterfactual_influence(plan.task, network, 0, 32)
    assert counterfactual_influence(plan.task, network, 0, 32) == first
    assert counterfactual_influence(plan.task, network, 1, 32) != first
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], w) for name, w in network.state_dict().items())
    assert all(w.grad is None and w.requires_grad for w in network.parameters())


OF_EACH_TASK = quick_if(lambda name, _: name != "digits", ((name, {}) for name in TASKS))  # which loads scikit-learn
VARIANTS = [
    ("keyword", {}), ("keyword", {"shortest": 60, "keyword_window": 5}), ("adding", {}),
    ("adding", {"variant": "hochreiter"}), ("multiplication", {"variant": "pascanu"}),
    ("associative_recall", {"variant": "mqar"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [*OF_EACH_TASK, *VARIANTS])
def test_a_replaced_token_is_another_of_its_kind_and_the_rest_stays(name, options):
    try:
        task = make_task(name, **options)
    except ConfigError:
        pytest.skip("needs scikit-learn")
    batch, pool = task.sample(0, 0, "probe", 40), task.sample(0, 1, "probe", 40)
    generator = torch.Generator().manual_seed(0)
    changed = 0
    for draw in range(8):
        steps = torch.randint(0, len(batch.mask), (40,), generator=generator)
        for way, inputs in task.replacements(batch, steps, pool, RandomStream(0, "probe", 9 + draw)).items():
            if way == "mark moved":
                continue
            differs = (inputs != batch.inputs).reshape(*batch.mask.shape, -1).any(-1)  # (T, B)
            assert inputs.dtype == batch.inputs.dtype
            for b in differs.any(0).nonzero()[:, 0].tolist():
                t = int(steps[b])
                assert differs[:, b].nonzero().flatten().tolist() == [t]
                there = pool.inputs[pool.kinds == batch.kinds[t, b]]
                if way == "number":
                    there = there[:, 0]
                    assert inputs[t, b, 1] == batch.inputs[t, b, 1]
                    assert (there == inputs[t, b, 0]).any()
                else:
                    assert (there == inputs[t, b]).reshape(len(there), -1).all(-1).any()
                changed += 1
    of_each_kind = [pool.inputs[pool.kinds == kind].unique(dim=0) for kind in pool.kinds.unique()]
    if max(map(len, of_each_kind)) == 1:  # each token is the only one of its kind: nothing can take its place
        assert name in ("counting", "state_tracking")
        assert not changed
    else:
        assert changed > 40


@pytest.mark.parametrize("variant", ["standard", "hochreiter", "pascanu"])
def test_a_mark_moves_to_where_it_may_stand(variant):
    task = make_task("adding", length=30, variant=variant)
    batch, pool = task.sample(0, 0, "probe", 200), task.sample(0, 1, "probe", 200)
    marks = (batch.inputs[..., 1] == 1).sum(0)
    lengths = batch.mask.int().argmax(0) + 1
    places = set()
    for number in (1, 2):
        match = (batch.kinds == 1) & ((batch.kinds == 1).cumsum(0) == number)
        steps, there = match.int().argmax(0), match.any(0)
        moved = task.replacements(batch, steps, pool, RandomStream(0, "probe", 5))["mark moved"]
        assert torch.equal(moved[..., 0], batch.inputs[..., 0])
        assert torch.equal((moved[..., 1] == 1).sum(0), marks)
        assert torch.equal(moved[..., 1] == -1, batch.inputs[..., 1] == -1)
        changed = (moved[..., 1] != batch.inputs[..., 1]).sum(0)
        assert changed[there].tolist() == [2] * int(there.sum())
        assert not changed[~there].any()
        for b in there.nonzero()[:, 0].tolist():
            stands = (moved[:, b, 1] == 1).nonzero().flatten().tolist()
            places.update(stands)
            if variant == "standard":
                assert [t < 15 for t in stands] == [True, False]
            elif variant == "pascanu":
                tenth, wide = int(lengths[b]) // 10, 4 * int(lengths[b]) // 10
                assert [t < tenth for t in stands] == [True, False]
                assert stands[1] < tenth + wide
            else:
                assert min(stands) < 10 or len(stands) == 1  # the first mark may be on the first step, unseen
                assert min(stands) > 0
                assert max(stands) < 15
    assert len(places) > 10


def test_a_token_that_is_alone_of_its_kind_stays():
    task = keyword()
    batch, pool = task.sample(0, 0, "probe", 5), task.sample(0, 1, "probe", 5)
    question = torch.full((5,), 29)
    assert torch.equal(task.replacements(batch, question, pool, RandomStream(0))[""], batch.inputs)


def test_numbers_with_growing_gaps():
    assert spaced(7) == list(range(7))
    assert spaced(1) == [0]
    found = spaced(1000)
    assert (len(found), found[0], found[-1]) == (24, 0, 999)
    assert sorted(found) == found
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert max(gaps) == gaps[-1] > 10 * gaps[0]


def test_rows_are_joined_by_decade():
    rows = counterfactual_influence(keyword(length=150), latch(keyword(length=150)), 0, 64)
    joined = by_decade(rows)
    assert [(row.kind, len(str(row.nearest)), len(str(row.farthest))) for row in joined] == [
        ("keyword", 3, 3), *((kind, n, n) for kind in ("filler", "decoy") for n in (1, 2, 3)),
    ]  # fmt: skip
    assert sum(row.places for row in joined) == sum(row.places for row in rows)


def test_what_a_run_logs_at_its_end():
    plan = small("model=rnn")
    values = counterfactual_scalars(plan.task, plan.network(0), 0)
    assert 0 <= values["counterfactual/changed_decoy_lag_10"] <= 1
    assert values["counterfactual/divergence_keyword_lag_10"] >= 0
    assert values["counterfactual/gradient_filler_lag_1"] > 0
    numbers = plan_for("task=adding", "task.length=12", "model.hidden_size=6")
    tags = counterfactual_scalars(numbers.task, numbers.network(0), 0)
    assert "counterfactual/changed_marked_mark_moved_lag_1" in tags
    assert not any("divergence" in tag for tag in tags)


@pytest.mark.slow
def test_the_last_line_of_each_seed_has_it_and_training_is_as_without(train):
    weights = {}
    for probe in ("off", "standard"):
        outcome = train(f"probe={probe}", "train.steps=4", "eval.every=2", "seeds=2", "log.every=1")
        for seed in (0, 1):
            folder = outcome.folder / f"seed_{seed}"
            lines = list(read_lines(folder / "metrics.jsonl"))
            has = [any(tag.startswith("counterfactual/") for tag in line) for line in lines]
            assert has == [*[False] * (len(lines) - 1), probe == "standard"]
            weights[probe, seed] = torch.load(folder / "weights.pt", weights_only=True)
    for seed in (0, 1):
        off, on = weights["off", seed], weights["standard", seed]
        assert all(torch.equal(off[name], on[name]) for name in off)
