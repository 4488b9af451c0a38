"""Clip events against norms computed by hand, for one model and for a stack of replicas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnlstm.training.clip import clip_gradients, clip_replicas

from support.pretend_device import DEVICE, PretendDevice


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


@pytest.mark.parametrize(("p", "norm", "largest"), [(1, 9.0, "a"), (2, math.sqrt(28.5), "b"), (math.inf, 4.0, "b")])
def test_another_norm_can_be_limited(p, norm, largest):
    given = [torch.tensor([2.5, -2.5]), torch.tensor([[4.0], [0.0]]), torch.zeros(0)]
    ours, theirs = parameters(*given), parameters(*given[:2])
    event = clip_gradients(zip("abc", ours, strict=True), "norm", norm / 2, norm_type=p)
    assert torch.nn.utils.clip_grad_norm_(theirs, norm / 2, norm_type=p).item() == pytest.approx(norm)
    for a, b in zip(ours, theirs, strict=False):
        torch.testing.assert_close(a.grad, b.grad)
    assert event.fired
    assert (event.norm_before, event.norm_after, event.coefficient) == pytest.approx((norm, norm / 2, 0.5), rel=1e-12)
    assert (event.euclidean_before, event.euclidean_after) == pytest.approx((28.5**0.5, 28.5**0.5 / 2), rel=1e-12)
    assert event.norms == pytest.approx({"a": 12.5**0.5, "b": 4.0, "c": 0.0}, rel=1e-12)
    assert event.largest_parameter == largest
    line = event.line()
    assert line.get("norm_type") == {1: 1, 2: None, math.inf: "inf"}[p]
    assert line["norm_before"] == event.norm_before
    assert not {"fired", "norms", "euclidean_before", "euclidean_after"} & line.keys()


def test_replicas_are_clipped_apart_by_another_norm():
    p = {"w": parameters(torch.tensor([[3.0, -4.0], [1.0, 1.0], [math.nan, 1.0]]))[0]}
    events = clip_replicas(p, "norm", 3.5, norm_type="inf")
    assert [e.fired for e in events] == [True, False, False]
    assert p["w"].grad[0].tolist() == [2.625, -3.5]
    assert [e.norm_before for e in events[:2]] == [4.0, 1.0]
    assert math.isnan(events[2].norm_before)


@pytest.mark.parametrize(("kind", "p"), [("norm", 3), ("norm", "max"), ("value", 1), ("none", "inf")])
def test_a_norm_type_that_makes_no_sense(kind, p):
    with pytest.raises(ValueError, match=r"^norm_type "):
        clip_gradients(parameters(torch.ones(2)), kind, 1.0, norm_type=p)


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


@settings(deadline=None, max_examples=60)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=6),
    names=st.lists(st.sampled_from(["weight_ih_l0", "weight_hh_l0", "weight_ih_l0#2"]), min_size=6, max_size=6),
    threshold=st.sampled_from([1e-3, 0.5, 2.0, 1e3]),
    complex_every=st.integers(1, 4),
    unnamed=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_clips_as_pytorch_does_whatever_the_names_and_shapes(shapes, names, threshold, complex_every, unnamed, seed):
    generator = torch.Generator().manual_seed(seed)
    dtypes = [torch.float64 if k % complex_every else torch.complex128 for k in range(len(shapes))]
    drawn = [torch.randn(s, generator=generator, dtype=d) for s, d in zip(shapes, dtypes, strict=True)]
    ours, theirs = ([torch.nn.Parameter(torch.zeros_like(g)) for g in drawn] for _ in range(2))
    for a, b, g in zip(ours, theirs, drawn, strict=True):
        a.grad, b.grad = g.clone(), g.clone()
    norm = torch.nn.utils.clip_grad_norm_(theirs, threshold).item()
    event = clip_gradients(ours if unnamed else zip(names, ours, strict=False), "norm", threshold)
    assert event.norm_before == pytest.approx(norm, rel=1e-12, abs=1e-300)
    assert len(event.norms) == len(drawn)
    assert list(event.norms.values()) == pytest.approx([g.norm().item() for g in drawn], rel=1e-12)
    # PyTorch's coefficient is threshold / (norm + 1e-6), at most 1.
    factor = (norm + 1e-6) / norm if event.fired else 1.0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad * factor, rtol=1e-12, atol=0)
    after = torch.nn.utils.get_total_norm([p.grad for p in ours]).item()
    assert event.norm_after == pytest.approx(after, rel=1e-12, abs=1e-300)


def test_equal_names_get_a_suffix_and_a_tensor_listed_twice_counts_once():
    p = parameters(torch.tensor([3.0]), torch.tensor([4.0]), torch.tensor([12.0]), torch.tensor([84.0]))
    listed = [("w", p[0]), ("w#2", p[1]), ("w", p[2]), ("b", p[0]), ("w", p[3]), ("w", p[3])]
    event = clip_gradients(listed, "norm", 8.5)
    assert event.norms == {"w": 3.0, "w#2": 4.0, "w#3": 12.0, "w#4": 84.0}
    assert event.norm_before == 85.0
    assert event.largest_parameter == "w#4"
    assert [q.grad.item() for q in p] == pytest.approx([0.3, 0.4, 1.2, 8.4])


def test_two_networks_in_one_list_are_clipped_together():
    networks = [torch.nn.LSTM(3, 4), torch.nn.LSTM(3, 4)]
    x = torch.randn(5, 2, 3)
    for factor, network in zip((1.0, 3.0), networks, strict=True):
        (factor * network(x)[0].sum()).backward()
    named = [pair for network in networks for pair in network.named_parameters()]
    gradients = [p.grad.clone() for _, p in named]
    whole = math.sqrt(sum(g.double().square().sum().item() for g in gradients))
    event = clip_gradients(named, "norm", whole / 2)
    assert event.norm_before == pytest.approx(whole, rel=1e-12)
    assert {"weight_ih_l0", "weight_ih_l0#2"} < set(event.norms)
    for (_, p), g in zip(named, gradients, strict=True):
        torch.testing.assert_close(p.grad, g / 2)


@pytest.mark.parametrize("kind", ["norm", "value", "none"])
def test_a_single_number_is_a_parameter_too(kind):
    p = parameters(torch.tensor(-3.0), torch.tensor([4.0]))
    event = clip_gradients([("a", p[0]), ("b", p[1])], kind, 2.5)
    assert event.norm_before == 5.0
    assert event.norms == {"a": 3.0, "b": 4.0}
    assert event.clipped_share == (1.0 if kind == "value" else None)
    after = {"norm": [-1.5, 2.0], "value": [-2.5, 2.5], "none": [-3.0, 4.0]}[kind]
    assert [q.grad.item() for q in p] == pytest.approx(after)
    stack = {"a": parameters(torch.tensor([-3.0, 0.1]))[0]}
    first, second = clip_replicas(stack, kind, 2.5)
    assert (first.fired, second.fired) == (kind != "none", False)
    assert stack["a"].grad.tolist() == pytest.approx([-3.0 if kind == "none" else -2.5, 0.1])


def test_a_complex_gradient_is_clipped_by_its_norm_and_by_value_refused():
    p = torch.zeros(1, dtype=torch.complex64, requires_grad=True)
    p.grad = torch.tensor([3 + 4j])
    assert clip_gradients([p], "none").norm_before == 5.0
    p.grad = torch.tensor([3 + 4j])
    event = clip_gradients([p], "norm", 2.5)
    assert (event.norm_before, event.coefficient, event.fired) == (5.0, 0.5, True)
    assert p.grad.tolist() == [1.5 + 2j]
    p.grad = torch.tensor([3 + 4j])
    with pytest.raises(ValueError, match=r"^the gradient of w is complex: .*; clip by norm$"):
        clip_gradients([("w", p)], "value", 1.0)
    assert p.grad.tolist() == [3 + 4j]


@pytest.mark.parametrize("kind", ["norm", "value", "none"])
def test_a_sparse_gradient_is_refused_in_one_line(kind):
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 3])).sum().backward()
    with pytest.raises(ValueError, match=r"^the gradient of weight is sparse_coo; clipping needs dense gradients"):
        clip_gradients(embedding.named_parameters(), kind, 1.0)


def test_a_single_tensor_is_a_list_of_one():
    (p,) = parameters(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    event = clip_gradients(p, "norm", 1.0)
    assert (event.norm_before, event.norms) == (5.0, {"0": 5.0})
    torch.testing.assert_close(p.grad, torch.tensor([[0.6, 0.0], [0.0, 0.8]]))


@pytest.mark.parametrize(
    "wrong", [torch.nn.Linear(2, 2), [torch.nn.Linear(2, 2)], {"w": torch.ones(2)}, [("w", 1.0)], ["w"], None]
)
def test_what_is_no_parameter_is_refused_in_one_line(wrong):
    with pytest.raises(TypeError, match=r"^parameters must be tensors, or pairs of a name and a tensor"):
        clip_gradients(wrong)


@pytest.mark.parametrize("kind", ["norm", "value"])
def test_parameters_on_two_devices_are_clipped_together(kind):
    with PretendDevice():
        (here,) = parameters(torch.tensor([3.0]))
        there = torch.zeros(1).to(DEVICE).requires_grad_()
        there.grad = torch.tensor([4.0]).to(DEVICE)
        event = clip_gradients([here, there], kind, 2.5)
        assert event.norm_before == 5.0
        after = [1.5, 2.0] if kind == "norm" else [2.5, 2.5]
        assert [here.grad.item(), there.grad.item()] == pytest.approx(after)
