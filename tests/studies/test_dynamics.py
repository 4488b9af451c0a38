"""The study of fixed points: what its sentences count, what it measures, and its figure."""

from __future__ import annotations

import pytest

from rnnlstm.studies import studies
from rnnlstm.studies.dynamics import LONGER_BY_FAR, LONGER_BY_FEW, NAMED, RIGHT, VARIED
from rnnlstm.studies.study import Row

ARMS = ("tanh RNN", VARIED, "GRU", "LSTM, default", "LSTM, chrono")
STUDY = studies()["dynamics"]


def row(setting, arm, solved, **scores):
    shares = {f"{what}_after_{n}": 0.9 for what in ("right", "told") for n in ("0", "T", "10_T", "1000")}
    values = {"accuracy_at_T": 1.0, LONGER_BY_FEW: 0.1, LONGER_BY_FAR: 0.2, RIGHT: 4, NAMED: 4, **shares, **scores}
    lists = {name: value if isinstance(value, list) else [value] * 2 for name, value in values.items()}
    return Row(setting, arm, seeds=[0, 1], solved=solved, steps_to_solve=[None, None], scores=lists)


def finding(rows, words):
    (one,) = [found for found in STUDY.findings("quick", rows) if words in found.text]
    return one


def test_a_sentence_is_about_the_seeds_that_solved_at_any_length():
    others = [row("T=12", arm, [True, True]) for arm in ARMS if arm != "tanh RNN"]
    first = row("T=12", "tanh RNN", [False, True], **{NAMED: [0, 4]})
    found = finding([first, *others], "attractors name at least as many")
    assert (found.passed, found.measured) == (True, "T=12: 1 of 2 solve it; 4 of 4")
    second = row("T=20", "tanh RNN", [True, False], **{NAMED: [3, 4]})
    found = finding([first, second, *others], "attractors name at least as many")
    assert (found.passed, found.measured) == (False, "T=12: 1 of 2 solve it; 4 of 4; T=20: 1 of 2 solve it; 3 of 4")


def test_where_none_solved_or_nothing_was_measured_a_sentence_misses():
    others = [row("T=12", arm, [True, True]) for arm in ARMS if arm != VARIED]
    for mine in (row("T=12", VARIED, [False, False]), row("T=12", VARIED, [True, True], **{NAMED: [None, None]})):
        found = finding([mine, *others], "attractors name every dish")
        assert not found.passed
        assert found.measured.endswith("none")


def test_the_figure_bears_a_seed_without_measurements(tmp_path):
    rows = [row(f"T={T}", arm, [True, False]) for T in (10, 20) for arm in ARMS]
    rows[0] = row("T=10", "tanh RNN", [True, False], **{name: [1.0, None] for name in rows[0].scores})
    assert STUDY.draw(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_what_is_measured_of_a_trained_network(train):
    folder = train("train.steps=2", "model=rnn", "task.shortest=6").folder
    values = STUDY.after("quick", folder, 0)
    assert set(STUDY.columns) <= set(values)
    assert values["at_rest"] == 1  # it contracts: one fixed point, whose answer is that of every text
    assert (values["attractors"], values[NAMED], values[RIGHT]) == (1, 1, 1)
    assert values["told_after_1000"] == pytest.approx(values["right_after_1000"], abs=0.2)
    assert values["longest_time_constant"] > 0
