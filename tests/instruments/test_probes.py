"""Probes against hand computations, for both backends and for replicas; and what they write down."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from rnnlstm.instruments.probe import Probe, by_kind, flow_by_lag, gate_values, half_life, last_scored
from rnnlstm.record.files import read_json, read_lines
from rnnlstm.record.heatmap import HIGH, LOW, colours, flow_png
from rnnlstm.recurrence import record_gradients
from rnnlstm.tasks.batch import Batch
from rnnlstm.training.step import Trainer

from support.training import EACH_MODEL_AND_BACKEND, plan_for

SMALL = ("task.length=12", "model.hidden_size=8", "model.embedding_size=4", "train.batch_size=5", "dtype=float64")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "backend"), EACH_MODEL_AND_BACKEND)
@pytest.mark.parametrize(("layers", "seeds"), [(1, 1), (2, 3)])
def test_the_probes_flow_is_the_gradient_of_the_same_loss_on_the_same_batch(backend, model, layers, seeds):
    plan = plan_for(*SMALL, f"model={model}", f"model.backend={backend}", f"model.num_layers={layers}")
    trainer = Trainer(plan, range(seeds))
    trainer.step(1)
    for r in range(seeds):
        probe = Probe(plan.task, r, 5, torch.device("cpu"))
        seen = probe.look(trainer.model, r)
        network = plan.network(r)
        network.load_state_dict({name: w.detach() for name, w in trainer.model.weights(r).items()})
        with record_gradients(network) as g:
            outputs = network(probe.batch.inputs)
            plan.task.loss(outputs, probe.batch).backward()
        torch.testing.assert_close(seen.outputs, outputs, rtol=1e-12, atol=1e-12)
        for state, norms in seen.flow.items():
            expected = g.of(state).flip(-1)  # keyword recall scores the last step: lag k is step T−1−k
            assert ((norms - expected).abs() <= 1e-10 * expected).all()
        scalars = probe.scalars(seen)
        suffix = "/layer_1" if layers == 2 else ""
        assert scalars[f"flow/hidden_lag_10{suffix}"] == pytest.approx(g.hidden[layers - 1, 1].item(), rel=1e-10)


def test_flow_looks_at_the_last_scored_position_alone():
    plan = plan_for("task=copy", "task.length=3", "model=rnn", "dtype=float64")
    probe = Probe(plan.task, 0, 4, torch.device("cpu"))
    assert probe.batch.mask.all()
    assert last_scored(probe.batch).mask.sum() == 4
    assert last_scored(probe.batch).mask[-1].all()
    network = plan.network(0)
    with record_gradients(network) as g:
        outputs = network(probe.batch.inputs)
        torch.nn.functional.cross_entropy(outputs[-1], probe.batch.targets[-1]).backward()
    seen = probe.look(Trainer(plan, [0]).model, 0)
    torch.testing.assert_close(seen.flow["hidden"], g.hidden.flip(-1), rtol=1e-10, atol=0)


def test_lags_count_from_each_sequences_own_last_scored_position():
    rows = torch.arange(1.0, 7.0).reshape(1, 3, 2).double()  # (L=1, T=3, B=2)
    mask = torch.tensor([[False, False], [True, False], [False, True]])
    lags = flow_by_lag(rows, mask)
    # Sequence 0 ends at t=1: rows 3, 1. Sequence 1 ends at t=2: rows 6, 4, 2.
    torch.testing.assert_close(lags, torch.tensor([[3 + 6, 1 + 4, 2]]).double().sqrt())
    batch = Batch(torch.zeros(3, 2, 1), torch.zeros(3, 2), torch.tensor([[True, True], [True, True], [False, True]]))
    assert last_scored(batch).mask.int().tolist() == [[0, 0], [1, 0], [0, 1]]


def test_half_life():
    lags = torch.arange(50.0).double()
    assert half_life(0.5 ** (lags / 7)) == pytest.approx(7)
    assert half_life(3.0 * 0.9**lags) == pytest.approx(math.log(2) / -math.log(0.9))
    assert half_life(1.1**lags) == math.inf
    assert half_life(torch.ones(5)) == math.inf
    assert math.isnan(half_life(torch.zeros(5)))
    decayed = 0.1**lags  # below 1e-30 from lag 31 on: rounding there must not count
    decayed[31:] = 1e-31
    assert half_life(decayed) == pytest.approx(math.log10(2))


def test_gate_values_and_kinds():
    activations = torch.tensor([[[0.05, 0.5]], [[0.95, 0.5]]])  # (T=2, B=1, H=2)
    assert gate_values(activations) == {"mean": pytest.approx(0.5), "saturated": 0.5}
    kinds = torch.tensor([[0], [2]], dtype=torch.int8)
    batch = Batch(torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool), kinds)
    means = by_kind(activations, batch, ("keyword", "filler", "decoy"))
    assert means == {"keyword": pytest.approx(0.275), "decoy": pytest.approx(0.725)}
    assert by_kind(activations, dataclasses.replace(batch, kinds=None), ("keyword",)) == {}


def test_gates_of_a_fixed_forget_bias():
    """With hardly any other input the forget gate is open at σ(b)."""
    plan = plan_for(*SMALL, "model.init=forget_bias", "model.forget_bias=3")
    trainer = Trainer(plan, [0])
    for name, weight in trainer.model.parameters.items():
        if "weight" in name:
            weight.detach().mul_(1e-6)
    probe = Probe(plan.task, 0, 5, torch.device("cpu"))
    scalars = probe.scalars(probe.look(trainer.model, 0))
    assert scalars["gate/forget_mean"] == pytest.approx(1 / (1 + math.exp(-3)), rel=1e-4)
    assert scalars["gate/forget_saturated"] == 1.0
    for kind in ("keyword", "filler", "trigger"):
        assert scalars[f"gate_by_kind/forget_{kind}"] == pytest.approx(scalars["gate/forget_mean"], rel=1e-4)


def test_the_scale_of_the_picture_is_fixed():
    ends = colours(np.array([LOW - 5, LOW, 0.0, HIGH, HIGH + 5, np.nan, -np.inf]))
    assert ends[0].tolist() == ends[1].tolist() == ends[6].tolist()
    assert ends[3].tolist() == ends[4].tolist()
    assert ends[2].tolist() == [247, 247, 247]
    assert len({tuple(c) for c in ends.tolist()}) == 4
    png, width, height = flow_png([0], np.full((1, 100), 1.0))
    assert png.startswith(b"\x89PNG")
    assert (width, height) > (500, 100)


def test_what_probes_write(train):
    outcome = train("train.steps=20", "probe.every=1", "eval.every=10", "model.num_layers=2", "train.batch_size=3")
    folder = outcome.folder / "seed_0"
    flow = list(read_lines(folder / "flow.jsonl"))
    assert [line["step"] for line in flow] == list(range(21))
    assert np.shape(flow[0]["hidden"]) == np.shape(flow[0]["cell"]) == (2, 12)
    metrics = {line["step"]: line for line in read_lines(folder / "metrics.jsonl")}
    for line in flow:
        written = metrics[line["step"]]["flow/hidden_lag_1/layer_0"]
        assert line["hidden"][0][1] == pytest.approx(written, rel=1e-5)
    samples = list(read_lines(folder / "samples.jsonl"))
    assert [line["step"] for line in samples] == [0, 10, 20]
    for line in samples:
        assert len(line["samples"]) == 3
        assert all("which dish came first?" in s["text"] and s["answer"] for s in line["samples"])
        assert all(s["right"] == s["text"].endswith(f"→ {s['answer']}") for s in line["samples"])
    assert read_json(folder / "summary.json")["status"] == "done"


def test_probe_off_leaves_no_trace(train):
    outcome = train("train.steps=2", "log.every=1", "probe=off")
    folder = outcome.folder / "seed_0"
    tags = {tag for line in read_lines(folder / "metrics.jsonl") for tag in line}
    assert not [tag for tag in tags if tag.startswith(("flow", "gate", "grad_param"))]
    assert (folder / "flow.jsonl").read_bytes() == (folder / "samples.jsonl").read_bytes() == b""
