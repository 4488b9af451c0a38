"""Tasks: the same arguments give the same batch, and the definition holds at every position."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.tasks import TASKS, make_task
from rnnlstm.tasks.random_streams import STREAMS, RandomStream
from rnnlstm.tasks.task import OVER

from support.tasks import VARIANTS, small


def equal(a, b):
    """Whether two batches are the same in every number."""
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a)]
    return all(torch.equal(x, y) if x is not None else y is None for x, y in pairs)


@pytest.mark.parametrize("name", list(TASKS))
def test_a_batch_is_a_pure_function_of_seed_stream_and_step(name):
    task = small(name)
    first = task.sample(3, 7)
    task.sample(3, 8), task.sample(4, 7), task.sample(3, 7, "eval"), torch.rand(5)
    again = small(name).sample(3, 7)
    assert equal(first, again)
    for other in (task.sample(3, 8), task.sample(4, 7), task.sample(3, 7, "eval"), task.sample(3, 7, "probe")):
        assert not torch.equal(first.inputs, other.inputs)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_batch_neither_reads_nor_moves_the_global_generators(name, options):
    task, batches = small(name, **options), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        batches.append(task.sample(3, 7))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()
    assert equal(*batches)


@pytest.mark.parametrize("batch_size", [1, 9])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_types_and_shapes_are_those_of_a_batch(name, options, batch_size):
    task = small(name, **options)
    batch = task.sample(0, 0, batch_size=batch_size)
    T, B = task.sequence_length, batch_size
    assert batch.size == B
    assert (task.num_tokens is None) != (task.input_size is None)
    if task.num_tokens is not None:
        assert (batch.inputs.dtype, batch.inputs.shape) == (torch.int64, (T, B))
        assert 0 <= batch.inputs.min() <= batch.inputs.max() < task.num_tokens
    else:
        assert (batch.inputs.dtype, batch.inputs.shape) == (torch.float32, (T, B, task.input_size))
        assert batch.inputs.isfinite().all()
    if batch.targets.is_floating_point():
        assert (batch.targets.dtype, batch.targets.shape) == (torch.float32, (T, B, task.output_size))
    else:
        assert (batch.targets.dtype, batch.targets.shape) == (torch.int64, (T, B))
        assert 0 <= batch.targets.min() <= batch.targets.max() < task.output_size
    assert (batch.mask.dtype, batch.mask.shape) == (torch.bool, (T, B))
    assert batch.mask.any(0).all()
    assert (batch.kinds is None) == (not task.kind_names)
    if batch.kinds is not None:
        assert (batch.kinds.dtype, batch.kinds.shape) == (torch.int8, (T, B))
        assert 0 <= batch.kinds.min() <= batch.kinds.max() < len(task.kind_names)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_vary_gives_the_task_with_other_options(name, options):
    # Where the alphabet grows with the length, another length needs a fixed one.
    options = {**options, "alphabet": 150} if name == "long_lag" else options
    task = small(name, **options)
    longer = task.vary(length=task.length + 10)
    assert longer.length == task.length + 10
    assert longer == make_task(name, **{**options, "length": longer.length})
    assert equal(longer.sample(0, 0), make_task(name, **{**options, "length": longer.length}).sample(0, 0))
    with pytest.raises(ConfigError, match=f"the {name} task has no option lenght; did you mean length"):
        task.vary(lenght=40)
    with pytest.raises(OptionError, match="length=0: must be at least"):
        task.vary(length=0)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_words_and_slices_fit_the_batch(name, options):
    task = small(name, **options)
    batch = task.sample(0, 0, batch_size=40)
    for b in range(3):
        words = task.words(batch, b)
        assert len(words) == task.sequence_length
        over = [word == OVER for word in words]
        assert over == sorted(over)  # nothing but padding after the end
        if "padding" in task.kind_names:
            assert over == (batch.kinds[:, b] == task.kind_names.index("padding")).tolist()
        assert not batch.mask[:, b][torch.tensor(over)].any()
    slices = task.slices(batch)
    assert slices
    for mask in slices.values():
        assert (mask.dtype, mask.shape) == (torch.bool, batch.mask.shape)
        assert not (mask & ~batch.mask).any()
    outputs = torch.randn(*batch.mask.shape, task.output_size)
    for mask in slices.values():
        if mask.any():
            assert task.metric_name in task.metrics(outputs, dataclasses.replace(batch, mask=mask))


def test_vary_refuses_what_changes_the_networks_sizes(tmp_path):
    task = make_task("keyword", length=30)
    assert task.vary(decoys=0.5, keyword_window=3).decoys == 0.5
    with pytest.raises(ConfigError, match="does not fit"):
        task.vary(num_keywords=9)
    (tmp_path / "words.txt").write_text("one two three " * 20)
    with pytest.raises(ConfigError, match="does not fit"):
        make_task("state_tracking", variant="s3").vary(elements="swaps")
    with pytest.raises(ConfigError, match="does not fit"):
        task.vary(filler=str(tmp_path / "words.txt"))


def test_streams_are_apart_and_mix_the_whole_seed():
    numbers = (0, 1, 2, 2**32 - 1)
    keys = [(seed, stream, step) for seed in numbers for stream in STREAMS for step in numbers]
    keys += [(2**32, "train", 7), (2**62, "train", 7)]  # torch's generator would take these for seed 0
    drawn = {tuple(RandomStream(*key).integers(0, 2**62, (4,)).tolist()) for key in keys}
    assert len(drawn) == len(keys)
    for bad in ((-1, "train", 0), (0, "train", -1), (0, "tests", 0)):
        with pytest.raises(ValueError, match="must"):
            RandomStream(*bad)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("keyword", {"length": 1}, "length=1: must be at least 2"),
    ("keyword", {"num_keywords": 1}, "num_keywords=1: must be at least 2"),
    ("keyword", {"length": 5, "keyword_window": 5}, "length=5: must be at least 6"),
    ("copy", {"lenght": 5}, "did you mean length"),
    ("adding", {"length": 2.5}, "must be a whole number"),
    ("adding", {"length": 10, "variant": "hochreiter"}, "length=10: must be at least 11: a first mark in ten steps"),
    ("multiplication", {"length": 9, "variant": "pascanu"}, "length=9: must be at least 10"),
    ("state_tracking", {"elements": "swaps"}, "elements=swaps: parity has no others"),
    ("keyword", {"length": 10, "shortest": 11}, "shortest=11: must be between 2 .* and length=10"),
    ("keyword", {"length": 10, "shortest": 4, "keyword_window": 4}, "shortest=4: must be between 5"),
    ("temporal_order", {"length": 9}, "length=9: must be at least 10"),
    ("long_lag", {"length": 2}, "length=2: must be at least 3"),
    ("long_lag", {"alphabet": 1}, "alphabet=1: must be at least 2"),
    ("long_lag", {"variant": "2a", "length": 9, "alphabet": 7}, "alphabet=7: 2a shows 8 distractors"),
    ("embedded_reber", {"length": 8}, "length=8: must be at least 9"),
    ("selective_copy", {"length": 9}, "length=9: must be at least 10: a place for each symbol"),
    ("selective_copy", {"alphabet": 1}, "alphabet=1: must be at least 2"),
    ("associative_recall", {"length": 9}, "length=9: must be at least 10: 4 pairs"),
    ("associative_recall", {"length": 11, "variant": "mqar"}, "length=11: must be at least 12: 4 pairs and a query"),
    ("associative_recall", {"pairs": 27}, "pairs=27: must be at most 26"),
    ("counting", {"length": 2}, "length=2: must be at least 3"),
    ("counting", {"variant": "anbm"}, "variant=anbm: must be one of anbn, anbncn"),
    ("state_tracking", {"length": 1}, "length=1: must be at least 2"),
    ("state_tracking", {"elements": "swap"}, "elements=swap: must be one of all, swaps"),
    ("digits", {"length": 63}, "length=63: must be at least 64"),
    ("keyword", {"filler": "/nowhere.txt"}, "can't be read"),
])  # fmt: skip
def test_bad_options_name_key_value_and_rule(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, **options)


def test_large_seeds_and_steps_share_no_numbers_with_small_ones():
    def drawn(*key):
        return tuple(RandomStream(*key).integers(0, 2**62, (4,)).tolist())

    keys = [
        (seed, stream, step)
        for seed in (0, 1, 2**32, 2**32 + 1, 2**33, 2**62)
        for stream in ("train", "eval", "probe", "init")
        for step in (0, 1, 2, 2**32, 2**32 + 1, 2**40)
    ]
    assert len({drawn(*key) for key in keys}) == len(keys)
