"""Fixed points, slow points and cycles, held against networks whose dynamics are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rnnlstm.config.errors import ConfigError
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.dynamics import (
    PERIODS,
    SAME,
    _periods,
    _told,
    dynamics,
    held_step,
    jacobians,
    minimise,
    time_constants,
)

from support.training import KINDS, plan_for

#: The positive solution of h = tanh(2h).
LATCH = 0.9575040240772687


def network(model, *further, hidden_size=1, texts=16):
    """An analysed network on keyword recall with two dishes, T = 12, whose weights a test may change."""
    sizes = ("task.num_keywords=2", f"model.hidden_size={hidden_size}", "model.embedding_size=4")
    plan = plan_for(f"model={model}", "task.length=12", *sizes, *further)
    return AnalysedNetwork.of(plan.task, plan.network(0), plan.task.sample(0, 0, "probe", texts))


def one_unit(w):
    """h_t = tanh(w h_{t−1} + x_t), where x is 1 at the first dish, −1 at the second, and 0 elsewhere."""
    one = network("rnn", "task.decoys=0")
    with torch.no_grad():
        for weight in one.network.parameters():
            weight.zero_()
        one.network.embedding.weight[0, 0], one.network.embedding.weight[1, 0] = 1, -1
        one.network.recurrence.get_parameter("weight_ih_l0")[0, 0] = 1
        one.network.recurrence.get_parameter("weight_hh_l0")[0, 0] = w
        one.network.readout.weight.copy_(torch.tensor([[1.0], [-1]]))
    return one


def test_a_latch_of_one_unit_has_an_attractor_for_each_word():
    found = dynamics(one_unit(2.0), held=200)
    points = sorted((orbit.states.item(), orbit) for orbit in found.orbits)
    assert [state for state, _ in points] == pytest.approx([-LATCH, LATCH], abs=1e-12)
    for _, point in points:
        slope = 2 * (1 - LATCH**2)
        assert (point.kind, point.unstable, point.attracts) == ("fixed point", 0, True)
        assert point.eigenvalues.real.item() == pytest.approx(slope)
        assert point.time_constants.item() == pytest.approx(-1 / math.log(slope))
        assert point.speed < 1e-9
    assert [int(point.outputs.argmax()) for _, point in points] == [1, 0]
    assert found.named == {0, 1}
    assert sum(point.ends for _, point in points) == 16
    assert (found.at_rest, found.cycling) == (1, 0)
    assert found.right.min() == found.told.min() == 1
    assert found.after == [0, 12, 120, 200]


def test_texts_that_end_earlier_are_left_where_they_end():
    """The state runs on from before each text's own question; what follows is no state of the text."""
    plan = plan_for("model=rnn", "task.length=12", "task.shortest=3", "model.hidden_size=4", "model.embedding_size=4")
    one = AnalysedNetwork.of(plan.task, plan.network(0), plan.task.sample(0, 0, "probe", 16))
    found = dynamics(one, held=3)
    ends = one.batch.mask.int().argmax(0)
    assert ends.min() < ends.max() == found.length - 1
    assert found.visited.isfinite().all(2).sum(0).tolist() == ends.tolist()
    state = one.path.states[0]["hidden"][ends - 1, torch.arange(16)]
    w, h = one.weights(0)["weight_hh"], held_step(one)(state)
    expected = torch.linalg.eigvals((1 - h**2)[:, :, None] * w).abs().sort(1, descending=True).values
    assert found.on_the_way.abs().tolist() == [pytest.approx(row) for row in expected.tolist()]
    x = one.path.inputs[0][one.batch.kinds == 1].mean(0)
    assert torch.allclose(
        h, torch.tanh(one.cell.project(x, one.weights(0)) + one.cell.recurrent(state, one.weights(0)))
    )


def test_between_the_two_lies_a_point_that_repels():
    step = held_step(one_unit(2.0))
    states, speeds = minimise(step, torch.tensor([[0.05], [-0.3], [0.8]], dtype=torch.float64))
    assert speeds.max() < 1e-9
    assert states[:, 0].tolist() == pytest.approx([0, 0, LATCH], abs=1e-9)
    assert jacobians(step, states)[0].item() == pytest.approx(2)


def test_a_cycle_keeps_a_word_as_its_phase():
    """h ← tanh(−2h) alternates between ±LATCH: answers always tell the dish, and are right at every other step."""
    found = dynamics(one_unit(-2.0), held=120)
    (cycle,) = [orbit for orbit in found.orbits if orbit.ends]
    assert (cycle.kind, cycle.ends, cycle.unstable) == ("cycle of 2", 16, 0)
    assert cycle.states[:, 0].abs().tolist() == pytest.approx([LATCH] * 2)
    assert cycle.states.sum().abs() < 1e-9
    slope = 2 * (1 - LATCH**2)
    assert cycle.eigenvalues.real.item() == pytest.approx(slope**2)
    assert cycle.time_constants.item() == pytest.approx(-1 / math.log(slope))
    assert (found.at_rest, found.cycling) == (0, 1)
    assert found.named == set()
    assert found.told.min() == 1
    assert (found.right[1:] - found.right[:-1]).abs().tolist() == [1.0] * 120
    assert found.over(found.right, 120) == 0.5


