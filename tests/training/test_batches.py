"""Batches that are drawn together, of all replicas and of the updates to come, are those of `task.sample`."""

from __future__ import annotations

import pytest
import torch

from rnnlstm.tasks import Task
from rnnlstm.tasks.adding import Adding
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import RandomStream, RandomStreams
from rnnlstm.training import batches
from rnnlstm.training.batches import AT_ONCE, MOST_STEPS, TrainingBatches

from support.tasks import VARIANTS, small

CPU, SEEDS = torch.device("cpu"), (0, 3, 2**40)
CASES = [
    *VARIANTS,
    pytest.param("keyword", {"shortest": 12}, id="keyword-shortest"),
    pytest.param("keyword", {"keyword_window": 5, "decoys": 0.5}, id="keyword-window"),
    pytest.param("keyword", {"length": 2}, id="keyword-without-filler"),
    pytest.param("adding", {"length": 1500}, id="adding-long"),
]


def require_same(found, expected):
    """The same tensors bit for bit, `scored` included, in value, shape and type."""
    found, expected = found.tensors(), expected.tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("size", [1, 9])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_each_replica_has_the_batches_that_it_has_alone(name, options, size):
    """From step 5 on, as after a resume, for long enough that more and more updates are drawn at once."""
    task, feed = small(name, **options), TrainingBatches(SEEDS, size, CPU)
    for step in range(5, 5 + 3 * MOST_STEPS):
        for seed, batch in zip(SEEDS, feed.take([task] * 3, step), strict=True):
            require_same(batch, task.sample(seed, step, batch_size=size))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_one_seed_draws_ahead_what_it_draws_alone(name, options):
    task, feed = small(name, **options), TrainingBatches([7], 4, CPU)
    for step in range(1, 3 * MOST_STEPS):
        (batch,) = feed.take([task], step)
        require_same(batch, task.sample(7, step, batch_size=4))


@pytest.mark.parametrize("name", ["keyword", "digits", "embedded_reber"])
def test_a_text_file_and_other_streams_are_drawn_together_alike(name, tmp_path):
    text = tmp_path / "words.txt"
    text.write_text("one two three four, five six. " * 20)
    task = small(name, **({"filler": str(text)} if name == "keyword" else {}))
    keys = [(0, 4), (2**40, 4), (0, 5)]
    for (seed, step), batch in zip(keys, task.sample_together(keys, "eval", 6), strict=True):
        require_same(batch, task.sample(seed, step, "eval", 6))


def test_what_was_drawn_ahead_is_dropped_when_task_or_step_change():
    feed, short, long = TrainingBatches([3, 4], 5, CPU), small("keyword"), small("keyword", length=40)
    turns = [(short, step) for step in range(1, 6)] + [(long, 6), (long, 7), (short, 8), (short, 9), (short, 4)]
    turns += [(long, step) for step in range(5, 12)] + [(long, 20), (long, 20), (long, 21)]
    for task, step in turns:
        for seed, batch in zip((3, 4), feed.take([task] * 2, step), strict=True):
            require_same(batch, task.sample(seed, step, batch_size=5))
    # Replicas of a curriculum that grows may be at different lengths for a while.
    for step, tasks in enumerate([(long, long), (long, short), (long, long), (long, long), (short, short)], 22):
        for seed, task, batch in zip((3, 4), tasks, feed.take(list(tasks), step), strict=True):
            require_same(batch, task.sample(seed, step, batch_size=5))


def drawn_at_once(monkeypatch, task, seeds, size, updates):
    """How many batches each `sample_together` made."""
    made, whole = [], Task.sample_together

    def counted(self, keys, stream, batch_size):
        made.append(len(keys))
        return whole(self, keys, stream, batch_size)

    monkeypatch.setattr(Task, "sample_together", counted)
    feed = TrainingBatches(seeds, size, CPU)
    for step in range(1, 1 + updates):
        feed.take([task] * len(seeds), step)
    return made


def test_as_many_updates_are_drawn_at_once_as_are_small(monkeypatch):
    assert drawn_at_once(monkeypatch, small("adding"), [1], 4, 24) == [1, 2, 4, 8, 8, 8]
    monkeypatch.undo()
    assert drawn_at_once(monkeypatch, small("adding"), [1, 2], 4, 5) == [2, 4, 8]
    monkeypatch.undo()
    monkeypatch.setattr(batches, "AT_ONCE", 3 * 2 * 4 * 30)
    assert drawn_at_once(monkeypatch, small("adding"), [1, 2], 4, 9) == [2, 4, 6, 6]
    monkeypatch.undo()
    assert drawn_at_once(monkeypatch, small("adding", length=AT_ONCE), [1], 4, 3) == [1, 1, 1]


class Doubled(Adding):
    """A user's task, whose draws depend on what was drawn."""

    name = "doubled"

    def generate(self, random, batch_size):
        batch = super().generate(random, batch_size)
        while float(random.uniform((batch_size,)).max()) > 0.8:
            batch.inputs[0] = random.uniform((batch_size,))[:, None]
        return batch


def test_a_users_task_is_drawn_by_itself_unless_it_says_so(monkeypatch):
    """What a built-in task says of its own draws is not inherited by other draws."""
    assert Adding.drawn_together
    assert not Doubled.drawn_together
    task, feed = Doubled(length=20), TrainingBatches(SEEDS, 5, CPU)
    for step in range(1, 9):
        for seed, batch in zip(SEEDS, feed.take([task] * 3, step), strict=True):
            require_same(batch, task.sample(seed, step, batch_size=5))
    assert drawn_at_once(monkeypatch, task, [1], 5, 3) == [1, 1, 1]

    class Mirrored(Adding):
        def sample(self, *args, **options):
            batch = super().sample(*args, **options)
            return Batch(-batch.inputs, -batch.targets, batch.mask, batch.kinds)

    require_same(TrainingBatches(SEEDS, 5, CPU).take([Mirrored()] * 3, 1)[1], Mirrored().sample(3, 1, batch_size=5))

    class Easier(Adding):
        def solved(self, metrics):
            return True

    assert Easier.drawn_together


def test_streams_side_by_side_draw_what_each_draws_alone():
    def alone():
        return [RandomStream(seed, "train", step) for seed, step in ((0, 1), (2**40, 1), (0, 2))]

    together, each, high = RandomStreams(alone(), 4), alone(), torch.arange(1, 13)
    assert together.stream == "train"
    rows = torch.arange(5)[:, None]
    calls = [
        lambda source, n, part: source.integers(0, 2**62, (3, n)),
        lambda source, n, part: source.integers(torch.zeros(n, dtype=torch.int64), high[part], (n,)),
        lambda source, n, part: source.integers(rows, rows + high[part], (5, n)),
        lambda source, n, part: source.integers(rows, torch.tensor(9), (5, n)),
        lambda source, n, part: source.uniform((2, 3, n)),
        lambda source, n, part: source.choose(3, 7, n),
    ]
    for call in calls:
        parts = [call(source, 4, slice(4 * k, 4 * k + 4)) for k, source in enumerate(each)]
        assert torch.equal(call(together, 12, slice(None)), torch.cat(parts, -1))
    for wrong in (lambda: together.uniform((12, 4)), lambda: together.integers(0, 2, ()),
                  lambda: together.choose(1, 2, 4)):  # fmt: skip
        with pytest.raises(ValueError, match="must be the 12 sequences"):
            wrong()
