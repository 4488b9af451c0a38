"""Packed sequences and two directions: values and gradients equal torch.nn's on every backend."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import rnnlstm
from rnnlstm.recurrence.fused import engine, native, portable
from rnnlstm.recurrence.fused.build import load_kernel
from rnnlstm.recurrence.lengths import Lengths

I, H, B = 3, 5, 6  # noqa: E741
LENGTHS = [2, 9, 5, 9, 1, 4]
needs_kernel = pytest.mark.skipif(load_kernel(torch.float64) is None, reason="no C compiler: only the portable loops")
BACKENDS = [
    pytest.param("fused", native, marks=needs_kernel, id="native"),
    pytest.param("fused", portable, id="portable"),
    pytest.param("reference", None, id="reference"),
    pytest.param("torch", None, id="torch"),
]


def results(module, x, states, lengths, batch_first, seed=0):
    """Padded outputs, last states, gradients for the input, states and weights."""
    leaf, given = x.clone().requires_grad_(), [state.clone().requires_grad_() for state in states]
    input = leaf
    if lengths is not None:
        input = pack_padded_sequence(leaf, torch.tensor(lengths), batch_first, enforce_sorted=False)
    hx = None if not given else tuple(given) if len(given) > 1 else given[0]
    torch.manual_seed(seed)  # of dropout
    out, last = module(input, hx)
    if lengths is not None:
        assert isinstance(out, PackedSequence)
        out, each = pad_packed_sequence(out, batch_first)
        assert each.tolist() == lengths
    last = last if isinstance(last, tuple) else (last,)
    generator = torch.Generator().manual_seed(1)
    parts = [(t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in (out, *last)]
    module.zero_grad()
    sum(parts).backward()
    return [out, *last, leaf.grad, *(s.grad for s in given), *(w.grad for w in module.parameters())]


@pytest.mark.parametrize(("backend", "chosen"), BACKENDS)
@pytest.mark.parametrize("lengths", [None, LENGTHS, sorted(LENGTHS, reverse=True)], ids=["equal", "mixed", "sorted"])
@pytest.mark.parametrize(("layers", "bidirectional", "batch_first", "dropout", "bias", "with_states"), [
    (1, False, False, 0.0, True, True),
    (1, True, True, 0.0, True, False),
    (2, True, False, 0.0, False, True),
    (2, False, True, 0.5, True, False),
    (3, True, False, 0.5, True, True),
])  # fmt: skip
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_as_torch_nn(
    name, layers, bidirectional, batch_first, dropout, bias, with_states, lengths, backend, chosen, monkeypatch
):
    if lengths is None and not bidirectional:
        pytest.skip("test_modules.py has it")
    if chosen is not None:
        monkeypatch.setattr("rnnlstm.recurrence.fused.function.engine_for", lambda *_: chosen)
    torch.manual_seed(0)
    options = {"bidirectional": bidirectional, "batch_first": batch_first, "dropout": dropout, "bias": bias}
    theirs = getattr(torch.nn, name)(I, H, layers, dtype=torch.float64, **options)
    ours = getattr(rnnlstm, name)(I, H, layers, dtype=torch.float64, backend=backend, **options)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    ours.load_state_dict(theirs.state_dict())
    shape = (layers * (1 + bidirectional), B, H)
    states = [torch.randn(shape, dtype=torch.float64) for _ in ours.cell.state_names] if with_states else []
    x = torch.randn(max(LENGTHS), B, I, dtype=torch.float64)
    x = x.transpose(0, 1) if batch_first else x
    expected, found = (results(module, x, states, lengths, batch_first) for module in (theirs, ours))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_one_seed_makes_the_weights_of_torch_nn(name):
    made = []
    for module in (torch.nn, rnnlstm):
        torch.manual_seed(0)
        made.append(getattr(module, name)(I, H, 2, bidirectional=True).state_dict())
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


@pytest.mark.parametrize("backend", ["fused", "reference", "torch"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_what_follows_the_end_of_a_sequence_changes_nothing(name, backend):
    """A row alone, in its own length, gives what it gives in the batch; and NaN after its end stays outside."""
    torch.manual_seed(0)
    module = getattr(rnnlstm, name)(I, H, 2, bidirectional=True, dtype=torch.float64, backend=backend)
    x = torch.randn(max(LENGTHS), B, I, dtype=torch.float64)
    for b, length in enumerate(LENGTHS):
        x[length:, b] = torch.nan
    together = results(module, x, [], LENGTHS, False)[0]
    for b, length in enumerate(LENGTHS):
        torch.testing.assert_close(module(x[:length, b])[0], together[:length, b], rtol=1e-12, atol=1e-12)


def by_hand(name, w, x, state):
    """One step of one sequence: the next state, each (H,)."""
    projected, seen = w["weight_ih"] @ x + w["bias_ih"], w["weight_hh"] @ state[0] + w["bias_hh"]
    if name == "RNN":
        return (torch.tanh(projected + seen),)
    if name == "GRU":
        (r_x, z_x, n_x), (r_h, z_h, n_h) = projected.chunk(3), seen.chunk(3)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return ((1 - z) * n + z * state[0],)
    i, f, g, o = (projected + seen).chunk(4)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.mark.parametrize("backend", ["fused", "reference", "torch"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "packed"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_gradients_through_time_of_two_directions(name, lengths, backend):
    """A row of the record has the total gradients of one direction's states, each at its own time step, and zero
    after a sequence's end. A loop over single sequences that keeps every state gives the same."""
    torch.manual_seed(0)
    L, T = 2, max(LENGTHS)
    module = getattr(rnnlstm, name)(I, H, L, bidirectional=True, dtype=torch.float64, backend=backend)
    x, cotangent = torch.randn(T, B, I, dtype=torch.float64), torch.randn(T, B, 2 * H, dtype=torch.float64)
    each = lengths or [T] * B
    with rnnlstm.record_gradients(module) as record:
        input = x if lengths is None else pack_padded_sequence(x, torch.tensor(each), enforce_sorted=False)
        out = module(input)[0]
        out = out if lengths is None else pad_packed_sequence(out)[0]
        (out * cotangent).sum().backward()

    zero, inputs, kept = torch.zeros(H, dtype=torch.float64), x, []
    for layer in range(L):
        sides = []
        for direction in range(2):
            states, w = {}, module.layer_weights(2 * layer + direction)
            for b, length in enumerate(each):
                state = (zero,) * len(module.cell.state_names)
                for t in range(length) if direction == 0 else reversed(range(length)):
                    state = states[t, b] = by_hand(name, w, inputs[t, b], state)
                    for part in state:
                        part.retain_grad()
            outputs = [[states[t, b][0] if (t, b) in states else zero for b in range(B)] for t in range(T)]
            sides.append(torch.stack([torch.stack(row) for row in outputs]))
            kept.append(states)
        inputs = torch.cat(sides, -1)
    (inputs * cotangent).sum().backward()
    for k, state_name in enumerate(module.cell.state_names):
        expected = torch.zeros(2 * L, T, dtype=torch.float64)
        for row, states in enumerate(kept):
            for (t, _), parts in states.items():
                expected[row, t] += parts[k].grad.square().sum()
        torch.testing.assert_close(record.of(state_name), expected.sqrt(), rtol=1e-10, atol=1e-12)


