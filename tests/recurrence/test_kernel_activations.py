"""How exact the native kernel's float32 tanh and sigmoid are, in units in the last place (ulp), by vector width."""

from __future__ import annotations

import platform

import pytest
import torch

from rnnlstm.recurrence.fused import build, native
from rnnlstm.recurrence.fused.build import load_kernel
from rnnlstm.recurrence.fused.kinds import Kind

needs_kernel = pytest.mark.skipif(load_kernel(torch.float32) is None, reason="no C compiler: only the portable loops")
LANES = 32  #: units, so that every vector width has full vectors
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"]
#: Flags and bytes of a vector; the first is what this machine uses.
TARGETS = [None, ([], 16), ([], 32), (["-mavx2", "-mfma"], 32), (AVX512, 64)]


@pytest.fixture(
    scope="module",
    params=[pytest.param(t, marks=[] if t is None else pytest.mark.slow) for t in TARGETS],
    ids=["own", "16 bytes", "32 bytes without AVX", "AVX2", "AVX-512"],
)
def compiled(request, tmp_path_factory):
    """The kernel for a width that this machine can run."""
    if request.param is None:
        yield
        return
    capability, flags = torch.backends.cpu.get_cpu_capability(), request.param[0]
    x86 = platform.machine() in ("x86_64", "AMD64")
    if flags and not (x86 and ("AVX512" in capability or ("AVX2" in capability and flags is not AVX512))):
        pytest.skip("this processor lacks these instructions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(build, "_target", lambda: request.param)
        kernel = build._kernel(torch.float32)
        patch.setattr(native, "load_kernel", lambda dtype: kernel)
        yield


def through_kernel(name, x):
    """An RNN's first step from a state of zeros, with the identity as its input weights."""
    rows, eye = x.view(1, 1, -1, LANES), torch.eye(LANES)[None]
    zero = torch.zeros(1, rows.shape[2], LANES)
    kind = Kind(f"rnn_{name}", 1, 1)
    out, _, _ = native.forward(kind, None, None, rows, eye, 0 * eye, torch.zeros(1, 1, LANES), zero, zero)
    return out.view(-1)


def errors(name, x):
    exact = getattr(torch, name)(x.double())
    unit = 2.0 ** (torch.frexp(exact.abs()).exponent.double() - 24)
    return (through_kernel(name, x).double() - exact).abs() / unit.clamp(min=2.0**-149)


def every(step, low, high):
    """Every step-th float32 between two positive ones, in whole rows."""
    first, last = torch.tensor([low, high]).view(torch.int32).tolist()
    bits = torch.arange(first, last, step, dtype=torch.int32)
    return bits[: len(bits) // LANES * LANES].view(torch.float32)


@needs_kernel
@pytest.mark.usefixtures("compiled")
def test_tanh_is_odd_and_within_1_2_ulp():
    x = torch.cat([every(4001, 0.0, 0.1), every(101, 0.1, 12.0)])
    x = x[: len(x) // LANES * LANES]
    assert errors("tanh", x).max() <= 1.2
    assert torch.equal(through_kernel("tanh", -x), -through_kernel("tanh", x))


@needs_kernel
@pytest.mark.usefixtures("compiled")
def test_sigmoid_is_within_2_ulp_also_where_it_vanishes():
    x = torch.cat([every(1009, 1e-9, 120.0), -every(1009, 1e-9, 120.0)])
    assert errors("sigmoid", x).max() <= 2.0


@needs_kernel
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu"])
def test_infinity_nan_and_the_smallest_numbers(name):
    """One unit, for infinity times the identity's zeros is NaN."""
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, -torch.nan, 1e30, -1e30, 0.0, 1e-45, -1e-45]).view(
        1, 1, -1, 1
    )
    state, one = torch.zeros(1, x.shape[2], 1), torch.ones(1, 1, 1)
    out, _, _ = native.forward(Kind(f"rnn_{name}", 1, 1), None, None, x, one, one, torch.zeros(1, 1, 1), state, state)
    torch.testing.assert_close(out, getattr(torch, name)(x), rtol=0, atol=0, equal_nan=True)
