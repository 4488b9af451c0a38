"""The study of mean-field theory: its criterion's numbers, and its learning map's rows."""

from __future__ import annotations

import math

import pytest

from rnnlstm.studies import theory
from rnnlstm.studies.study import Row, Rows


def edge(scale, gain, factor):
    return Row("border", f"input × {scale:g}, gain {gain:g}", seeds=[0], scores={"growth": [factor]})


def test_the_border_is_where_the_factor_crosses_one():
    gains = theory.GAINS["quick"]
    assert theory.measured_border(Rows([edge(1, g, g / 1.7) for g in gains]), "quick", 1) == pytest.approx(1.7)
    assert math.isnan(theory.measured_border(Rows([edge(1, g, 0.9) for g in gains]), "quick", 1))


def place(gain, rate, length, solved):
    """A row of the learning map, of which `solved` in 5 seeds solve."""
    scores = {"predicted_growth": [0.8 if gain < 1 else gain] * 5}
    name = f"gain {gain:g}, lr {rate:g}, T={length}"
    return Row("learning map", name, seeds=[*range(5)], solved=[k < solved for k in range(5)], scores=scores)


def learning(reach):
    """Most seeds solve a length up to `reach(gain)`, two in five beyond."""
    grid = [(g, r, T) for g in theory.MAP_GAINS for r in theory.MAP_RATES for T in theory.MAP_LENGTHS]
    return Rows([place(g, r, T, 3 if reach(g) >= T else 2) for g, r, T in grid])


def test_the_longest_length_is_what_most_seeds_solve_and_is_ranked_with_theory():
    longer = learning(lambda gain: 10 * round(gain / 0.5))
    assert [theory.longest(longer, gain, 1e-3) for gain in theory.MAP_GAINS] == [20, 20, 20, 30]
    assert theory.longest(learning(lambda gain: 0), 1.0, 1e-3) == 0
    assert theory._followed(learning(lambda gain: 20 * (gain >= 1) + 10 * (gain > 1.2)))[0]
    assert not theory._followed(learning(lambda gain: 30 if gain < 1 else 10))[0]


def test_a_place_of_the_learning_map_is_trained_and_has_its_prediction(monkeypatch):
    monkeypatch.setattr(theory, "MAP_UPDATES", 2)
    monkeypatch.setattr(theory, "MAP_SEEDS", 2)
    monkeypatch.setattr(theory, "MAP_UNITS", 8)
    row = theory.learned(0.8, 1e-3, 10)
    assert (row.setting, row.arm, row.n, row.steps) == ("learning map", "gain 0.8, lr 0.001, T=10", 2, 2)
    assert 0 < row.median("predicted_growth") < 0.8
    assert row.scores["predicted_growth"] == [row.median("predicted_growth")] * 2


def test_the_figure_takes_the_settings_that_are_there(tmp_path):
    rows = [*learning(lambda gain: 20), Row("adding", "tanh RNN, H=64", hidden_size=64, seeds=[0],
            scores={"half_life": [1.3], "predicted": [1.2], "predicted_fresh": [1.2]})]  # fmt: skip
    theory.draw_theory(Rows(rows), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0