def test_a_cell_without_a_fused_loop_takes_packed_sequences_too():
    from rnnlstm.cells import CELLS, make_cell
    from rnnlstm.recurrence import Recurrence

    torch.manual_seed(0)
    x = torch.randn(max(LENGTHS), B, I, dtype=torch.float64)
    for name in CELLS:
        module = Recurrence(make_cell(name), I, 4, 2, bidirectional=True, dtype=torch.float64, max_lag=9)
        together = results(module, x, [], LENGTHS, False)[0]
        for b, length in enumerate(LENGTHS):
            torch.testing.assert_close(module(x[:length, b])[0], together[:length, b], rtol=1e-10, atol=1e-10)


def test_lengths_by_hand():
    lengths = Lengths(torch.tensor([3, 2, 2]), torch.device("cpu"))
    assert lengths.each.tolist() == [3, 3, 1]
    data = torch.arange(7.0)[:, None]
    x = lengths.padded(data)[..., 0]
    assert x.tolist() == [[0, 1, 2], [3, 4, 0], [5, 6, 0]]
    assert torch.equal(lengths.packed(x[..., None]), data)
    assert lengths.last(x[..., None])[:, 0].tolist() == [5, 6, 2]
    assert lengths.reversed(x).tolist() == [[5, 6, 2], [3, 4, 0], [0, 1, 0]]


def test_noise_needs_one_length_and_one_direction():
    from rnnlstm.cells import draw_masks, make_cell, noisy
    from rnnlstm.recurrence import Recurrence

    cell = noisy(make_cell("lstm", init="default"), 0.5, 0.0)
    masks = draw_masks(cell, torch.rand, steps=9, sequences=B, hidden_size=H, num_layers=1)
    x = torch.randn(9, B, I)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    for bidirectional, input in ((False, packed), (True, x)):
        with pytest.raises(ValueError, match="one length"):
            Recurrence(cell, I, H, bidirectional=bidirectional)(input, noise=masks)
    assert engine.engine_for(x) in (native, portable)
