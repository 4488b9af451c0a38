"""Recording and replaying the passes of an update, with a stand-in for the CUDA graph that computes again."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from rnnlstm.training.graphs import MOST, capture_on
from rnnlstm.training.step import Trainer

from support.training import plan_for

OPTIONS = ("task.length=12", "model.hidden_size=8", "train.batch_size=5", "optimizer.lr=0.02", "clip.threshold=0.1")


class StandIn:
    """As a graph does, it reads the tensors of its recording and writes over the results of its recording."""

    def __init__(self, wrong: float = 0.0) -> None:
        self.recorded = self.replayed = 0
        self.wrong = wrong

    def __call__(self, run):
        self.recorded += 1
        results = [None if result is None else result.clone() for result in run()]

        def replay():
            self.replayed += 1
            for kept, new in zip(results, run(), strict=True):
                if kept is not None:
                    kept.copy_(new + self.wrong)

        return replay, results


def trainers(stand_in, *overrides, seeds=(0, 1, 2)):
    plain, replaying = (Trainer(plan_for(*OPTIONS, *overrides), list(seeds)) for _ in range(2))
    replaying.graphs._capture = stand_in
    return plain, replaying


def assert_equal_updates(plain, replaying, steps):
    updates = []
    for step in steps:
        a, b = plain.step(step), replaying.step(step)
        assert a.losses == b.losses
        assert a.clips == b.clips
        assert all(torch.equal(x, y) for x, y in zip(a.outputs, b.outputs, strict=True))
        updates.append((b, [out.clone() for out in b.outputs]))
    for update, outputs in updates:  # what was handed out is not written over by later replays
        assert all(torch.equal(x, y) for x, y in zip(update.outputs, outputs, strict=True))
    for name, weight in plain.model.parameters.items():
        assert torch.equal(weight, replaying.model.parameters[name])


@pytest.mark.parametrize("more", [
    (), ("model=gru", "clip=value", "clip.threshold=0.001"), ("model=rnn", "task=adding", "model.num_layers=2"),
    ("task=copy", "precision=bfloat16"), ("model=min_lstm",),
])  # fmt: skip
@pytest.mark.parametrize("seeds", [(3,), (0, 1, 2)])
def test_replayed_updates_equal_plain_ones_bit_for_bit(more, seeds):
    stand_in = StandIn()
    plain, replaying = trainers(stand_in, *more, seeds=seeds)
    assert_equal_updates(plain, replaying, range(1, 9))
    assert stand_in.recorded == 1
    assert stand_in.replayed == 1 + 6  # a first one that is held against the second update, then updates 3 to 8


def test_freezing_and_going_on_from_a_saved_state_pass_into_a_replay():
    plain, replaying = trainers(StandIn())
    assert_equal_updates(plain, replaying, (1, 2, 3, 4))
    state = {**replaying.state(), "frozen": [1]}
    for trainer in (plain, replaying):
        trainer.load_state(copy.deepcopy(state))
    assert_equal_updates(plain, replaying, (5, 6))


def test_only_a_shape_that_comes_twice_in_a_row_is_recorded_and_few_of_them():
    stand_in = StandIn()
    plain, replaying = trainers(stand_in, "curriculum=uniform", "curriculum.start=10")
    assert_equal_updates(plain, replaying, range(1, 15))
    lengths = [plain.curriculum.length(0, step) for step in range(1, 15)]
    twice = {a for a, b in itertools.pairwise(lengths) if a == b}
    assert 0 < stand_in.recorded == len(twice) <= MOST


def test_replicas_of_different_lengths_are_left_alone():
    stand_in = StandIn()
    plain, replaying = trainers(stand_in, "curriculum=growing", "curriculum.start=5")
    for trainer in (plain, replaying):
        trainer.curriculum.lengths = [5, 6, 5]
    assert_equal_updates(plain, replaying, (1, 2, 3))
    assert stand_in.recorded == 0


@pytest.mark.parametrize("how", ["wrong numbers", "an error"])
def test_a_recording_that_fails_is_named_once_and_training_goes_on_without(how, caplog):
    def fails(run):
        fails.calls += 1
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    fails.calls = 0
    stand_in = StandIn(wrong=1e-6) if how == "wrong numbers" else fails
    plain, replaying = trainers(stand_in)
    assert_equal_updates(plain, replaying, range(1, 6))
    assert (stand_in.recorded if how == "wrong numbers" else fails.calls) == 1
    (line,) = caplog.messages
    assert ("other numbers" if how == "wrong numbers" else "not permitted") in line
    assert "\n" not in line


def test_recording_is_for_cuda_and_can_be_switched_off(monkeypatch):
    assert capture_on(torch.device("cpu")) is None
    assert capture_on(torch.device("cuda")) is not None
    monkeypatch.setenv("RNNLSTM_GRAPHS", "off")
    assert capture_on(torch.device("cuda")) is None
