"""Initialisations against their definitions, and what cells refuse."""

from __future__ import annotations

import math

import pytest
import torch

import rnnlstm.recurrence as recurrence
from rnnlstm.cells import CELLS, make_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.recurrence import BACKENDS, Recurrence, choose_backend

I, H, L = 5, 8, 2  # noqa: E741


def weights(name, *, hidden_size=H, bias=True, seed=0, max_lag=None, **options):
    """The weights by name of a float64 module with L layers, drawn from an explicit generator."""
    generator = torch.Generator().manual_seed(seed)
    model = Recurrence(
        make_cell(name, **options), I, hidden_size, L, bias,
        max_lag=max_lag, generator=generator, dtype=torch.float64,
    )  # fmt: skip
    return {name: weight.detach() for name, weight in model.named_parameters()}


def plain(name, **options):
    return weights(name, init="default", **options)


@pytest.mark.parametrize("name", list(CELLS))
def test_default_weights_are_uniform_and_come_from_the_generator_alone(name):
    before = torch.get_rng_state()
    drawn = plain(name, hidden_size=100)
    assert torch.equal(torch.get_rng_state(), before)
    again, other = plain(name, hidden_size=100), plain(name, hidden_size=100, seed=1)
    for key, weight in drawn.items():
        assert torch.equal(weight, again[key])
        if key.startswith(("norm_", "shift_")):
            assert weight.unique().item() == (key.startswith("norm_"))
            continue
        assert not torch.equal(weight, other[key])
        n, bound = weight.numel(), 1 / math.sqrt(100)
        assert weight.abs().max() <= bound
        # The mean of n uniform draws has deviation bound/√3n, their mean square bound²·√(4/45n).
        assert abs(weight.mean()) < 4 * bound / math.sqrt(3 * n)
        assert abs(weight.square().mean() - bound**2 / 3) < 4 * bound**2 * math.sqrt(4 / 45 / n)


@pytest.mark.parametrize("gain", [1.0, 0.5])
@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_orthogonal_blocks_are_gain_times_orthogonal(name, gain):
    drawn, default = weights(name, init="orthogonal", gain=gain), plain(name)
    seen = []
    for layer in range(L):
        blocks = drawn[f"weight_hh_l{layer}"].split(H)
        assert len(blocks) == CELLS[name].blocks
        for block in blocks:
            expected = gain**2 * torch.eye(H, dtype=torch.float64)
            torch.testing.assert_close(block @ block.T, expected, rtol=1e-12, atol=1e-12)
            assert not any(torch.allclose(block, other) for other in seen)
            seen.append(block)
    # The first layer's other weights are drawn before, as by default.
    for key in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
        assert torch.equal(drawn[key], default[key])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gain", [1.0, 0.97])
def test_identity_is_exact(gain, bias):
    drawn = weights("rnn", init="identity", gain=gain, bias=bias, hidden_size=64)
    for layer in range(L):
        assert torch.equal(drawn[f"weight_hh_l{layer}"], gain * torch.eye(64, dtype=torch.float64))
        entries = drawn[f"weight_ih_l{layer}"]
        assert 0 < entries.abs().max() < 0.006
        # The deviation of n normal draws, itself with deviation σ/√2n.
        assert abs(entries.std() - 0.001) < 4 * 0.001 / math.sqrt(2 * entries.numel())
        if bias:
            assert not drawn[f"bias_ih_l{layer}"].any()
            assert not drawn[f"bias_hh_l{layer}"].any()
    assert len(drawn) == L * (4 if bias else 2)


def test_an_identity_network_of_relu_holds_its_state():
    model = recurrence.RNN(I, H, nonlinearity="relu", init="identity")
    start = torch.rand(1, 3, H)
    assert torch.equal(model(torch.zeros(50, 3, I), start)[1], start)


@pytest.mark.parametrize("value", [1.0, 5.0, -0.3, 0.0])
def test_the_two_forget_biases_sum_to_the_value(value):
    drawn, default = weights("lstm", init="forget_bias", forget_bias=value), plain("lstm")
    rows = torch.arange(4 * H)
    forget = (rows >= H) & (rows < 2 * H)
    for layer in range(L):
        total = drawn[f"bias_ih_l{layer}"] + drawn[f"bias_hh_l{layer}"]
        assert torch.equal(total[forget], torch.full((H,), value, dtype=torch.float64))
        for key in (f"bias_ih_l{layer}", f"bias_hh_l{layer}"):
            assert torch.equal(drawn[key][~forget], default[key][~forget])
        for key in (f"weight_ih_l{layer}", f"weight_hh_l{layer}"):
            assert torch.equal(drawn[key], default[key])


