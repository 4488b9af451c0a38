"""On a real GPU: everything that `test_device.py` pretends, and what can't be pretended. Skipped without one."""

from __future__ import annotations

import pytest
import torch

import rnnlstm
from rnnlstm.benchmarks.costs import protocols
from rnnlstm.record.files import read_lines
from rnnlstm.training.device import make_deterministic
from rnnlstm.training.loop import Loop
from rnnlstm.training.step import Trainer

from support.training import MODELS_AND_BACKENDS, plan_for

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]

OPTIONS = ("task.length=12", "model.hidden_size=8", "train.batch_size=5", "train.stop_when_solved=false")


def losses(seeds, steps, *overrides):
    trainer = Trainer(plan_for(*OPTIONS, *overrides), seeds)
    return [trainer.step(step).losses for step in range(1, steps + 1)]


@pytest.mark.parametrize(("model", "backend"), MODELS_AND_BACKENDS)
def test_every_cell_trains_as_on_the_cpu_alone_and_in_lockstep(model, backend):
    overrides = (f"model={model}", f"model.backend={backend}", "dtype=float64", "clip.threshold=0.1")
    here, there = (losses([3, 4], 20, *overrides, f"device={device}") for device in ("cpu", "cuda"))
    alone = losses([4], 20, *overrides, "device=cuda")
    for a, b, c in zip(here, there, alone, strict=True):
        assert b == pytest.approx(a, rel=1e-8)
        assert c[0] == pytest.approx(b[1], rel=1e-8)


@pytest.mark.parametrize("protocol", protocols())
def test_every_task_runs_with_all_instruments(protocol, train):
    name, *variant = protocol.split()
    overrides = [f"task={name}", *(f"task.variant={v}" for v in variant), "task.length=100", "dtype=float64"]
    overrides += ["train.steps=4", "eval.every=2", "log.every=1", "probe=full", "probe.every=2", "seeds=2"]
    found = []
    for device in ("cpu", "cuda"):
        outcome = train(*overrides, f"device={device}")
        lines = list(read_lines(outcome.folder / "seed_1" / "metrics.jsonl"))
        found.append([{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines])
    for a, b in zip(*found, strict=True):
        assert list(a) == list(b)
        for tag, value in a.items():
            assert b[tag] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), tag


@pytest.mark.parametrize("backend", ["fused", "reference", "torch"])
@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_twice_the_same_bits(model, backend):
    overrides = (f"model={model}", f"model.backend={backend}", "device=cuda", "task.length=50")
    assert losses([0, 1], 20, *overrides) == losses([0, 1], 20, *overrides)


@pytest.mark.parametrize(
    "more", [(), ("model=gru", "task=copy"), ("data=device",), ("model=rnn", "precision=bfloat16"), ("model=lru",)]
)
def test_replaying_a_graph_trains_as_without(more, monkeypatch, caplog):
    overrides = ("device=cuda", "clip.threshold=0.1", *more)
    trainer = Trainer(plan_for(*OPTIONS, *overrides), [0, 1, 2])
    replayed = [trainer.step(step).losses for step in range(1, 21)]
    assert len(trainer.graphs._recordings) == 1, caplog.messages
    monkeypatch.setenv("RNNLSTM_GRAPHS", "off")
    assert replayed == losses([0, 1, 2], 20, *overrides)


def test_float32_is_float32_and_not_tf32():
    make_deterministic(torch.device("cuda"))
    torch.manual_seed(0)
    a, b = torch.randn(2, 256, 256, device="cuda")
    lstm = torch.nn.LSTM(64, 64, device="cuda")
    exact = torch.nn.LSTM(64, 64, device="cuda", dtype=torch.float64)
    exact.load_state_dict(lstm.state_dict())
    x = torch.randn(5, 32, 64, device="cuda")
    for ours, wanted in ((a @ b, a.double() @ b.double()), (lstm(x)[0], exact(x.double())[0])):
        assert (ours - wanted).norm() / wanted.norm() < 1e-5  # TF32's products are off by some 3e-4


def test_an_interrupted_run_goes_on_bit_for_bit(train, monkeypatch):
    common = ("train.steps=12", "device=cuda", "seeds=2", "train.stop_when_solved=false", "checkpoint.every=4")
    whole = train(*common, "name=whole")
    save, saved = Loop._save, []

    def save_and_stop(self, step):
        save(self, step)
        saved.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_save", save_and_stop)
    train(*common, "name=broken")
    monkeypatch.setattr(Loop, "_save", save)
    assert saved == [4]
    broken = train(*common, "name=broken")
    a, b = (torch.load(o.folder / "seed_1/weights.pt", weights_only=True) for o in (whole, broken))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert all(weight.device.type == "cpu" for weight in a.values())  # to be loaded anywhere


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_mixed_precision_errs_as_on_the_cpu(backend, train):
    found = []
    for device in ("cpu", "cuda"):
        overrides = ("precision=bfloat16", f"device={device}", f"model.backend={backend}", "train.steps=4")
        (summary,) = train(*overrides).summaries
        found.append(summary["precision_gradient_error"])
    assert all(0 < error < 0.05 for error in found)
    assert found[0] == pytest.approx(found[1], rel=0.5)


def test_the_drop_ins_and_the_gradients_through_time():
    torch.manual_seed(0)
    for name in ("RNN", "LSTM", "GRU"):
        theirs = getattr(torch.nn, name)(10, 32, device="cuda", dtype=torch.float64)
        x = torch.randn(20, 8, 10, device="cuda", dtype=torch.float64)
        norms = []
        for backend in ("fused", "reference", "torch"):
            ours = getattr(rnnlstm, name)(10, 32, device="cuda", dtype=torch.float64, backend=backend)
            ours.load_state_dict(theirs.state_dict())
            torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-9, atol=1e-9)
            with rnnlstm.record_gradients(ours) as g:
                ours(x)[0].square().sum().backward()
            norms.append(g.hidden)
        for other in norms[1:]:
            torch.testing.assert_close(other, norms[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("model", ["lstm", "orthogonal", "lru", "min_lstm", "lstm_refine"])
def test_initialisations_fill_weights_that_are_on_the_device(model):
    from rnnlstm.cells import make_cell
    from rnnlstm.recurrence import Recurrence

    module = Recurrence(make_cell(model), 3, 8, device="cuda", max_lag=10)
    assert all(weight.isfinite().all() for weight in module.parameters())


def test_gradflow_reads_a_run_that_was_trained_on_the_device(train, tmp_path):
    from rnnlstm.gradflow import main

    outcome = train("train.steps=2", "device=cuda")
    assert main([f"weights={outcome.folder}", f"out={tmp_path / 'flow'}", "sequences=2"]) == 0
