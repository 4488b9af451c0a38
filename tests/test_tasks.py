"""Tasks: the same arguments give the same batch, and the definition holds at every position."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rnnlstm.options import ConfigError, OptionError
from rnnlstm.random_stream import STREAMS, RandomStream
from rnnlstm.tasks import TASKS, make_task


def variants(name):
    """The options of each protocol of a task; just the defaults where it has one only."""
    fields = {field.name: field for field in dataclasses.fields(TASKS[name])}
    return [{"variant": v} for v in fields["variant"].metadata["choices"]] if "variant" in fields else [{}]


#: Every task in every variant: a new one is tested by being there.
VARIANTS = [
    pytest.param(name, options, id="-".join([name, *options.values()]))
    for name in TASKS
    for options in variants(name)
]


def equal(a, b):
    """Whether two batches are the same in every number."""
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a)]
    return all(torch.equal(x, y) if x is not None else y is None for x, y in pairs)


@pytest.mark.parametrize("name", list(TASKS))
def test_a_batch_is_a_pure_function_of_seed_stream_and_step(name):
    task = make_task(name, length=30)
    first = task.sample(3, 7)
    task.sample(3, 8), task.sample(4, 7), task.sample(3, 7, "eval"), torch.rand(5)
    again = make_task(name, length=30).sample(3, 7)
    assert equal(first, again)
    for other in (task.sample(3, 8), task.sample(4, 7), task.sample(3, 7, "eval"), task.sample(3, 7, "probe")):
        assert not torch.equal(first.inputs, other.inputs)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_batch_neither_reads_nor_moves_the_global_generators(name, options):
    task, batches = make_task(name, length=30, **options), []
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
    task = make_task(name, length=30, **options)
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
    task = make_task(name, length=30, **options)
    longer = task.vary(length=40)
    assert (task.length, longer.length) == (30, 40)
    assert longer == make_task(name, length=40, **options)
    assert equal(longer.sample(0, 0), make_task(name, length=40, **options).sample(0, 0))
    with pytest.raises(ConfigError, match=f"the {name} task has no option lenght; did you mean length"):
        task.vary(lenght=40)
    with pytest.raises(OptionError, match="length=0: must be at least"):
        task.vary(length=0)


def test_vary_refuses_what_changes_the_networks_sizes(tmp_path):
    task = make_task("keyword", length=30)
    assert task.vary(decoys=0.5, keyword_window=3).decoys == 0.5
    with pytest.raises(ConfigError, match="does not fit"):
        task.vary(num_keywords=9)
    (tmp_path / "words.txt").write_text("one two three " * 20)
    with pytest.raises(ConfigError, match="does not fit"):
        task.vary(filler=str(tmp_path / "words.txt"))


def test_streams_are_apart_and_mix_the_whole_seed():
    numbers = (0, 1, 2, 2**32 - 1)
    keys = [(seed, stream, step) for seed in numbers for stream in STREAMS for step in numbers]
    keys += [(2**32, "train", 7), (2**62, "train", 7)]  # torch's generator would take these for seed 0
    drawn = {tuple(RandomStream(*key).integers(0, 2**62, (4,)).tolist()) for key in keys}
    assert len(drawn) == len(keys)
    for bad in ((-1, "train", 0), (0, "train", -1), (0, "test", 0)):
        with pytest.raises(ValueError, match="must"):
            RandomStream(*bad)


def test_copy_position_by_position():
    batch = make_task("copy", length=6).sample(0, 0, batch_size=50)
    tokens = batch.inputs.argmax(-1)
    assert torch.equal(batch.inputs.sum(-1), torch.ones(26, 50))
    assert ((tokens[:10] >= 1) & (tokens[:10] <= 8)).all()
    assert (tokens[10:15] == 0).all()  # T−1 blanks
    assert (tokens[15] == 9).all()
    assert (tokens[16:] == 0).all()
    assert (batch.targets[:16] == 0).all()
    assert torch.equal(batch.targets[16:], tokens[:10])
    assert batch.mask.all()


@pytest.mark.parametrize("length", [2, 3, 10, 31])
def test_adding_position_by_position(length):
    batch = make_task("adding", length=length).sample(0, 0, batch_size=50)
    values, markers = batch.inputs.unbind(-1)
    assert ((values >= 0) & (values < 1)).all()
    assert (markers[: length // 2].sum(0) == 1).all()
    assert (markers[length // 2 :].sum(0) == 1).all()
    torch.testing.assert_close(batch.targets[-1, :, 0], (values * markers).sum(0))
    assert batch.mask[-1].all()
    assert not batch.mask[:-1].any()


@pytest.mark.parametrize(("length", "window", "decoys"), [(2, 1, 0.5), (3, 1, 0.0), (40, 5, 0.3), (100, 1, 0.05)])
def test_keyword_position_by_position(length, window, decoys):
    task = make_task("keyword", length=length, keyword_window=window, decoys=decoys)
    batch = task.sample(0, 0, batch_size=200)
    keyword, filler, decoy, trigger = (batch.kinds == k for k in range(4))
    assert (keyword.sum(0) == 1).all()
    assert keyword[:window].any(0).all()
    assert (trigger == batch.mask).all()
    assert batch.mask[-1].all()
    assert not batch.mask[:-1].any()
    assert not (decoy & (keyword.cumsum(0) == 0)).any()
    assert (batch.inputs[filler] > 8).all()
    assert (batch.inputs[decoy] < 8).all()
    assert (batch.inputs[-1] == 8).all()
    assert torch.equal(batch.inputs.T[keyword.T], batch.targets[-1])
    places = ((filler | decoy) & (keyword.cumsum(0) > 0)).sum().item()
    if places:
        share = decoy.sum().item() / places
        assert abs(share - decoys) < 4 * (decoys * (1 - decoys) / places) ** 0.5 + 1e-9


@pytest.mark.parametrize(("name", "options", "message"), [
    ("keyword", {"length": 1}, "length=1: must be at least 2"),
    ("keyword", {"num_keywords": 1}, "num_keywords=1: must be at least 2"),
    ("keyword", {"length": 5, "keyword_window": 5}, "length=5: must be at least 6"),
    ("copy", {"lenght": 5}, "did you mean length"),
    ("adding", {"length": 2.5}, "must be a whole number"),
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