@pytest.mark.parametrize("start", [{"init": "forget_bias", "forget_bias": 5.0}, {"init": "chrono", "max_lag": 40}])
@pytest.mark.parametrize("value", [-5.0, 0, "opposite", None])
def test_the_two_input_biases_sum_to_the_value_and_nothing_else_changes(start, value):
    drawn, without = weights("lstm", **start, input_bias=value), weights("lstm", **start)
    for layer in range(L):
        total = drawn[f"bias_ih_l{layer}"] + drawn[f"bias_hh_l{layer}"]
        if value == "opposite":
            assert torch.equal(total[:H], -total[H : 2 * H])
        elif value is not None:
            assert torch.equal(total[:H], torch.full((H,), value, dtype=torch.float64))
        for key in (f"bias_ih_l{layer}", f"bias_hh_l{layer}"):
            assert torch.equal(drawn[key][H:], without[key][H:])
        for key in (f"weight_ih_l{layer}", f"weight_hh_l{layer}"):
            assert torch.equal(drawn[key], without[key])
    if value is None or (value == "opposite" and start["init"] == "chrono"):  # the start's own
        assert all(torch.equal(drawn[name], without[name]) for name in without)


@pytest.mark.parametrize("max_lag", [3, 40, 1000])
def test_chrono_spreads_the_time_constants_evenly(max_lag):
    n = 2000
    generator = torch.Generator().manual_seed(0)
    cell = make_cell("lstm", init="chrono")
    model = Recurrence(cell, 1, n, max_lag=max_lag, generator=generator, dtype=torch.float64)
    total = (model.bias_ih_l0 + model.bias_hh_l0).detach()
    i, f, g, o = total.split(n)
    assert f.min() >= 0
    assert f.max() <= math.log(max_lag - 1)
    assert torch.equal(i, -f)
    # exp(b) is uniform on 1 … max_lag−1, of width w: mean with deviation w/√12n, mean square around it
    # w²/12 with deviation w²/√180n; and evenly over ten bins, each with deviation √(0.1·0.9/n).
    u, width = f.exp(), max_lag - 2
    assert abs(u.mean() - max_lag / 2) < 4 * width / math.sqrt(12 * n)
    assert abs((u - max_lag / 2).square().mean() - width**2 / 12) < 4 * width**2 / math.sqrt(180 * n)
    shares = torch.histc(u, 10, 1, max_lag - 1) / n
    assert (shares - 0.1).abs().max() < 4 * math.sqrt(0.09 / n)
    # 1/(1−σ(b)) = 1 + exp(b): the gates hold for 2 … max_lag steps.
    torch.testing.assert_close(1 / (1 - torch.sigmoid(f)), 1 + u, rtol=1e-10, atol=0)
    # Candidate and output gate keep the default: two uniform biases on ±1/√H.
    for block in (g, o):
        assert 0 < block.abs().max() <= 2 / math.sqrt(n)


def test_the_cells_own_lag_goes_before_the_networks():
    generator = torch.Generator().manual_seed(0)
    model = Recurrence(make_cell("lstm", init="chrono", max_lag=3), I, 500, max_lag=10_000, generator=generator)
    assert model.bias_ih_l0[500:1000].max() <= math.log(2)
    module = recurrence.LSTM(I, 500, init="chrono", max_lag=10_000)
    assert module.bias_ih_l0[500:1000].max() > math.log(5_000)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: recurrence.LSTM(I, H, init="chrono"), "max_lag=null: .*such as max_lag=100"),
    (lambda: recurrence.LSTM(I, H, init="chrono", max_lag=1), "max_lag=1: must be at least 2"),
    (lambda: Recurrence(make_cell("lstm"), I, H, max_lag=1), "max_lag=1: must be at least 2"),
    (lambda: recurrence.LSTM(I, H, bias=False, init="chrono", max_lag=9), "init=chrono: needs a bias"),
    (lambda: recurrence.LSTM(I, H, bias=False, init="forget_bias"), "init=forget_bias: needs a bias"),
    (lambda: recurrence.LSTM(I, H, init="identity"), "init=identity: must be one of default, orthogonal"),
    (lambda: recurrence.RNN(I, H, init="orthogonl"), "did you mean orthogonal"),
    (lambda: recurrence.RNN(I, H, gain=-1.0), "gain=-1.0: must be at least 0"),
    (lambda: recurrence.RNN(I, H, gain=math.nan), "gain=nan: must be finite"),
    (lambda: recurrence.LSTM(I, H, forget_bias=math.inf), "forget_bias=inf: must be finite"),
    (lambda: recurrence.LSTM(I, H, input_bias=math.nan), "input_bias=nan: must be finite"),
    (lambda: recurrence.LSTM(I, H, input_bias="low"), "input_bias=low: must be a number, opposite or null"),
    (lambda: make_cell("lstm", forget_bais=1.0), "forget_bais=1.0: .*did you mean forget_bias"),
    (lambda: make_cell("rnn", nonlinearity=3), "nonlinearity=3: must be a text"),
    (lambda: make_cell("ltsm"), "model=ltsm: must be one of .*did you mean lstm"),
    (lambda: recurrence.RNN(I, H, backend="fast"), "backend=fast: must be one of auto, reference, "),
    (lambda: recurrence.RNN(I, H, nonlinearity="sigmoid", backend="torch"), "no rnn cell with .*=sigmoid"),
    (lambda: recurrence.RNN(I, H, nonlinearity="identity", backend="torch"), "no rnn cell with .*=identity"),
])  # fmt: skip
def test_mistakes_name_key_value_and_rule(call, message):
    with pytest.raises(OptionError, match=message):
        call()


