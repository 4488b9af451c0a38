"""Draws by counting: the published numbers, a function of what is meant and of nothing else, uniform."""

from __future__ import annotations

import math

import pytest
import torch

from rnnlstm.tasks.random_streams import STREAMS, CounterStream, PhiloxKeys, philox, rounds
from rnnlstm.training.batches import TrainingBatches

from support.tasks import VARIANTS, small

CPU = torch.device("cpu")
#: Known answers of Random123 (Salmon et al.) for philox4x32 with ten rounds: counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [torch.tensor(int(word, 16)) for word in text.split()]


def stream(seeds=(0,), batch=1, name="train", step=1):
    return CounterStream(PhiloxKeys.of(seeds, batch, CPU), name, step)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_published_numbers(counter, key, expected):
    found = philox(words(counter), rounds(tuple(words(key))))
    assert [f"{int(word):08x}" for word in found] == expected.split()


def test_a_sequence_has_its_numbers_whatever_is_beside_it():
    """Six sequences of three replicas at once, or of one, or four sequences only; and more numbers than asked for."""
    whole = stream((5, 6, 2**62), 6).uniform((9, 18))
    assert torch.equal(whole[:, 6:12], stream((6,), 6).uniform((9, 6)))
    assert torch.equal(whole[:, 6:10], stream((6,), 4).uniform((9, 4)))
    assert torch.equal(whole[:5], stream((5, 6, 2**62), 6).uniform((5, 18)))
    assert torch.equal(
        whole[:, 6:12],
        CounterStream(PhiloxKeys.of((5, 6), 6, CPU).sequences(slice(6, 12)), "train", 1).uniform((9, 6)),
    )


def test_seed_stream_step_call_and_place_all_count():
    """2 seeds (equal in their low 32 bits), 7 streams, 4 steps, 4 calls, 5 places, 3 sequences: no number twice, but
    for one pair by chance."""
    seen = []
    for name in STREAMS:
        for step in (1, 2, 3, 2**32 - 1):
            draws = stream((7, 7 + 2**32), 3, name, step)
            seen += [draws.integers(0, 2**31, (5, 6)) for _ in range(4)]
    count = 7 * 4 * 4 * 5 * 6
    assert count - 1 <= len(torch.stack(seen).unique()) <= count


def test_where_each_number_comes_from():
    """Runs go on only while this stays as it is: the third draw of update 9, for sequence 2 of a seed of 33 bits."""
    draws = stream((0, 5 + 2**32), 4, "noise", 9)
    draws.uniform((8,)), draws.uniform((2, 8))
    found = draws.integers(0, 2**31, (6, 8))[:, 4 + 2]
    counters = [[torch.tensor(word) for word in (block, 2, 9, STREAMS["noise"] * 2**16 + 2)] for block in (0, 1)]
    keys = rounds((torch.tensor(5), torch.tensor(1)))
    expected = [int(word) >> 1 for each in counters for word in philox(each, keys)]
    assert found.tolist() == expected[:6]


def test_a_uniform_number_has_24_bits():
    scaled = stream((0,), 1000).uniform((1000,)).double() * 2**24
    assert torch.equal(scaled, scaled.round())
    assert 400 < (scaled % 2).sum() < 600


def test_a_batch_has_room_for_so_many_draws():
    draws = stream()
    draws._drawn = 2**16 - 1
    draws.uniform((1,))
    with pytest.raises(ValueError, match="room for 65,536"):
        draws.uniform((1,))


def test_numbers_are_uniform_and_neighbours_independent():
    n = 200_000
    draws = stream((1,), n)
    values = draws.uniform((2, n)).double()
    assert values.min() >= 0
    assert values.max() < 1
    for sample in (values[0], values[1], draws.uniform((n,)).double()):
        assert abs(sample.mean() - 0.5) < 4.5 / math.sqrt(12 * n)
        counts = torch.histc(sample, 100, 0, 1)
        assert ((counts - n / 100) ** 2 / (n / 100)).sum() < 99 + 4.5 * math.sqrt(2 * 99)
    assert abs(torch.corrcoef(values)[0, 1]) < 4.5 / math.sqrt(n)
    assert abs(torch.corrcoef(torch.stack([values[0, :-1], values[0, 1:]]))[0, 1]) < 4.5 / math.sqrt(n)
    counts = torch.bincount(draws.integers(3, 10, (n,)), minlength=10)
    assert counts[:3].sum() == 0
    assert ((counts[3:] - n / 7) ** 2 / (n / 7)).sum() < 6 + 4.5 * math.sqrt(12)


def test_bounds_may_be_tensors():
    high = torch.arange(1, 101)
    drawn = stream((0,), 100).integers(torch.zeros(100, dtype=torch.int64), high, (50, 100))
    assert (drawn >= 0).all()
    assert (drawn < high).all()
    assert (drawn[:, 0] == 0).all()
    assert (drawn.max(0).values >= high * 0.8 - 1).all()
    from_zero, above = (stream((0,), 100).integers(low, low + 3, (50, 100)) for low in (0, high))
    assert torch.equal(above - high, from_zero)


def test_chosen_numbers_are_different_and_each_as_likely():
    n = 20_000
    chosen = stream((0,), n).choose(3, 7, n)
    assert all(len(set(column)) == 3 for column in chosen[:, :200].T.tolist())
    for place in chosen:
        counts = torch.bincount(place, minlength=7)
        assert ((counts - n / 7) ** 2 / (n / 7)).sum() < 6 + 4.5 * math.sqrt(12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: stream((0,), 4).uniform((4, 5)),
        lambda: stream((0,), 4).uniform(()),
        lambda: stream((0,), 4).integers(3, 3, (4,)),
        lambda: stream((0,), 4).integers(0, 2**32, (4,)),
        lambda: stream((-1,)),
        lambda: stream((2**63,)),
        lambda: stream(step=2**32),
    ],
)
def test_what_can_not_be_drawn_is_said(wrong):
    with pytest.raises(ValueError, match=r"must be|needs"):
        wrong()


SHORTER = pytest.param("keyword", {"shortest": 12}, id="keyword-shortest")


@pytest.mark.parametrize(("name", "options"), [*VARIANTS, SHORTER])
def test_tasks_draw_the_same_kind_of_batch(name, options):
    """Shapes, types, where the answer is scored; at each step the mean that the other generator has."""
    task, B = small(name, **options), 2_000
    (drawn,) = TrainingBatches([0], B, CPU, "device").take([task], 1)
    other = task.sample(0, 1, batch_size=B)
    for field, tensor in other.tensors().items():
        found = drawn.tensors()[field]
        assert found.dtype == tensor.dtype
        assert field == "scored" or found.shape == tensor.shape
    a, b = drawn.inputs.double(), other.inputs.double()
    error = (a.std(1) + b.std(1)).clamp(min=1e-9) / math.sqrt(B)
    assert ((a.mean(1) - b.mean(1)).abs() < 6 * error + 1e-9).all()
    assert not torch.equal(a, b)
    for step in (1, 2):
        masks = {
            tuple(column)
            for batch in TrainingBatches([0, 1], 50, CPU, "device").take([task] * 2, step)
            for column in batch.mask.T.tolist()
        }
        assert (len(masks) == 1) == task.scored_alike
