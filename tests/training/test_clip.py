"""Clip events against norms computed by hand, for one model and for a stack of replicas."""

from __future__ import annotations

import math

import pytest
import torch

from rnnlstm.training.clip import clip_gradients, clip_replicas


def parameters(*gradients):
    """Parameters with these gradients, as a backward pass leaves them."""
    result = []
    for g in gradients:
        p = torch.zeros_like(g, requires_grad=True)
        (p * g).sum().backward()
        result.append(p)
    return result


def test_norm_fires_and_scales_all_parameters_together():
    p = parameters(torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]))
    event = clip_gradients([("a", p[0]), ("b", p[1])], "norm", 2.0, step=7)
    assert event.fired
    assert (event.step, event.kind, event.threshold) == (7, "norm", 2.0)
    assert event.norm_before == 5.0
    assert event.coefficient == pytest.approx(0.4, rel=1e-15)
    assert event.norm_after == pytest.approx(2.0, rel=1e-15)
    assert event.clipped_share is None
    assert event.largest_parameter == "b"
    assert event.norms == {"a": 3.0, "b": 4.0}
    torch.testing.assert_close(p[0].grad, torch.tensor([1.2, 0.0]))
    torch.testing.assert_close(p[1].grad, torch.tensor([[1.6]]))


def test_norm_below_its_threshold_changes_no_bit():
    g = torch.randn(5)
    p = parameters(g)
    event = clip_gradients(p, "norm", 100.0)
    assert not event.fired
    assert event.coefficient == 1.0
    assert event.norm_after == event.norm_before
    assert torch.equal(p[0].grad, g)
    assert event.largest_parameter == "0"


def test_value_cuts_entries():
    p = parameters(torch.tensor([3.0, -0.5, 0.5, -4.0]))
    event = clip_gradients(p, "value", 1.0)
    assert event.fired
    assert event.coefficient is None
    assert event.clipped_share == 0.5
    assert event.norm_before == pytest.approx(math.sqrt(25.5))
    assert event.norm_after == pytest.approx(math.sqrt(2.5))
    assert p[0].grad.tolist() == [1.0, -0.5, 0.5, -1.0]


def test_none_measures_and_ignores_the_threshold():
    p = parameters(torch.tensor([30.0, 40.0]))
    event = clip_gradients(p, "none", 1.0)
    assert not event.fired
    assert event.threshold is None
    assert event.norm_before == event.norm_after == 50.0
    assert p[0].grad.tolist() == [30.0, 40.0]


def test_a_norm_beyond_float32_is_finite_and_clipped():
    p = parameters(torch.full((4,), 1e30))
    event = clip_gradients(p, "norm", 1.0)
    assert event.norm_before == pytest.approx(2e30, rel=1e-6)
    torch.testing.assert_close(p[0].grad, torch.full((4,), 0.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["norm", "value"])
def test_what_is_not_finite_is_left_alone(kind, bad):
    p = parameters(torch.tensor([5.0, bad]))
    event = clip_gradients(p, kind, 1.0)
    assert not event.fired
    assert not math.isfinite(event.norm_before)
    assert p[0].grad[0] == 5.0


def test_replicas_are_clipped_apart():
    g = torch.tensor([[3.0, 4.0], [0.3, 0.4], [math.nan, 1.0]])
    p = {"w": parameters(g)[0]}
    events = clip_replicas(p, "norm", 1.0)
    assert [e.fired for e in events] == [True, False, False]
    assert events[0].norm_before == 5.0
    torch.testing.assert_close(p["w"].grad[0], torch.tensor([0.6, 0.8]))
    assert torch.equal(p["w"].grad[1], g[1])
    assert p["w"].grad[2, 1] == 1.0


def test_absent_and_stale_gradients_are_refused():
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="no parameter has a gradient"):
        clip_gradients([w])
    (5 * w).sum().backward()
    clip_gradients([w])
    with pytest.raises(RuntimeError, match="clipped already"):
        clip_gradients([w])
    (5 * w).sum().backward()  # accumulates into the same tensor
    assert clip_gradients([w]).fired
    w.grad = None
    (5 * w).sum().backward()
    assert clip_gradients([w]).fired


@pytest.mark.parametrize(("kind", "threshold"), [("norm", 0.0), ("value", -1.0), ("norm", math.nan), ("size", 1.0)])
def test_senseless_arguments(kind, threshold):
    with pytest.raises(ValueError):
        clip_gradients(parameters(torch.ones(2)), kind, threshold)