@pytest.mark.parametrize("name", list(CELLS))
def test_the_automatic_backend_is_a_from_scratch_one(name):
    assert choose_backend(make_cell(name), "auto") in set(BACKENDS) - {"auto", "torch"}


def test_lstm_gates_are_those_of_the_equations():
    torch.manual_seed(0)
    model = recurrence.LSTM(I, H, dtype=torch.float64)
    x, h, c = torch.randn(3, I).double(), torch.randn(3, H).double(), torch.randn(3, H).double()
    w = model.layer_weights(0)
    (new_h, new_c), gates = model.cell.step(model.cell.project(x, w), (h, c), w)
    a = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    assert tuple(gates) == model.cell.gate_names
    for block, name in ((0, "input"), (1, "forget"), (3, "output")):
        torch.testing.assert_close(gates[name], torch.sigmoid(a[:, block * H : (block + 1) * H]), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        new_c, gates["forget"] * c + gates["input"] * torch.tanh(a[:, 2 * H : 3 * H]), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(new_h, gates["output"] * torch.tanh(new_c), rtol=1e-12, atol=1e-12)


def test_the_sigmoid_family_tells_slope_and_centring_apart():
    """2σ(x) − 1 = tanh(x/2) and σ(4x), their means at 0 and steepest slopes: exact."""
    x = torch.linspace(-6, 6, 241, dtype=torch.float64, requires_grad=True)
    for name, middle, steepest in (
        ("sigmoid", 0.5, 0.25),
        ("centred_sigmoid", 0.0, 0.5),
        ("steep_sigmoid", 0.5, 1.0),
        ("centred_steep_sigmoid", 0.0, 1.0),
        ("wide_steep_sigmoid", 0.0, 2.0),
    ):
        cell = make_cell("rnn", nonlinearity=name)
        y = cell.phi(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert y[120].item() == pytest.approx(middle, abs=1e-15)
        assert slope.max().item() == pytest.approx(steepest)
        assert cell.steepest == steepest
    torch.testing.assert_close(make_cell("rnn", nonlinearity="centred_sigmoid").phi(x), torch.tanh(x / 2))
    for name in ("tanh", "relu", "identity"):
        assert make_cell("rnn", nonlinearity=name).steepest == 1.0


def test_the_leaky_rnn_s_time_constants_are_log_uniform():
    cell, w = make_cell("leaky_rnn", max_lag=16), {"weight_hh": torch.zeros(4, 4, dtype=torch.float64)}
    torch.testing.assert_close(
        1 / (1 - cell.prepare(w)["kept"]), torch.tensor([2**0.5, 2**1.5, 2**2.5, 2**3.5], dtype=torch.float64)
    )


def test_the_leaky_rnn_without_lags_is_the_plain_one_and_else_mixes_by_hand():
    generator = torch.Generator().manual_seed(0)
    plain, cell = make_cell("rnn"), make_cell("leaky_rnn", max_lag=9)
    w = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in plain.parameter_shapes(I, 2, True).items()
    }
    assert cell.parameter_shapes(I, 2, True) == plain.parameter_shapes(I, 2, True)
    x, h = (torch.randn(3, size, generator=generator, dtype=torch.float64) for size in (I, 2))
    (new,), _ = plain.step(plain.project(x, w), (h,), w)
    none = make_cell("leaky_rnn", max_lag=1)
    (same,), gates = none.step(none.project(x, w), (h,), none.prepare(w))
    assert torch.equal(same, new)
    assert not gates["kept"].any()
    (mixed,), gates = cell.step(cell.project(x, w), (h,), cell.prepare(w))
    # Time constants 9^¼ and 9^¾.
    kept = torch.tensor([1 - 3**-0.5, 1 - 3**-1.5], dtype=torch.float64)
    torch.testing.assert_close(mixed, kept * h + (1 - kept) * new)
    torch.testing.assert_close(cell.retention(gates), kept.expand(3, 2))
