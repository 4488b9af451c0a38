"""Training away from the CPU, on a device that is only pretended: nothing is mixed, nothing waits that need not."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

from rnnlstm.benchmarks.costs import protocols
from rnnlstm.config.errors import OptionError
from rnnlstm.recurrence.fused import portable
from rnnlstm.tasks import make_task
from rnnlstm.training.batches import TrainingBatches, check_drawn_on_device, sent
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import Plan
from rnnlstm.training.progress import Progress
from rnnlstm.training.step import Trainer

from support.pretend_device import DEVICE, PretendDevice, There
from support.tasks import VARIANTS, small
from support.training import EACH_MODEL_AND_BACKEND, SMALL, plan_for

OPTIONS = ("task.length=12", "model.hidden_size=8", "train.batch_size=5", "train.stop_when_solved=false")


@pytest.fixture(autouse=True)
def portable_everywhere(monkeypatch):
    """The loops that a GPU gets, so that every bit can be compared; and optimisers that take the device's name."""
    monkeypatch.setattr("rnnlstm.recurrence.fused.function.engine_for", lambda *_: portable)
    monkeypatch.setattr("rnnlstm.models.replicas.has_tape", lambda _: False)  # the CPU's own way for replicas
    monkeypatch.setattr("rnnlstm.recurrence.fused.native.squares", lambda _: None)
    for name in ("adam", "sgd"):
        monkeypatch.setattr(
            sys.modules[f"torch.optim.{name}"], "_device_dtype_check_for_fused", lambda *_, **__: None
        )


def there(plan: Plan) -> Plan:
    return dataclasses.replace(plan, device=DEVICE)


def test_the_pretence_refuses_what_cuda_refuses():
    with PretendDevice() as device:
        x = torch.ones(3, device=DEVICE)
        assert isinstance(x, There)
        assert (2 * x).sum().item() == 6
        assert device.crossings == {"aten._local_scalar_dense.default": 1}
        with pytest.raises(RuntimeError, match="among the device's"):
            x + torch.ones(3)
        with pytest.raises((RuntimeError, TypeError)):
            x.numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "backend"), EACH_MODEL_AND_BACKEND)
def test_an_update_equals_the_cpus_and_waits_twice(model, backend):
    overrides = (*OPTIONS, f"model={model}", f"model.backend={backend}", "clip.threshold=0.1", "optimizer.lr=0.02")
    here = Trainer(plan_for(*overrides), [0, 1])
    with PretendDevice() as device:
        away = Trainer(there(plan_for(*overrides)), [0, 1])
        for step in (1, 2):
            device.crossings.clear()
            a, b = here.step(step), away.step(step)
            assert device.crossings == {"to the CPU": 2}  # gradient norms, losses
            if backend == "torch" or model == "lru":  # computed in other pieces there
                assert b.losses == pytest.approx(a.losses, rel=1e-5)
                continue
            assert b.losses == a.losses
            assert [clip.norms for clip in b.clips] == [clip.norms for clip in a.clips]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("clip=value", "clip.threshold=0.001", "optimizer=sgd"),
        ("clip=none", "optimizer=rmsprop", "model.num_layers=2"),
        ("model.zoneout=0.1", "model.recurrent_dropout=0.1", "model.backend=reference"),
        ("surgery.cut=[forget]", "surgery.open=[output]", "surgery.truncate=5"),
        ("curriculum=uniform", "curriculum.start=5"),
        ("dtype=float64", "model=gru"),
    ],
)
def test_what_else_is_done_to_an_update(more):
    overrides = (*OPTIONS, *more)
    here = Trainer(plan_for(*overrides), [0, 1, 2])
    with PretendDevice():
        away = Trainer(there(plan_for(*overrides)), [0, 1, 2])
        for step in range(1, 6):
            assert here.step(step).losses == away.step(step).losses
            if step == 3:
                here.freeze(1), away.freeze(1)
        state = away.state()  # to be saved: nothing in it lies on the device
        other = Trainer(there(plan_for(*overrides)), [0, 1, 2])
        other.load_state(state)
        assert other.step(6).losses == away.step(6).losses == here.step(6).losses
    assert not any(isinstance(weight, There) for weight in state["weights"].values())


PROTOCOLS = protocols()


DRAWN = [
    pytest.param(protocol, data, id=protocol + where)
    for data, where in (("cpu", ""), ("device", " drawn there"))
    for protocol in PROTOCOLS
    if data == "cpu" or protocol != "embedded_reber"  # strings of a grammar, in NumPy
]


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "data"), DRAWN)
def test_a_run_leaves_the_record_that_the_cpu_leaves(protocol, data, tmp_path):
    """Every task: data, loss, metrics, slices, decoded samples, probes, curriculum, checkpoints, final weights."""
    name, *variant = protocol.split()
    length = max(12, _shortest(name, variant))
    network = ("model=lstm", "probe=full") if name == "keyword" else ("model=rnn",)  # fewer operations to pretend
    plan = plan_for(
        *SMALL, f"task={name}", *(f"task.variant={v}" for v in variant), f"task.length={length}", "seeds=2",
        *network, "train.steps=2", "eval.every=1", "log.every=1", "probe.every=1", "checkpoint.every=1",
        "model.hidden_size=4", "train.stop_when_solved=false", f"data={data}",
    )  # fmt: skip
    records = [tmp_path / "here", tmp_path / "there"]
    for folder, each in zip(records, (plan, there(plan)), strict=True):
        with PretendDevice():
            outcome = train_run(each, folder, Progress())
        assert [summary["status"] for summary in outcome.summaries] == ["done", "done"]
    for file in ("metrics.jsonl", "clip_events.jsonl", "flow.jsonl", "samples.jsonl"):
        a, b = (_lines(folder / "seed_1" / file) for folder in records)
        assert a == b
        assert file == "clip_events.jsonl" or a
    a, b = (torch.load(folder / "seed_1" / "weights.pt", weights_only=True) for folder in records)
    assert all(torch.equal(a[key], b[key]) for key in a)


