"""Triton's kernels without a GPU: run by Triton's interpreter against the portable loops, and compiled for two GPUs.

The interpreter is lenient: it knows no shared memory, no races and no limits on sizes. So each one is compiled, too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnlstm
from rnnlstm.config.errors import ConfigError
from rnnlstm.recurrence.fused import portable
from rnnlstm.recurrence.fused.engine import engine_for
from rnnlstm.recurrence.fused.gradients import Rows
from rnnlstm.recurrence.fused.kinds import GRU, KINDS, LSTM, Kind
from rnnlstm.recurrence.lengths import Lengths

from support.commands import ENVIRONMENT


def lacking() -> str:
    """Why the kernels can't be interpreted here, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install 'rnnlstm[gpu]'"
    version = tuple(map(int, importlib.metadata.version("triton").split(".")[:2]))
    return "triton before 3.7 interprets with NumPy before 2.4" if version < (3, 7) and NUMPY >= (2, 4) else ""


NUMPY = tuple(map(int, np.__version__.split(".")[:2]))
needs_triton = pytest.mark.skipif(bool(lacking()), reason=lacking())
#: The interpreter computes by NumPy, which warns of what is not finite, and of how old versions of Triton call it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:Conversion of an array:DeprecationWarning"),
]
KERNELS = "rnnlstm.recurrence.fused.triton_kernels"
BLOCKS = {"resident": 64, "in blocks": 16}  #: units of a block, in which all units of these tests lie, or don't


