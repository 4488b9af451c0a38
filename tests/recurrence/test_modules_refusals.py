"""What the drop-in modules refuse: by name where they can less than torch.nn, else with its kind of exception."""

from __future__ import annotations

import pytest
import torch

import rnnlstm.recurrence as recurrence
from rnnlstm.recurrence import BACKENDS


def raised(call):
    """The type of exception that a call raises."""
    try:
        call()
    except Exception as error:
        return type(error)
    pytest.fail("nothing was raised")


def test_projections_are_refused_by_name():
    with pytest.raises(NotImplementedError, match="proj_size=2"):
        recurrence.LSTM(5, 4, proj_size=2)
    recurrence.LSTM(5, 4, proj_size=0)


@pytest.mark.parametrize(("sizes", "options"), [
    ((0, 4), {}),
    ((5, 0), {}),
    ((5, 4, 0), {}),
    ((-1, 4), {}),
    ((5, 4, 1.5), {}),
    ((5, 4.5), {}),
    ((5, 4), {"dropout": 1.5}),
    ((5, 4), {"dropout": -0.1}),
    ((5, 4), {"dropout": "0.5"}),
    ((5, 4), {"dropout": True}),
    ((5, 4), {"bias": 0}),
    ((5, 4), {"bias": "False"}),
    ((5, 4), {"batch_first": 1}),
    (("5", 4), {}),
])  # fmt: skip
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_senseless_sizes_raise_what_torch_nn_raises(name, sizes, options):
    expected = raised(lambda: getattr(torch.nn, name)(*sizes, **options))
    assert issubclass(raised(lambda: getattr(recurrence, name)(*sizes, **options)), expected)


@pytest.mark.parametrize(("name", "options", "way_out"), [
    ("RNN", {"gain": 2.0}, "init=orthogonal or identity"),
    ("LSTM", {"forget_bias": 2.0}, "init=forget_bias"),
    ("LSTM", {"init": "chrono", "max_lag": 9, "gain": 2.0}, "init=orthogonal"),
    ("GRU", {"max_lag": 9}, "init=chrono"),
])  # fmt: skip
def test_an_option_that_the_start_does_not_use_is_refused(name, options, way_out):
    with pytest.raises(ValueError, match=f"has no effect; it belongs to {way_out}"):
        getattr(recurrence, name)(5, 4, **options)


@pytest.mark.parametrize("name", ["RNN", "GRU"])
def test_only_the_lstm_has_projections(name):
    expected = raised(lambda: getattr(torch.nn, name)(5, 4, proj_size=2))
    assert issubclass(raised(lambda: getattr(recurrence, name)(5, 4, proj_size=2)), expected)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_dropout_without_a_second_layer_is_a_warning(name):
    with pytest.warns(UserWarning, match="dropout=0.5"):
        getattr(recurrence, name)(5, 4, dropout=0.5)


def test_an_unknown_nonlinearity_raises_what_torch_nn_raises():
    expected = raised(lambda: torch.nn.RNN(5, 4, nonlinearity="tan"))
    assert issubclass(raised(lambda: recurrence.RNN(5, 4, nonlinearity="tan")), expected)
    with pytest.raises(ValueError, match=r"nonlinearity=tan: must be one of tanh, .*did you mean tanh"):
        recurrence.RNN(5, 4, nonlinearity="tan")


@pytest.mark.parametrize(("input", "state"), [
    ((5,), None),
    ((3, 2, 1, 5), None),
    ((3, 2, 6), None),
    ((3, 6), None),
    ((0, 2, 5), None),
    ((0, 5), None),
    ((3, 2, 5), (2, 3, 4)),  # another batch
    ((3, 2, 5), (2, 1, 4)),  # nothing is broadcast
    ((3, 2, 5), (3, 2, 4)),  # other layers
    ((3, 2, 5), (1, 2, 4)),
    ((3, 2, 5), (2, 2, 5)),  # other units
    ((3, 2, 5), (2, 4)),  # unbatched
    ((3, 5), (2, 1, 4)),  # batched
    ((3, 5), (3, 4)),
])  # fmt: skip
@pytest.mark.parametrize("backend", ["reference", "fused", "torch"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_wrong_shapes_raise_what_torch_nn_raises(name, backend, input, state):
    theirs, ours = getattr(torch.nn, name)(5, 4, 2), getattr(recurrence, name)(5, 4, 2, backend=backend)
    hx = None if state is None else torch.zeros(state)
    if name == "LSTM" and state is not None:
        hx = (hx, hx)
    expected = raised(lambda: theirs(torch.zeros(input), hx))
    assert issubclass(raised(lambda: ours(torch.zeros(input), hx)), expected)


def test_each_state_is_held_against_the_sizes():
    ours, x, right, wrong = recurrence.LSTM(5, 4), torch.zeros(3, 2, 5), torch.zeros(1, 2, 4), torch.zeros(1, 2, 3)
    ours(x, (right, right))
    with pytest.raises(RuntimeError, match="hidden state"):
        ours(x, (wrong, right))
    with pytest.raises(RuntimeError, match="cell state"):
        ours(x, (right, wrong))
    for given in (right, (right,), (right, right, right)):
        with pytest.raises(RuntimeError, match=r"expected 2 initial state\(s\) \(hidden, cell\)"):
            ours(x, given)
    with pytest.raises(RuntimeError, match=r"expected 1 initial state\(s\) \(hidden\), got 2"):
        recurrence.RNN(5, 4)(x, (right, right))
    with pytest.raises(TypeError, match="the cell state must be a tensor, not NoneType"):
        ours(x, (right, None))
    with pytest.raises(RuntimeError, match=r"the cell state is torch.float64, the input is torch.float32"):
        ours(x, (right, right.double()))
    with pytest.raises(TypeError, match="input must be a tensor or a packed sequence, not list"):
        ours([[1.0]])
    with pytest.raises(ValueError, match=r"dtype \(torch.float64\) does not match weight dtype \(torch.float32\)"):
        ours(x.double())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_mixed_precisions_are_refused_not_computed(name, backend):
    ours, x, h = getattr(recurrence, name)(5, 4, backend=backend), torch.zeros(3, 2, 5), torch.zeros(1, 2, 4)
    for input, state in ((x.double(), h.double()), (x.double(), h), (x, h.double()), (x.long(), h)):
        with pytest.raises((ValueError, RuntimeError)):
            ours(input, (state, state) if name == "LSTM" else state)