def _shortest(name, variant):
    """The least length from 1 on that the protocol takes."""
    for length in range(1, 200):
        try:
            make_task(name, length=length, **({"variant": variant[0]} if variant else {}))
            return length
        except Exception:
            continue
    raise AssertionError(name)


def _lines(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


@pytest.mark.slow
def test_cuda_is_told_to_be_exact_and_repeatable_and_the_cpu_nothing():
    code = (
        "import os, sys, torch\nfrom rnnlstm.training.device import make_deterministic\n"
        "make_deterministic(torch.device(sys.argv[1]))\n"
        "print(os.environ.get('CUBLAS_WORKSPACE_CONFIG'), torch.are_deterministic_algorithms_enabled(),"
        " torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32,"
        " torch.backends.cuda.matmul.allow_tf32)"
    )
    said = {}
    environment = {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"}
    for device in ("cpu", "cuda:1"):
        line = [sys.executable, "-W", "error", "-c", code, device]
        said[device] = subprocess.run(
            line, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
    assert said["cpu"][:3] == ["None", "False", "False"]
    assert said["cuda:1"] == [":4096:8", "True", "True", "False", "False", "False"]


def test_the_next_batches_are_drawn_ahead_unless_something_else_is_asked_for():
    task, longer = make_task("copy", length=5), make_task("copy", length=6)
    with PretendDevice():
        feed = TrainingBatches([3, 4], 7, DEVICE)
        for ahead, asked in (((task, 1), (task, 1)), ((task, 2), (longer, 2)), ((task, 3), (task, 4))):
            feed.prefetch(lambda _, tasks=[ahead[0]] * 2: tasks, ahead[1])
            for seed, batch in zip((3, 4), feed.take([asked[0]] * 2, asked[1]), strict=True):
                expected = asked[0].sample(seed, asked[1], batch_size=7)
                for name, tensor in batch.tensors().items():
                    assert isinstance(tensor, There)
                    assert torch.equal(tensor.cpu(), getattr(expected, name))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_what_is_drawn_there_is_what_the_cpu_draws_and_nothing_waits(name, options):
    """Also for one replica by itself: the first takes part in a draw for all, then is drawn alone."""
    task = small(name, **options)
    if name == "embedded_reber":
        with pytest.raises(OptionError, match=r"data=device: the embedded_reber task is drawn on the CPU"):
            check_drawn_on_device(task)
        return
    check_drawn_on_device(task)
    here = TrainingBatches([3, 4], 7, torch.device("cpu"), "device")
    with PretendDevice() as device:
        away, alone = TrainingBatches([3, 4], 7, DEVICE, "device"), TrainingBatches([4], 7, DEVICE, "device")
        for step in (1, 2, 3):
            device.crossings.clear()
            drawn = away.take([task, task], step)
            waits = not task.scored_alike or step == 1
            assert dict(device.crossings) == ({"aten.nonzero.default": 1} if task.scored_alike and step == 1 else {})
            found = [batch.tensors() for batch in drawn]
            assert bool(device.crossings) == waits
            for a, b in zip(here.take([task, task], step), found, strict=True):
                assert all(isinstance(tensor, There) for tensor in b.values())
                assert all(torch.equal(tensor, b[field].cpu()) for field, tensor in a.tensors().items())
            (other,) = alone.take([task], step)
            assert all(torch.equal(found[1][f].cpu(), tensor.cpu()) for f, tensor in other.tensors().items())


def test_replicas_at_several_lengths_are_drawn_one_by_one_and_asked_for_their_scored_steps_once():
    short, long = make_task("copy", length=5), make_task("copy", length=6)
    alone = TrainingBatches([4], 7, torch.device("cpu"), "device")
    with PretendDevice() as device:
        feed = TrainingBatches([3, 4], 7, DEVICE, "device")
        for step in range(1, 6):
            _, batch = feed.take([short, long], step)
            (expected,) = alone.take([long], step)
            assert torch.equal(batch.inputs.cpu(), expected.inputs)
            assert torch.equal(batch.scored.cpu(), expected.scored)
        assert device.crossings["aten.nonzero.default"] == 2


def test_updates_are_of_the_batches_that_the_key_asks_for():
    """`data` reaches the trainer, each update has a batch of its own, and the two generators differ."""
    trainers = [Trainer(plan_for(*OPTIONS, f"data={data}"), [0, 1]) for data in ("cpu", "device")]
    feed, seen = TrainingBatches([0, 1], 5, torch.device("cpu"), "device"), []
    for step in (1, 2, 3):
        here, there = (trainer.step(step).batches for trainer in trainers)
        for r, expected in enumerate(feed.take([trainers[1].plan.task] * 2, step)):
            assert torch.equal(there[r].inputs, expected.inputs)
            seen += [there[r].inputs, here[r].inputs]
    assert len({tuple(inputs.flatten().tolist()) for inputs in seen}) == len(seen)


def test_on_the_cpu_nothing_is_copied_and_nothing_drawn_ahead():
    task = make_task("adding", length=5)
    batch = task.sample(0, 1)
    assert sent([batch], torch.device("cpu"))[0] is batch
    feed = TrainingBatches([0], 7, torch.device("cpu"))
    feed.prefetch(pytest.fail, 1)  # what comes next isn't even asked for
    assert feed._waiting is None
