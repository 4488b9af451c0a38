"""Figures of a sentence: nothing is saturated, and nothing covers the data."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.counterfactual import InfluenceRow
from rnnlstm.instruments.jacobians import influence
from rnnlstm.reporting.gradflow_figures import (
    FEW_PLACES,
    SEEN,
    counterfactual_figure,
    distance_figure,
    gates_figure,
    influence_figure,
)

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


def row(kind, distance, changed, gradient, places=256):
    return InfluenceRow(kind, "", distance, distance, distance, places, changed, changed, gradient)


def test_a_latch_is_high_above_and_off_the_scale_below():
    latch = [row("keyword", 99, 0.9, 1e-60), row("filler", 1, 0.0, 1.0), row("filler", 10, 0.0, 1e-9, FEW_PLACES - 1)]
    figure = counterfactual_figure([("latch", latch), ("constant", [row("filler", 1, 0.0, 0.0)]), ("none", [])], True)
    figure.canvas.draw()
    top, _, _, _, _, _, bottom, _, _ = figure.axes
    marks = {
        axis: {
            (line.get_xdata()[0], line.get_marker()): line for line in axis.lines if line.get_marker() in ("o", "v")
        }
        for axis in (top, bottom)
    }
    assert marks[top][99, "o"].get_ydata() == pytest.approx([0.9])
    assert marks[bottom][99, "v"].get_ydata() == pytest.approx([SEEN])
    assert marks[bottom][10, "o"].get_ydata() == pytest.approx([-9])
    hollow = {x for (x, _), mark in marks[top].items() if mark.get_markerfacecolor() == "white"}
    assert hollow == {10}
    words = [text.get_text() for axis in (top, bottom) for text in axis.texts]
    assert "keyword, 99 back:\n90% of answers change" in words
    assert "keyword, 99 back:\ngradient $10^{-60}$ of the strongest" in words
    plt.close(figure)
