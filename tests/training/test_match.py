"""Fair comparison: costs as counted by hand, and the hidden size nearest to a budget."""

from __future__ import annotations

import pytest

from rnnlstm.cells import CELLS
from rnnlstm.models import Replicas
from rnnlstm.record.files import read_json
from rnnlstm.training.match import nearest
from rnnlstm.training.plan import make_plan

from support.training import KINDS, compose, plan_for, quick_if


@pytest.mark.parametrize(
    ("model", "task", "layers"),
    quick_if(
        lambda model, task, layers: model in KINDS,
        [(model, *case) for model in CELLS for case in (("keyword", 1), ("adding", 3), ("copy", 1))],
    ),
)  # embedded, numbers, one-hot
def test_the_counted_parameters_are_those_of_the_network(model, task, layers):
    plan = plan_for(f"task={task}", f"model={model}", "model.hidden_size=7", f"model.num_layers={layers}")
    assert plan.cost.parameters == Replicas([plan.network(0)]).parameters_each


def test_cost_by_hand():
    cost = plan_for("task=adding", "model=lstm", "model.hidden_size=10", "model.num_layers=2").cost
    assert cost.parameters == 4 * 10 * (2 + 10 + 2) + 4 * 10 * (10 + 10 + 2) + 10 + 1
    assert cost.multiply_adds == 4 * 10 * (2 + 10) + 4 * 10 * (10 + 10) + 10
    assert cost.state == 2 * 2 * 10
    assert cost.bytes_kept == 4 * 2 * 10 * (2 + 4)  # h and c, and four gates, of both layers


def test_nearest():
    assert nearest(lambda n: 3 * n, 10) == 3
    assert nearest(lambda n: 3 * n, 11) == 4
    assert nearest(lambda n: n * n, 70_000**2) == 65_536
    assert nearest(lambda n: n, 0) == 1


@pytest.mark.parametrize(
    ("model", "layers"),
    quick_if(
        lambda model, layers: model in KINDS and layers == 2,
        [*((model, 2) for model in CELLS), *((model, n) for model in KINDS for n in (1, 4))],
    ),
)
def test_budgets_are_kept_to_within_one_unit(model, layers):
    budget = plan_for("model=lstm", "model.hidden_size=40").cost
    for match in ("parameters", "state", "units"):
        job = compose(f"match={match}", f"model={model}", "model.hidden_size=40", f"model.num_layers={layers}")
        plan, H = make_plan(job.config), job.config.network.hidden_size
        cost = {
            "parameters": lambda n, plan=plan: plan.cost_of(n).parameters,
            "state": lambda n, plan=plan: plan.cost_of(n).state,
            "units": lambda n: n * layers,
        }[match]
        target = {"parameters": budget.parameters, "state": budget.state, "units": 40}[match]
        assert all(abs(cost(H) - target) <= abs(cost(n) - target) for n in (max(1, H - 1), H + 1))
        assert job.config.tree["model"]["hidden_size"] == H  # what the run folder keeps


def test_the_reference_matches_itself_whatever_its_own_options():
    for match in ("parameters", "state", "units"):
        job = compose(f"match={match}", "model.hidden_size=24", "model.init=default")
        assert job.config.network.hidden_size == 24


def test_equal_step_time_is_measured():
    job = compose("match=step_time", "model=rnn", "model.hidden_size=8", "task.length=10")
    assert 4 <= job.config.network.hidden_size <= 1024


def test_the_cost_stands_beside_the_result(train):
    outcome = train("model=gru", "train.steps=3")
    summary = read_json(outcome.folder / "seed_0" / "summary.json")
    plan = plan_for("task.length=12", "model.hidden_size=8", "model.embedding_size=4", "model=gru")
    assert summary["parameters"] == plan.cost.parameters
    assert summary["multiply_adds"] == plan.cost.multiply_adds
    assert summary["state_size"] == 8
    assert summary["bytes_kept"] == plan.cost.bytes_kept
    assert summary["ms_per_update"] == pytest.approx(1e3 / summary["steps_per_second"])
