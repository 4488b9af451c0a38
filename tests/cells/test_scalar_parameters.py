"""A cell of a user's own with a learned single number, `()` in `parameter_shapes`: it trains and is recorded."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rnnlstm.cells import CELLS, Cell, make_cell, noisy, register_cell
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.weight_gradient import weight_gradients
from rnnlstm.record.files import read_lines
from rnnlstm.training.loop import train_run
from rnnlstm.training.progress import Progress
from rnnlstm.training.step import Trainer

from support.training import SMALL, plan_for

TAG = "grad_param/recurrence.leak_l0"


@pytest.fixture
def plan_of():
    """`plan_of(*overrides)`: the plan with the user's cell, as the plan of a plugin has it."""

    @register_cell("scalar_leak")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class ScalarLeak(Cell):
        """h_t = σ(a) h_{t−1} + (1 − σ(a)) tanh(W x_t + U h_{t−1} + b), with one a for all units"""

        def parameter_shapes(self, input_size, hidden_size, bias):
            return {"leak": (), **super().parameter_shapes(input_size, hidden_size, bias)}

        def initialise(self, w, generator, max_lag):
            super().initialise(w, generator, max_lag)
            with torch.no_grad():
                w["leak"].mul_(1e-4)

        def step(self, projected, state, w):
            (h,) = state
            kept = torch.sigmoid(1e4 * w["leak"])  # the largest gradient of the network
            return (kept * h + (1 - kept) * torch.tanh(projected + self.recurrent(h, w)),), {}

    cell = make_cell("scalar_leak")
    yield lambda *more: dataclasses.replace(plan_for(*SMALL, "model=rnn", *more), cell=cell, backend="reference")
    del CELLS._classes["scalar_leak"]


@pytest.mark.parametrize(
    "clip", [("clip=norm", "clip.threshold=1e-3"), ("clip=value", "clip.threshold=1e-3"), ("clip=none",)]
)
def test_it_trains_alone_and_in_lockstep(plan_of, clip):
    plan = plan_of(*clip, "dtype=float64", "task=adding")
    if clip == ("clip=none",):
        plan = dataclasses.replace(plan, cell=noisy(plan.cell, zoneout=0.1))
    together, alone = Trainer(plan, [3, 4]), Trainer(plan, [4])
    start = together.model.parameters["recurrence.leak_l0"].detach().clone()
    assert start.shape == (2,)
    for step in (1, 2):
        a, b = together.step(step), alone.step(step)
        assert a.losses[1] == pytest.approx(b.losses[0], rel=1e-10)
        assert a.clips[1].norms == pytest.approx(b.clips[0].norms, rel=1e-8)
        assert a.clips[1].fired == (clip != ("clip=none",))
        if step == 1:
            together.freeze(0)
            kept = together.model.parameters["recurrence.leak_l0"][0].item()
    leak = together.model.parameters["recurrence.leak_l0"]
    assert leak[0].item() == kept
    assert leak[1].item() != start[1].item()


@pytest.mark.parametrize("clip", ["norm", "value", "none"])
def test_its_gradient_is_in_the_record(plan_of, clip, tmp_path):
    threshold = () if clip == "none" else ("clip.threshold=1e-4",)
    more = (
        "train.steps=3",
        "log.every=1",
        "probe=full",
        "probe.every=1",
        "checkpoint.every=1",
        "seeds=2",
        "optimizer.lr=1e-6",
    )
    plan = plan_of(f"clip={clip}", *threshold, "task=adding", *more)
    outcome = train_run(plan, tmp_path, Progress())
    assert [summary["status"] for summary in outcome.summaries] == ["done", "done"]
    assert outcome.summaries[0]["parameters"] == plan.cost.parameters
    for seed in (0, 1):
        lines = list(read_lines(tmp_path / f"seed_{seed}" / "metrics.jsonl"))
        assert all(line[TAG] > 0 for line in lines if line["step"] > 0)
        fired = list(read_lines(tmp_path / f"seed_{seed}" / "clip_events.jsonl"))
        assert {line["largest_parameter"] for line in fired} == ({"recurrence.leak_l0"} if fired else set())
        assert len(fired) == (0 if clip == "none" else 3)
        weights = torch.load(tmp_path / f"seed_{seed}" / "weights.pt", weights_only=True)
        assert weights["recurrence.leak_l0"].shape == ()


def test_its_weight_gradient_is_decomposed(plan_of):
    plan = plan_of("task=adding")
    analysed = AnalysedNetwork.of(plan.task, plan.network(0), plan.task.sample(0, 0, "probe", 4))
    (found,) = weight_gradients(analysed)
    assert found.error < 1e-12