@pytest.fixture
def kernels(monkeypatch):
    """The module as the interpreter runs it, which is decided when it is imported."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("RNNLSTM_KERNEL", "triton")
    sys.modules.pop(KERNELS, None)
    yield importlib.import_module(KERNELS)
    sys.modules.pop(KERNELS, None)


@pytest.fixture(params=[*BLOCKS])
def laid_out(request, kernels, monkeypatch):
    """The same, with one way to lay programs out."""
    units = BLOCKS[request.param]
    monkeypatch.setattr(kernels, "tiles", lambda *_: kernels.Tiles(16, units, request.param == "resident", 4))
    return kernels


def drawn(kind, R, T, B, I, H, V=1, dtype=torch.float64):  # noqa: E741
    """What `forward` takes after lengths and tokens."""
    P, G = kind.product_blocks, kind.blocks
    c0 = torch.randn(R, B, H, dtype=dtype) if kind.has_cell else torch.zeros(R, B, H, dtype=dtype)
    shapes = [(R, T, B, I), (R, P * H, I), (R, P * H, H), (R, V, G * H), (R, B, H)]
    x, w_x, w_h, table, h0 = (torch.randn(shape, dtype=dtype) for shape in shapes)
    return x, w_x, w_h / H**0.5, table, h0, c0


def both_ways(module, kind, lengths, scored, tokens, inputs, d_out, d_c, norms=True):
    """Everything that a forward and a backward pass yield."""
    x, w_x, w_h, table, h0, c0 = inputs
    seen = module.forward(kind, lengths, tokens, x, w_x, w_h, table, h0, c0)
    rows = Rows.like(seen[0], kind.blocks) if norms else None
    V = table.shape[1]
    found = module.backward(kind, lengths, scored, tokens, V, x, w_x, w_h, h0, c0, *seen, d_out, d_c, True, rows)
    kept = found if kind.has_cell else found[:-1]  # there is no cell state that a gradient could be for
    return [*seen, *kept, *(rows or [])]


def same(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        if a.numel():
            torch.testing.assert_close(
                a, b, rtol=0, atol=tolerance * max(b.abs().max().item(), 1e-300), equal_nan=True
            )


@needs_triton
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_values_and_gradients_over_shapes(kind, laid_out):
    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 20), st.integers(0, 3), st.integers(1, 36))
    def check(R, T, B, I, H):  # noqa: E741
        torch.manual_seed(100 * T + B + H)
        inputs = drawn(kind, R, T, B, I, H)
        d_out = torch.randn(R, T, B, H, dtype=torch.float64)
        d_c = torch.randn(R, B, H, dtype=torch.float64) if kind.has_cell else None
        arguments = (kind, None, None, None, inputs, d_out, d_c)
        same(both_ways(laid_out, *arguments), both_ways(portable, *arguments), 1e-12)

    check()


@needs_triton
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tokens_scored_places_lengths_and_missing_gradients(kind, laid_out):
    torch.manual_seed(0)
    R, T, B, H, V = 2, 5, 6, 18, 3
    inputs = drawn(kind, R, T, B, 0, H, V)
    tokens, scored = torch.randint(V, (R, T, B)), torch.tensor([[29, 3, -1], [0, 7, 28]])
    chosen = torch.randn(R, 3, H, dtype=torch.float64)
    lengths = Lengths(torch.tensor([6, 5, 5, 2, 1]), torch.device("cpu"))
    d_c = torch.randn(R, B, H, dtype=torch.float64) if kind.has_cell else None
    d_out = torch.randn(R, T, B, H, dtype=torch.float64) * lengths.mask[..., None]
    for arguments in (
        (kind, None, scored, tokens, inputs, chosen, None),
        (kind, lengths, None, tokens, inputs, d_out, d_c),
        (kind, None, None, tokens, inputs, None, d_c),
    ):
        same(both_ways(laid_out, *arguments), both_ways(portable, *arguments), 1e-12)


@needs_triton
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_float32_errs_as_the_portable_loops_do(kind, laid_out):
    torch.manual_seed(0)
    inputs, d_out = drawn(kind, 1, 12, 5, 3, 20, dtype=torch.float32), torch.randn(1, 12, 5, 20)
    arguments = (kind, None, None, None, inputs, d_out, None)
    exact = both_ways(portable, *arguments[:4], [each.double() for each in inputs], d_out.double(), None)
    found = (both_ways(module, *arguments) for module in (laid_out, portable))
    ours, theirs = (
        [((a.double() - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(each, exact, strict=True)]
        for each in found
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a <= 3 * b + 1e-7


@needs_triton
def test_tanh_of_small_numbers_keeps_its_digits(kernels):
    x = torch.cat([10 ** torch.linspace(-30, 2, 97), -(10 ** torch.linspace(-30, 2, 97)), torch.zeros(1)])
    identity = Kind("rnn_tanh", 1, 1)
    table = torch.zeros(1, 1, 1)
    none = torch.zeros(1, 1, 1)
    out, _, _ = kernels.forward(
        identity, None, None, x.view(1, -1, 1, 1), torch.ones(1, 1, 1), none, table, none, none.clone()
    )
    exact = x.double().tanh()
    assert ((out.flatten().double() - exact).abs() <= 2e-7 * exact.abs()).all()


@needs_triton
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_not_finite_passes_as_in_the_portable_loops(kind, bad, kernels):
    torch.manual_seed(0)
    inputs = drawn(kind, 2, 3, 4, 2, 5, dtype=torch.float32)
    inputs[0][0, 1, 2, 0] = bad
    ours, theirs = (each.forward(kind, None, None, *inputs)[0] for each in (kernels, portable))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert ours[1].isfinite().all(), "the other replica's"


@needs_triton
@pytest.mark.parametrize("kind", [KINDS[0], LSTM, GRU], ids=lambda kind: kind.name)
def test_a_replica_gets_the_same_bits_alone_and_among_others(kind, laid_out):
    torch.manual_seed(0)
    inputs, d_out = drawn(kind, 3, 4, 17, 2, 20, dtype=torch.float32), torch.randn(3, 4, 17, 20)
    together = both_ways(laid_out, kind, None, None, None, inputs, d_out, None)
    again = both_ways(laid_out, kind, None, None, None, inputs, d_out, None)
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
    for r in range(3):
        alone = both_ways(
            laid_out, kind, None, None, None, [each[r : r + 1] for each in inputs], d_out[r : r + 1], None
        )
        for part, (a, b) in enumerate(zip(alone, together, strict=True)):
            if 3 <= part < 7:  # weight gradients are PyTorch's products, whose order depends on the shape
                torch.testing.assert_close(a[0], b[r], rtol=1e-5, atol=1e-5)
            else:
                assert torch.equal(a[0], b[r])


@needs_triton
@pytest.mark.parametrize("kind", [KINDS[0], LSTM, GRU], ids=lambda kind: kind.name)
def test_products_in_bfloat16_are_summed_in_float32(kind, laid_out):
    torch.manual_seed(0)
    rounded = replace(kind, precision="bfloat16")
    inputs, d_out = drawn(kind, 1, 6, 5, 3, 20, dtype=torch.float32), torch.randn(1, 6, 5, 20)
    full = both_ways(portable, kind, None, None, None, inputs, d_out, None)
    ours = both_ways(laid_out, rounded, None, None, None, inputs, d_out, None)
    theirs = both_ways(portable, rounded, None, None, None, inputs, d_out, None)

    def error(found):
        return sum(((a - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(found, full, strict=True))

    # The interpreter cuts digits off where a GPU rounds, which at most doubles the error.
    assert 0 < error(ours) < 2 * error(theirs)


@needs_triton
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_the_modules_gradients_agree_with_finite_differences(name, kernels):
    torch.manual_seed(0)
    module = getattr(rnnlstm, name)(2, 3, backend="fused", dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert engine_for(x) is kernels
    assert torch.autograd.gradcheck(lambda x, *w: module(x)[0], (x, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize(("asked", "interpret", "why"), [
    ("fast", "0", "RNNLSTM_KERNEL=fast: must be one of auto, native, triton, off"),
    ("triton", "0", "RNNLSTM_KERNEL=triton: "),
])  # fmt: skip
def test_what_is_asked_for_and_impossible_is_an_error(asked, interpret, why, monkeypatch):
    monkeypatch.setenv("RNNLSTM_KERNEL", asked)
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    with pytest.raises(ConfigError, match=f"^{why}"):
        engine_for(torch.zeros(1))


@pytest.mark.parametrize("asked", ["native", "off"])
def test_the_one_that_is_asked_for_computes(asked, monkeypatch):
    monkeypatch.setenv("RNNLSTM_KERNEL", asked)
    assert engine_for(torch.zeros(1)).__name__.endswith("native" if asked == "native" else "portable")
    if asked == "native":
        with pytest.raises(
            ConfigError, match=r"RNNLSTM_KERNEL=native: the native kernel has no products in bfloat16"
        ):
            engine_for(torch.zeros(1), "bfloat16")


@needs_triton
def test_a_run_trains_and_resumes_to_the_same_bits(tmp_path):
    line = [sys.executable, "-m", "rnnlstm.train", "task=adding", "task.length=6", "model.hidden_size=5", "seeds=2"]
    line += ["train.batch_size=4", "eval.samples=8", "probe=off", "train.stop_when_solved=false", "threads=1"]
    environment = {**ENVIRONMENT, "RNNLSTM_KERNEL": "triton", "TRITON_INTERPRET": "1"}

    def train(*options):
        done = subprocess.run(
            [*line, *options], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr

    train("train.steps=4", "name=whole")
    train("train.steps=2", "name=half")
    (half,) = tmp_path.glob("runs/*/*half*")
    done = subprocess.run(
        [sys.executable, "-m", "rnnlstm.train", f"from={half}", "train.steps=4", "name=more", "threads=1"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        whole, more = (
            torch.load(next(tmp_path.glob(f"runs/*/*{name}*/seed_{seed}/weights.pt")), weights_only=True)
            for name in ("whole", "more")
        )
        assert json.dumps(str(whole)) == json.dumps(str(more))


@needs_triton
@pytest.mark.parametrize("asked", ["training", "instruments"])
@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_compile_and_what_they_keep_fits(arch, asked):
    """Without a GPU: shared memory within the chip's, and no register spilled where weights are resident."""
    script = Path(__file__).parents[2] / "scripts" / "triton_resources.py"
    done = subprocess.run(
        [sys.executable, str(script), "--arch", str(arch), "--asked", asked, "--json"],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout)
    assert {line["H"] for line in lines} == {64, 128, 256, 512}
    assert {line["products"] for line in lines} == {"float32", "TF32", "bfloat16"}
    for line in lines:
        assert line["shared"] <= {80: 166_912, 90: 232_448}[arch], line
        assert line["stack"] == 0 or not line["resident"], line
