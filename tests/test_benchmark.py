"""The benchmark's parts on tiny shapes: every contender computes the same, and nothing is written."""

from __future__ import annotations

import pytest

from rnnlstm.benchmark import main
from rnnlstm.measure.plain import against_plain_scripts
from rnnlstm.measure.recurrences import measure
from rnnlstm.measure.timing import in_turn, matrix_product_rate


def test_contenders_take_turns_and_the_warm_up_does_not_count():
    calls = []
    times = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=1)
    assert calls == ["a", "b"] * 4
    assert set(times) == {"a", "b"}
    assert 0 <= times["a"].low <= times["a"].median <= times["a"].high
    assert matrix_product_rate(64, 2) > 0


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_a_recurrence_with_all_contenders(cell):
    result = measure(cell, 2, 3, 4, rounds=2, loops=True)
    assert list(result.times) == ["torch.nn", "fused", "reference", "hand loop"]
    assert result.ratio > 0
    assert result.rate > 0


def test_training_against_plain_scripts_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(against_plain_scripts("rnn", 1, 1)) == {"lockstep", "plain scripts"}
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_one_line(capsys):
    assert main(["--rounds", "0"]) == 2
    assert main(["--fast"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
