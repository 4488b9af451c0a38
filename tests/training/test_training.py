"""The training step and the run: lockstep, freezing, divergence, and observing without effect."""

from __future__ import annotations

import json
import math

import pytest
import torch

from rnnlstm.record.files import read_json, read_lines
from rnnlstm.training.step import Trainer

from support.training import MODELS_AND_BACKENDS, plan_for, quick_if

SMALL = ("task.length=12", "model.hidden_size=8", "train.batch_size=5", "train.stop_when_solved=false")


@pytest.mark.parametrize(("model", "backend"), quick_if(lambda model, backend: model == "lstm", MODELS_AND_BACKENDS))
def test_a_seed_in_lockstep_trains_as_it_does_alone(model, backend):
    overrides = (*SMALL, f"model={model}", f"model.backend={backend}", "dtype=float64", "clip.threshold=0.1")
    together = Trainer(plan_for(*overrides), [3, 4, 5])
    alone = [Trainer(plan_for(*overrides), [seed]) for seed in (3, 4, 5)]
    for step in range(1, 41):
        losses = together.step(step).losses
        for r, trainer in enumerate(alone):
            assert trainer.step(step).losses[0] == pytest.approx(losses[r], rel=1e-10)
    for r, trainer in enumerate(alone):
        for name, weight in trainer.model.weights(0).items():
            torch.testing.assert_close(together.model.weights(r)[name], weight, rtol=1e-8, atol=1e-10)


def test_backends_start_from_equal_weights_and_stay_together():
    trainers = [Trainer(plan_for(*SMALL, f"model.backend={b}", "dtype=float64"), [0]) for b in ("reference", "torch")]
    for a, b in zip(*(t.model.parameters.values() for t in trainers), strict=True):
        assert torch.equal(a, b)
    for step in range(1, 31):
        a, b = (trainer.step(step).losses[0] for trainer in trainers)
        assert a == pytest.approx(b, rel=1e-10)


def test_a_frozen_replica_keeps_its_weights_and_the_others_their_arithmetic():
    frozen, free = (Trainer(plan_for(*SMALL), [0, 1, 2]) for _ in range(2))
    for step in (1, 2):
        frozen.step(step), free.step(step)
    frozen.freeze(1)
    before = {name: w.detach().clone() for name, w in frozen.model.weights(1).items()}
    for step in (3, 4, 5):
        frozen.step(step), free.step(step)
    for name, weight in frozen.model.parameters.items():
        assert torch.equal(weight[1], before[name])
        assert torch.equal(weight[0], free.model.parameters[name][0])
        assert torch.equal(weight[2], free.model.parameters[name][2])
        assert not torch.equal(weight[1], free.model.parameters[name][1])


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_replica_that_diverges_is_named_and_left_with_its_last_finite_weights(bad):
    trainer = Trainer(plan_for(*SMALL, "task=adding", "optimizer=sgd", "optimizer.momentum=0.9"), [0, 1])
    trainer.step(1)
    twin = Trainer(plan_for(*SMALL, "task=adding", "optimizer=sgd", "optimizer.momentum=0.9"), [0, 1])
    twin.step(1)
    name = "readout.bias" if bad == "loss" else "recurrence.weight_hh_l0"
    if bad == "loss":
        with torch.no_grad():
            trainer.model.parameters[name][1] = math.inf
    else:
        trainer.model.parameters[name].register_hook(lambda g: torch.cat([g[:1], g[1:] * math.nan]))
    before = {key: w.detach().clone() for key, w in trainer.model.weights(1).items()}
    update = trainer.step(2)
    twin.step(2)
    assert list(update.broken) == [1]
    assert ("loss" if bad == "loss" else name) in update.broken[1]
    assert not update.clips[1].fired
    trainer.step(3), twin.step(3)
    for key, weight in trainer.model.parameters.items():
        assert torch.equal(weight[1], before[key])
        assert torch.equal(weight[0], twin.model.parameters[key][0])


def test_a_diverged_replica_is_a_result(train):
    options = ("task=adding", "model=rnn", "model.nonlinearity=relu", "model.init=identity", "model.gain=30")
    outcome = train(*options, "task.length=60", "clip=none", "train.steps=20", "seeds=2", "optimizer.lr=100")
    for summary in outcome.summaries:
        assert summary["status"] == "diverged"
        assert "at step" in summary["reason"]
        assert summary["steps"] < 20
        lines = list(read_lines(outcome.folder / f"seed_{summary['seed']}" / "metrics.jsonl"))
        assert all(math.isfinite(line["train/loss"]) for line in lines if "train/loss" in line)
        weights = torch.load(outcome.folder / f"seed_{summary['seed']}" / "weights.pt", weights_only=True)
        assert all(w.isfinite().all() for w in weights.values())


@pytest.mark.parametrize("model", ["rnn", "lstm", "lstm_1997", "gru"])
def test_observing_changes_no_bit_of_the_weights(train, model):
    common = (f"model={model}", "train.steps=12", "train.stop_when_solved=false", "seeds=2", "clip.threshold=0.05")
    loud = train(*common, "name=loud", "log.every=1", "eval.every=1", "eval.lengths=[20]", "eval.decoys=[0.0]")
    quiet = train(*common, "name=quiet", "log.every=100", "eval.every=100", "probe=off")
    for seed in (0, 1):
        a, b = (torch.load(o.folder / f"seed_{seed}/weights.pt", weights_only=True) for o in (loud, quiet))
        assert list(a) == list(b)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_solving_freezes_a_replica_and_ends_the_run(train):
    outcome = train("task.length=3", "train.steps=2000", "eval.every=20", "optimizer.lr=0.02", "seeds=2")
    steps = []
    for summary in outcome.summaries:
        assert summary["status"] == "done"
        assert summary["solved"]
        assert summary["metric"] >= 0.99
        assert summary["steps"] == summary["steps_to_solve"] < 2000
        steps.append(summary["steps"])
        folder = outcome.folder / f"seed_{summary['seed']}"
        assert list(read_lines(folder / "metrics.jsonl"))[-1]["step"] == summary["steps"]
        assert read_json(folder / "summary.json") == json.loads(json.dumps(summary))


def test_final_weights_load_into_the_network(train):
    outcome = train("train.steps=3")
    network = plan_for("task.length=12", "model.hidden_size=8", "model.embedding_size=4").network(7)
    network.load_state_dict(torch.load(outcome.folder / "seed_0" / "weights.pt", weights_only=True))


def test_overwriting_replaces_the_named_seeds_only(train):
    first = train("train.steps=3", "seeds=2")
    kept = (first.folder / "seed_1" / "metrics.jsonl").read_bytes()
    (first.folder / "seed_0" / "stray").write_text("old")
    train("train.steps=3", "overwrite=true")
    assert not (first.folder / "seed_0" / "stray").exists()
    assert (first.folder / "seed_1" / "metrics.jsonl").read_bytes() == kept