@pytest.mark.parametrize("hidden_size", [1, 6])
def test_a_linear_network_has_one_point_and_the_eigenvalues_of_its_matrix(hidden_size):
    one = network("linear", "model.gain=0.7", hidden_size=hidden_size)
    w, x = one.weights(0), one.path.inputs[0][one.batch.kinds == 1].mean(0)
    push = w["weight_ih"] @ x + w["bias_ih"] + w["bias_hh"]
    expected = torch.linalg.solve(torch.eye(hidden_size, dtype=torch.float64) - w["weight_hh"], push)
    found = dynamics(one, held=200)
    (point,) = found.orbits
    assert torch.allclose(point.states[0], expected, atol=1e-12)
    assert sorted(point.eigenvalues.tolist(), key=lambda v: (round(v.real, 9), v.imag)) == pytest.approx(
        sorted(np.linalg.eigvals(w["weight_hh"].numpy()).tolist(), key=lambda v: (round(v.real, 9), v.imag))
    )
    assert point.slow_directions(2.7) == hidden_size  # −1/ln 0.7 = 2.80
    assert point.slow_directions(2.9) == 0


def test_an_lstm_with_fixed_gates():
    """c* = i g / (1 − f), h* = o tanh(c*); the eigenvalues are f for each unit, and 0."""
    one, H = network("lstm", hidden_size=3), 3
    biases = torch.tensor([0.5, 3.0, -0.4, 1.0], dtype=torch.float64)
    with torch.no_grad():
        for weight in one.network.recurrence.parameters():
            weight.zero_()
        one.network.recurrence.get_parameter("bias_ih_l0").copy_(biases.repeat_interleave(H))
    i, f, o = (torch.sigmoid(biases[k]).item() for k in (0, 1, 3))
    found = dynamics(one, held=1000)
    (point,) = found.orbits
    c = i * math.tanh(-0.4) / (1 - f)
    assert point.states[0].tolist() == pytest.approx([o * math.tanh(c)] * H + [c] * H)
    assert point.eigenvalues.abs().tolist() == pytest.approx([f] * H + [0] * H, abs=1e-12)
    assert point.time_constants[0].item() == pytest.approx(-1 / math.log(f))
    assert point.slow_directions(12) == found.slow_on_the_way == H
    assert point.slow_directions(25) == 0


def test_a_state_that_overflows_is_refused_and_one_that_grows_is_not():
    found = dynamics(network("linear", "model.gain=5"), held=1000)
    (point,) = found.orbits
    assert (point.unstable, point.ends, found.at_rest, found.cycling) == (1, 0, 0, 0)
    assert found.right[-1] == 0  # overflown: no answer
    one = network("linear", "model.gain=1000", "task.length=150")
    with pytest.raises(ConfigError, match="overflow before the question"):
        dynamics(one)


def test_the_jacobian_of_a_tanh_rnn_is_its_formula():
    one = network("rnn", hidden_size=5)
    step, W = held_step(one), one.weights(0)["weight_hh"]
    states = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [np.diag(1 - after**2) @ W.numpy() for after in step(states).numpy()]
    assert np.allclose(jacobians(step, states).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("model", KINDS)
def test_points_of_every_kind_of_cell(model):
    """Jacobians are difference quotients; fixed points stand still; no two points are one."""
    one = network(model, hidden_size=4, texts=8)
    step = held_step(one)
    N = 4 * len(one.cell.state_names)
    states = 0.5 * torch.randn(3, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = 1e-6 * torch.eye(N, dtype=torch.float64)
    quotient = (step(states[:, None] + shift) - step(states[:, None] - shift)) / 2e-6  # (3, N before, N after)
    assert torch.allclose(jacobians(step, states), quotient.mT, atol=1e-7)
    saved = {name: w.clone() for name, w in one.network.state_dict().items()}
    found = dynamics(one, held=20)
    assert found.orbits
    for orbit in found.orbits:
        if orbit.fixed and orbit.period == 1:
            assert torch.allclose(step(orbit.states), orbit.states, atol=1e-7)
    points = torch.cat([orbit.states for orbit in found.orbits if orbit.period == 1])
    apart = torch.cdist(points, points) + torch.eye(len(points)) * 1e9
    assert apart.min() > SAME * found.spread
    assert all(torch.equal(w, saved[name]) for name, w in one.network.state_dict().items())


def test_a_slow_point_is_a_minimum_of_the_speed():
    """s ← s + 0.01 + s² never stands still: its speed is least at 0, where the eigenvalue is 1."""

    def step(s):
        return s + 0.01 + s**2

    states, speeds = minimise(step, torch.tensor([[-0.5], [0.3]], dtype=torch.float64))
    assert states.abs().max() < 1e-4
    assert speeds.tolist() == pytest.approx([0.01] * 2)
    assert jacobians(step, states)[:, 0, 0].tolist() == pytest.approx([1, 1], abs=1e-3)


def test_the_period_of_a_rotation():
    def turned(angle):
        steps = angle * torch.arange(PERIODS + 1, dtype=torch.float64)
        return torch.stack([steps.cos(), steps.sin()], -1)

    onwards = torch.stack([turned(2 * math.pi * share) for share in (1 / 5, 2 / 5, 1 / 60, 0, 0.5**0.5)], 1)
    assert _periods(onwards).tolist() == [5, 5, 60, 1, 0]


def test_what_answers_tell_of_a_class_by_hand():
    target = torch.tensor([0, 0, 1, 1, 2, 2])
    for answers, told in (
        ([0, 0, 1, 1, 2, 2], 1), ([1, 1, 2, 2, 0, 0], 1), ([1] * 6, 1 / 3), ([0, 1, 0, 1, 2, -1], 4 / 6),
    ):  # fmt: skip
        assert _told(torch.tensor(answers), target).item() == pytest.approx(told)


def test_time_constants():
    values = torch.tensor([0, math.exp(-1), math.exp(-0.01), 1, math.e], dtype=torch.complex128)
    assert time_constants(values).tolist() == pytest.approx([0, 1, 100, math.inf, -1])
