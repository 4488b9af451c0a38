"""The fused backend, native and portable: against the reference over random shapes, and what is special to it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnlstm
from rnnlstm.cells import make_cell
from rnnlstm.recurrence import Recurrence
from rnnlstm.recurrence.fused import engine, native, portable
from rnnlstm.recurrence.fused.build import load_kernel

CELLS = [
    ("RNN", {"nonlinearity": "tanh"}),
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"nonlinearity": "sigmoid"}),
    ("RNN", {"nonlinearity": "identity"}),
    ("RNN", {"nonlinearity": "centred_sigmoid"}),
    ("RNN", {"nonlinearity": "steep_sigmoid"}),
    ("RNN", {"nonlinearity": "wide_steep_sigmoid"}),
    ("LSTM", {}),
    ("LSTM1997", {}),
    ("GRU", {}),
]


def make(name, I, H, L=1, **options):  # noqa: E741
    """A recurrence by its class's name, or by its cell's where it has no class of its own."""
    if name == "LSTM1997":
        return Recurrence(make_cell("lstm_1997"), I, H, L, **options)
    return getattr(rnnlstm, name)(I, H, L, **options)


needs_kernel = pytest.mark.skipif(load_kernel(torch.float64) is None, reason="no C compiler: only the portable loops")
ENGINES = [pytest.param(native, marks=needs_kernel, id="native"), pytest.param(portable, id="portable")]


@pytest.fixture(autouse=True)
def choose(request, monkeypatch):
    """Tests with a parameter `chosen` run on that engine."""
    if "chosen" in request.fixturenames:
        chosen = request.getfixturevalue("chosen")
        monkeypatch.setattr(engine, "native" if chosen is native else "portable", chosen)
        monkeypatch.setattr("rnnlstm.recurrence.fused.function.engine_for", lambda *_: chosen)


def run(module, x, states, cotangents):
    """Outputs, last states, gradients for input, states and weights."""
    leaves = [x, *states, *module.parameters()]
    out, last = module(x, states[0] if len(states) == 1 else tuple(states))
    results = [out, *([last] if isinstance(last, torch.Tensor) else last)]
    total = sum((result * cotangent).sum() for result, cotangent in zip(results, cotangents, strict=True))
    return results + list(torch.autograd.grad(total, leaves))


def pair(name, options, T, B, I, H, L, dtype=torch.float64):  # noqa: E741
    """(fused, reference, input, initial states, cotangents)"""
    fused, reference = (
        make(name, I, H, L, backend=backend, dtype=dtype, **options) for backend in ("fused", "reference")
    )
    fused.load_state_dict(reference.state_dict())
    x = torch.randn(T, B, I, dtype=dtype, requires_grad=True)
    count = 2 if name.startswith("LSTM") else 1
    states = [torch.randn(L, B, H, dtype=dtype, requires_grad=True) for _ in range(count)]
    cotangents = [torch.randn(T, B, H, dtype=dtype), *(torch.randn(L, B, H, dtype=dtype) for _ in range(count))]
    return fused, reference, x, states, cotangents


@pytest.mark.parametrize("chosen", ENGINES)
@pytest.mark.parametrize(("name", "options"), CELLS)
def test_equal_to_the_reference_over_shapes(name, options, chosen):
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(1, 9), st.integers(1, 70), st.integers(1, 40), st.integers(1, 70), st.integers(1, 2))
    def check(T, B, I, H, L):  # noqa: E741
        torch.manual_seed(T + 100 * B + H)
        fused, reference, x, states, cotangents = pair(name, options, T, B, I, H, L)
        for a, b in zip(run(fused, x, states, cotangents), run(reference, x, states, cotangents), strict=True):
            assert (a - b).abs().max() <= 1e-10 * max(b.abs().max(), 1e-300)

    check()


@pytest.mark.parametrize("chosen", ENGINES)
@pytest.mark.parametrize(("name", "options"), CELLS)
def test_gradients_agree_with_finite_differences(name, options, chosen):
    torch.manual_seed(0)
    module = make(name, 3, 4, backend="fused", dtype=torch.float64, **options)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *w: module(x)[0], (x, *module.parameters()))


@pytest.mark.parametrize("chosen", ENGINES)
@pytest.mark.parametrize(("name", "options"), CELLS)
def test_float32_is_no_worse_than_twice_pytorchs(name, options, chosen):
    if options.get("nonlinearity", "tanh") not in ("tanh", "relu"):
        options = {"nonlinearity": "tanh"}  # PyTorch has no such module to be held against
    if name == "LSTM1997":
        pytest.skip("PyTorch has no such module to be held against")
    torch.manual_seed(0)
    errors = {"ours": [], "theirs": []}
    for _ in range(5):
        theirs = getattr(torch.nn, name)(10, 64, **options)
        ours, exact = (
            getattr(rnnlstm, name)(10, 64, backend="fused", dtype=d, **options) for d in (None, torch.float64)
        )
        ours.load_state_dict(theirs.state_dict()), exact.load_state_dict(theirs.state_dict())
        x = torch.randn(60, 16, 10)
        cotangent = torch.randn(60, 16, 64)
        results = {}
        for key, module in (("ours", ours), ("theirs", theirs), ("exact", exact)):
            inputs = x.to(next(module.parameters()).dtype)
            out = module(inputs)[0]
            results[key] = [
                out,
                *torch.autograd.grad((out * cotangent.to(out.dtype)).sum(), list(module.parameters())),
            ]
        for key, found in errors.items():
            found.append(
                [
                    ((a.double() - b).norm() / b.norm()).item()
                    for a, b in zip(results[key], results["exact"], strict=True)
                ]
            )
    ours, theirs = (torch.tensor(errors[key]).mean(0) for key in ("ours", "theirs"))
    assert (ours <= 2 * theirs).all(), (ours, theirs)


@needs_kernel
@pytest.mark.parametrize(("name", "options"), CELLS)
def test_every_bit_is_the_same_for_any_number_of_threads(name, options):
    torch.manual_seed(0)
    fused, _, x, states, cotangents = pair(name, options, 20, 70, 9, 33, 1, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(fused, x, states, cotangents))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_kernel
def test_live_graphs_share_no_buffer_and_dead_ones_leave_theirs():
    from rnnlstm.recurrence.fused import pool

    like = torch.zeros(1)
    first, second = pool.empty(like, 1 << 19), pool.empty(like, 1 << 19)
    assert first.data_ptr() != second.data_ptr()
    place, kept = first.data_ptr(), first[5:]
    del first
    third = pool.empty(like, 1 << 19)
    assert third.data_ptr() != place  # a view is still there
    del kept
    assert pool.empty(like, 1 << 19).data_ptr() == place


@pytest.mark.parametrize("chosen", ENGINES)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "LSTM1997", "GRU"])
def test_second_derivatives_are_refused_by_name(name, chosen):
    module = make(name, 3, 4, backend="fused")
    x = torch.randn(5, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="backend='reference'"):
        gradient.sum().backward()


@pytest.mark.parametrize("chosen", ENGINES)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "LSTM1997", "GRU"])
def test_per_sample_gradients_by_vmap_of_grad(name, chosen):
    torch.manual_seed(0)
    fused, reference = (make(name, 3, 4, backend=b, dtype=torch.float64) for b in ("fused", "reference"))
    weights = dict(reference.named_parameters())
    x = torch.randn(6, 5, 2, 3, dtype=torch.float64)

    def gradients(module):
        def loss(w, sample):
            return torch.func.functional_call(module, w, (sample,))[0].square().sum()

        return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)

    for name, gradient in gradients(fused).items():
        torch.testing.assert_close(gradient, gradients(reference)[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chosen", ENGINES)
def test_used_twice_accumulated_kept_and_without_gradients(chosen):
    torch.manual_seed(0)
    fused, reference, x, _, _ = pair("LSTM", {}, 6, 3, 4, 5, 1)
    for module in (fused, reference):
        first, state = module(x)
        second, _ = module(x.flip(0), state)
        loss = (first * second).sum()
        loss.backward(retain_graph=True)
        loss.backward()  # twice, and added up
    for a, b in zip(fused.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        out, _ = fused(x)
        assert not out.requires_grad
        torch.testing.assert_close(out, reference(x)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chosen", ENGINES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("name", "options"), CELLS)
def test_what_is_not_finite_passes_as_in_the_reference(name, options, bad, chosen):
    torch.manual_seed(0)
    fused, reference, x, states, cotangents = pair(name, options, 4, 5, 3, 9, 1, torch.float32)
    with torch.no_grad():
        x[1, 2, 0] = bad
    for a, b in zip(run(fused, x, states, cotangents)[:2], run(reference, x, states, cotangents)[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_the_portable_path(dtype):
    module = rnnlstm.LSTM(3, 4, backend="fused", dtype=dtype)
    out, _ = module(torch.randn(5, 2, 3, dtype=dtype))
    out.float().sum().backward()
    assert out.dtype == dtype
    assert engine.engine_for(out) is portable


@pytest.mark.slow
def test_without_a_compiler_it_works_and_says_so_once(tmp_path):
    code = (
        "import torch, rnnlstm; from rnnlstm.recurrence.fused.engine import engine_for\n"
        "for _ in range(3): rnnlstm.LSTM(3, 4)(torch.zeros(5, 2, 3))[0].sum().backward()\n"
        "print(engine_for(torch.zeros(1)).__name__)"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("CC", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("portable")
    assert done.stderr.count("no C compiler was found; install gcc or clang") == 1


@pytest.mark.slow
@needs_kernel
def test_a_cache_that_others_can_write_to_is_not_loaded(tmp_path):
    (tmp_path / "rnnlstm").mkdir(mode=0o777)
    (tmp_path / "rnnlstm").chmod(0o777)
    code = "import torch; from rnnlstm.recurrence.fused.build import load_kernel; print(load_kernel(torch.float32))"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "None"
    assert "can be written to by others" in done.stderr


@pytest.mark.slow
@needs_kernel
def test_memory_is_flat_over_many_calls():
    import resource

    module, x = rnnlstm.LSTM(4, 8, backend="fused"), torch.randn(6, 4, 4)

    def calls(count):
        for _ in range(count):
            module(x)[0].sum().backward()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    start = calls(1_000)
    assert calls(10_000) - start < 4_096  # kB


@pytest.mark.parametrize("chosen", ENGINES)
@pytest.mark.parametrize(("name", "options"), [*CELLS[:1], *CELLS[4:]])
def test_norms_by_block_and_step(name, options, chosen):
    from rnnlstm.recurrence.fused import Tape, fused_pass

    torch.manual_seed(0)
    module = make(name, 3, 4, dtype=torch.float64, backend="fused", **options)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    zeros = tuple(torch.zeros(2, 4, dtype=torch.float64) for _ in module.cell.state_names)
    tape = Tape()
    fused_pass(module.cell, x, zeros, module.layer_weights(0), tape).outputs.square().sum().backward()
    assert tape.blocks.shape == (1, 5, {"RNN": 1, "LSTM1997": 3}.get(name, 4))
    # The bias gets the sum over time and batch of the same gradients: check against one sequence and one step.
    one = torch.randn(1, 1, 3, dtype=torch.float64)
    zeros = tuple(z[:1] for z in zeros)
    module.zero_grad()
    fused_pass(module.cell, one, zeros, module.layer_weights(0), tape).outputs.square().sum().backward()
    by_block = module.bias_ih_l0.grad.view(-1, 4).square().sum(1)
    expected = by_block if name != "GRU" else by_block[[2, 0, 1]]
    torch.testing.assert_close(tape.blocks[0, 0, : len(expected)], expected, rtol=1e-10, atol=0)
