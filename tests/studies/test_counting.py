"""The studies counting and state_tracking: what is measured of a network, and the criteria of the standard size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rnnlstm.studies import studies
from rnnlstm.studies.counting import ARMS
from rnnlstm.studies.state_tracking import SWAPS
from rnnlstm.studies.study import Row
from rnnlstm.tasks import make_task


class Counter:
    """Names the next symbol of a^n b^n (c^n) by counting, up to a number; beyond it, goes on with the letter."""

    def __init__(self, task, up_to):
        self.task, self.up_to = task, up_to

    def __call__(self, inputs, scored):
        n = (inputs == 1).sum(0)
        batch = self.task.strings(n)
        goes_on = torch.where(batch.inputs == 0, batch.targets, batch.inputs)
        said = torch.where(n <= self.up_to, batch.targets, goes_on)
        return torch.nn.functional.one_hot(said, self.task.output_size).flatten(0, 1)[scored]


@pytest.mark.parametrize("variant", ["anbn", "anbncn"])
@pytest.mark.parametrize("up_to", [0, 9, 10, 37, 50])
def test_reach_is_the_largest_n_up_to_which_all_strings_are_right(variant, up_to, monkeypatch):
    task = make_task("counting", length=10, variant=variant)
    network = Counter(task.vary(length=50), up_to)
    monkeypatch.setattr("rnnlstm.studies.common.network_of", lambda *_: (SimpleNamespace(task=task), network))
    assert studies()["counting"].after("quick", Path(), 0) == {
        "reach": up_to, "strings_right": up_to / 50, "trained_right": min(up_to, 10) / 10,
    }  # fmt: skip


def test_a_string_that_is_wrong_ends_the_reach(monkeypatch):
    task = make_task("counting", length=10)
    longer = task.vary(length=50)
    whole = Counter(longer, 50)

    def all_but_four(inputs, scored):
        answers = whole(inputs, scored).clone()
        which = scored % 50
        answers[which == 3] = 0
        return answers

    monkeypatch.setattr("rnnlstm.studies.common.network_of", lambda *_: (SimpleNamespace(task=task), all_but_four))
    found = studies()["counting"].after("quick", Path(), 0)
    assert found == {"reach": 3, "strings_right": 49 / 50, "trained_right": 9 / 10}


def test_state_tracking_is_tested_at_the_training_length_and_beyond(train):
    trained = train("task=state_tracking", "train.steps=1", "model.hidden_size=4", "task.length=8")
    found = studies()["state_tracking"].after("quick", trained.folder, 0)
    assert list(found) == ["at_8", "at_16", "at_32", "end_8", "end_16", "end_32"]
    assert all(0 <= value <= 1 for value in found.values())


def row(setting, arm, solved=5, **scores):
    return Row(
        setting, arm, "metric", seeds=list(range(5)), solved=[k < solved for k in range(5)], metric=[0.5] * 5,
        scores={name: value if isinstance(value, list) else [value] * 5 for name, value in scores.items()},
    )  # fmt: skip


def counting_rows(**reaches):
    """The standard table with these reaches by arm in every setting, else those that the papers say."""
    usual = {
        "LSTM, default": 120,
        "LSTM, output gate only": 256,
        "ReLU RNN": 130,
        "IRNN": 60,
        "GRU": 55,
        "tanh RNN": 51,
    }
    reaches = {**dict.fromkeys((arm.name for arm in ARMS), 50), **usual, **reaches}
    return [
        row(setting.name, arm, reach=reach)
        for setting in studies()["counting"].sweep("standard").settings
        for arm, reach in reaches.items()
    ]


@pytest.mark.parametrize(("reaches", "missed"), [
    ({}, []),
    ({"LSTM, default": [49, 49, 120, 120, 120]}, ["the LSTM learns"]),
    ({"LSTM, default": [49, 120, 120, 120, 120]}, []),
    ({"LSTM, default": 99}, ["the LSTM counts on"]),
    ({"LSTM, default": 256}, ["the LSTM stops"]),
    ({"LSTM, output gate only": 99}, ["an LSTM with the output gate only"]),
    ({"tanh RNN": 100}, ["the tanh RNN does not"]),
    ({"GRU": [0, 0, 100, 100, 100]}, ["neither does the GRU"]),
    ({"GRU": [0, 0, 0, 256, 256]}, []),
    ({"ReLU RNN": 99}, ["a ReLU RNN"]),
    ({"ReLU RNN": 99, "IRNN": 100}, []),
    ({"GRU": []}, ["neither does the GRU"]),  # all diverged: nothing is shown
])  # fmt: skip
def test_the_criteria_of_counting(reaches, missed):
    findings = studies()["counting"].findings("standard", counting_rows(**reaches))
    failed = [finding.text for finding in findings if not finding.passed]
    assert len(failed) == len(missed)
    assert all(text.startswith(begins) for text, begins in zip(failed, missed, strict=True))


def test_settings_in_which_nobody_counts_decide_nothing():
    rows = counting_rows()
    for r in rows:
        if not r.setting.endswith("all updates"):
            r.scores["reach"] = [0.0] * 5
    assert all(finding.passed for finding in studies()["counting"].findings("standard", rows))


def tracking_rows(**solved):
    can = {"tanh RNN": 5, "LSTM, default": 5, "GRU": 5}
    cannot = dict.fromkeys(("minGRU, 2 layers", "minLSTM, 2 layers", "LRU", "linear, orthogonal"), 0)
    return [
        row(setting, arm, solved.get(f"{setting}/{arm}", count), at_128=1.0 if count else 0.3)
        for setting in ("S3", "parity", SWAPS, "S5, all")
        for arm, count in {**can, **cannot}.items()
    ]


@pytest.mark.parametrize(("solved", "missed"), [
    ({}, []),
    ({"parity/tanh RNN": 4, "S3/tanh RNN": 4, "S5, all/LSTM, default": 4}, []),
    ({"parity/tanh RNN": 3}, ["parity: at least"]),
    ({"S3/LSTM, default": 3}, ["S3: at least 4 of 5 seeds of the LSTM"]),
    ({"parity/minLSTM, 2 layers": 1}, ["parity: networks"]),
    ({"S5, swaps/linear, orthogonal": 1}, ["S5 by swaps: networks"]),
    ({"S5, swaps/tanh RNN": 0}, ["S5 by swaps: at least 4 of 5 seeds of the tanh RNN"]),
    ({"S5, all/LSTM, default": 0}, ["S5 with all"]),
])  # fmt: skip
def test_the_criteria_of_state_tracking(solved, missed):
    findings = studies()["state_tracking"].findings("standard", tracking_rows(**solved))
    failed = [finding.text for finding in findings if not finding.passed]
    assert len(failed) == len(missed)
    assert all(text.startswith(begins) for text, begins in zip(failed, missed, strict=True))
