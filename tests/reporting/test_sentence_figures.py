"""Figures of a sentence: nothing is saturated, and nothing covers the data."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.jacobians import influence
from rnnlstm.reporting.gradflow_figures import distance_figure, gates_figure, influence_figure

from support.training import SMALL, plan_for


@pytest.fixture(scope="module")
def subjects():
    plans = [plan_for(*SMALL, f"model={model}") for model in ("rnn", "lstm")]
    return [
        (plan.config.cell["name"], AnalysedNetwork.of(plan.task, plan.network(0), plan.task.sample(0, 0, "probe", 3)))
        for plan in plans
    ]


def test_the_memory_is_drawn_against_its_largest(subjects):
    (_, lstm) = subjects[1]
    figure = gates_figure(subjects)
    axis = figure.axes[0]
    names = [label.get_text() for label in axis.get_yticklabels()]
    shown = torch.tensor(axis.get_images()[0].get_array())
    size = lstm.path.states[0]["cell"][:, 0].abs().mean(-1)
    assert names == ["input", "forget", "output", "|c| / its largest"]
    assert shown[-1].tolist() == pytest.approx((size / size.max()).tolist())
    assert shown[-1].max() == 1
    plt.close(figure)


def test_the_legend_stands_beside_the_points(subjects):
    found = [(name, subject, influence(subject)) for name, subject in subjects]
    figure = distance_figure(found)
    figure.canvas.draw()
    for axis in figure.axes:
        legend = axis.get_legend().get_window_extent()
        assert not legend.overlaps(axis.get_window_extent())
        assert legend.y0 >= 0
    plt.close(figure)


def test_a_word_that_counts_ten_thousand_times_less_is_white(subjects):
    (name, subject) = subjects[1]
    T = len(subject.batch.inputs)
    values = torch.logspace(-T + 1, 0, T, dtype=torch.float64)[:, None].expand(T, 3)  # a tenth for each step back
    figure = influence_figure([(name, subject, values)])
    grounds = [patch for patch in figure.axes[0].patches if patch.get_fill()]
    shades = [sum(patch.get_facecolor()[:3]) for patch in grounds]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades[-5:])) == 5  # 1, a tenth … a ten-thousandth
    assert len(set(shades[:-4])) == 1  # and everything below
    plt.close(figure)
