"""Tasks: the same arguments give the same batch, and the definition holds at every position."""

from __future__ import annotations

import pytest
import torch

from rnnlstm.tasks import TASKS, make_task


@pytest.mark.parametrize("name", list(TASKS))
def test_a_batch_is_a_pure_function_of_seed_stream_and_step(name):
    task = make_task(name, length=30)
    first = task.sample(3, 7)
    task.sample(3, 8), task.sample(4, 7), task.sample(3, 7, "eval"), torch.rand(5)
    again = make_task(name, length=30).sample(3, 7)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    for other in (task.sample(3, 8), task.sample(4, 7), task.sample(3, 7, "eval"), task.sample(3, 7, "probe")):
        assert not torch.equal(first.inputs, other.inputs)


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
