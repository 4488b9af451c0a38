"""What the fused kernel is handed is checked before a pointer is taken; and what else may change its results."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import rnnlstm
from rnnlstm.recurrence.fused import pool
from rnnlstm.recurrence.fused.build import load_kernel

from support.commands import ENVIRONMENT

FUZZ = Path(__file__).parents[1] / "support" / "kernel_fuzz.py"
NAMES = ["RNN", "LSTM", "GRU"]
needs_kernel = pytest.mark.skipif(load_kernel(torch.float32) is None, reason="no C compiler: only the portable loops")


def fuzz(first, count):
    line = [sys.executable, str(FUZZ), str(first), str(count)]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stdout.splitlines()[-1], done.stderr[-2000:])


@pytest.mark.slow
def test_three_hundred_random_mixes_end_in_the_references_result_or_an_exception():
    fuzz(0, 300)


@pytest.mark.long
def test_ten_thousand_random_mixes_end_in_the_references_result_or_an_exception():
    fuzz(1000, 10_000)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("change", "said"), [
    (lambda w: w.bfloat16(), "weight_hh is torch.bfloat16"),
    (lambda w: w.double(), "weight_hh is torch.float64"),
    (lambda w: w[:3], r"weight_hh has shape \(3, 4\)"),
    (lambda w: w[:, :2], r"weight_hh has shape \(\d+, 2\)"),
    (lambda w: w.to("meta"), "weight_hh on meta"),
])  # fmt: skip
def test_a_weight_that_does_not_fit_is_an_error(name, change, said):
    module = getattr(rnnlstm, name)(3, 4)
    del module.weight_hh_l0
    module.weight_hh_l0 = change(torch.randn(module.weight_ih_l0.shape[0], 4))  # as a parametrization would
    with pytest.raises(RuntimeError, match=said):
        module(torch.randn(5, 2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_states_and_input_on_another_device_are_an_error(name):
    module, x = getattr(rnnlstm, name)(3, 4), torch.randn(5, 2, 3)
    state = torch.zeros(1, 2, 4, device="meta")
    with pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
        module(x, (state, state) if name == "LSTM" else state)
    with pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
        module(x.to("meta"))
    assert getattr(rnnlstm, name)(3, 4, device="meta")(x.to("meta"))[0].shape == (5, 2, 4)


@pytest.mark.parametrize("state_type", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("input_type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_it_is_as_exact_as_torch_nn_and_of_its_type(name, input_type, weight_type, state_type):
    torch.manual_seed(0)
    exact, theirs, ours = (getattr(module, name)(3, 128) for module in (torch.nn, torch.nn, rnnlstm))
    theirs.load_state_dict(exact.state_dict()), ours.load_state_dict(exact.state_dict())
    x, state = torch.randn(5, 2, 3), torch.ones(1, 2, 128)

    def given(dtype):
        return None if dtype is None else ((state.to(dtype),) * 2 if name == "LSTM" else state.to(dtype))

    expected = exact(x, given(None if state_type is None else torch.float32))[0]
    found = []
    for module in (theirs, ours):
        module.to(weight_type)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, last = module(x.to(input_type), given(state_type))
        out.float().sum().backward()
        found.append((out, last[0] if name == "LSTM" else last, module.weight_hh_l0.grad))
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
    errors = [(out.float() - expected).abs().max() for out, _, _ in found]
    assert errors[1] <= errors[0] + 1e-3
    assert torch.allclose(found[0][2].float(), found[1][2].float(), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("name", NAMES)
def test_it_follows_a_linear_layer_under_autocast(name):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = getattr(rnnlstm, name)(4, 4)(torch.nn.Linear(3, 4)(torch.randn(5, 2, 3)))[0]
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_gives_the_same_gradients(name, reentrant):
    torch.manual_seed(0)
    module, x = getattr(rnnlstm, name)(3, 4), torch.randn(5, 2, 3)
    found = []
    for call in (lambda leaf: module(leaf), lambda leaf: checkpoint(module, leaf, use_reentrant=reentrant)):
        leaf = x.clone().requires_grad_()
        module.zero_grad()
        call(leaf)[0].square().sum().backward()
        found.append([leaf.grad, *(w.grad for w in module.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@needs_kernel
@pytest.mark.parametrize("name", NAMES)
def test_denormal_gradients_are_zero_on_every_thread_and_the_callers_mode_stays(name):
    torch.manual_seed(0)
    module, x = getattr(rnnlstm, name)(9, 33), torch.randn(20, 64, 9)
    reference = getattr(rnnlstm, name)(9, 33, backend="reference")
    reference.load_state_dict(module.state_dict())
    cotangent = 1e-38 * torch.randn(20, 64, 33)
    leaf = x.clone().requires_grad_()
    reference(leaf)[0].backward(cotangent)
    kept, tiny = leaf.grad, torch.finfo(torch.float32).tiny
    assert ((kept != 0) & (kept.abs() < tiny)).any()  # the case arises
    before, found = torch.get_num_threads(), []
    try:
        for flush, threads in ((False, 4), (True, 1), (True, 2), (True, 4)):  # workers start before it is set
            torch.set_flush_denormal(flush)
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            module(leaf)[0].backward(cotangent)
            found.append(leaf.grad)
            assert torch.equal(torch.tensor([tiny]) / 2 == 0, torch.tensor([flush]))
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
    assert not ((found[0] != 0) & (found[0].abs() < tiny)).any()
    assert all(torch.equal(found[0], other) for other in found[1:])
    torch.testing.assert_close(found[0], kept, rtol=1e-4, atol=1e-37)


@pytest.mark.parametrize("name", ["RNN", "GRU"])
def test_an_output_may_be_changed_in_place_as_torch_nns_may(name):
    torch.manual_seed(0)
    theirs, ours = getattr(torch.nn, name)(3, 4), getattr(rnnlstm, name)(3, 4)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 2, 3)
    for module in (theirs, ours):
        module(x)[0].mul_(2).sum().backward()
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("name", NAMES)
def test_a_large_output_can_be_resized(name):
    module, x = getattr(rnnlstm, name)(3, 64), torch.randn(100, 64, 3)
    with torch.no_grad():
        module(x)[0].resize_(200, 64, 64)
    module(x)[0].detach().resize_(200, 64, 64)


@needs_kernel
def test_buffers_of_many_lengths_do_not_pile_up(monkeypatch):
    """Together they are at most a quarter more than what was in use at once."""
    monkeypatch.setattr(pool, "_POOL", pool._Pool())
    module = rnnlstm.LSTM(8, 64)
    one = module(torch.randn(139, 64, 8))[0]
    used = pool._POOL.used
    del one
    gc.collect()
    for T in range(20, 140):
        module(torch.randn(T, 64, 8))[0].sum().backward()
    waiting = sum(memory.nbytes for memory in pool._POOL.waiting)
    assert pool._POOL.peak <= pool.SLACK * used
    assert 0 < waiting + pool._POOL.used <= pool.SLACK * pool._POOL.peak


def test_fake_tensors_pass_through():
    with FakeTensorMode():
        assert rnnlstm.LSTM(3, 4)(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)


def test_storage_that_was_freed_is_an_error():
    module, x = rnnlstm.LSTM(3, 4), torch.randn(5, 2, 3)
    out = module(x)[0]
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="no memory"):
        out.sum().backward()
