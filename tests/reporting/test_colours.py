"""A configuration has one colour, whatever the figure, and whatever the order of the networks in it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from rnnlstm.instruments.measurement import measure
from rnnlstm.instruments.subject import Subject
from rnnlstm.reporting.colours import PALETTE, colour_numbers
from rnnlstm.reporting.figures import learning_curves
from rnnlstm.reporting.gradflow_figures import gradient_figure
from rnnlstm.reporting.html.shown import grouped
from rnnlstm.reporting.reach import reaches
from rnnlstm.reporting.reach_figure import reach_figure
from rnnlstm.reporting.runs import find_runs
from rnnlstm.reporting.survival_figure import survival_curves

from support.run_folders import make_run
from support.training import SMALL, plan_for

NETWORKS = {"lstm, init=chrono": PALETTE[0], "lstm, init=default": PALETTE[1], "rnn, init=default": PALETTE[2]}


@pytest.fixture
def runs(tmp_path):
    """The RNN has the lowest loss, chrono the next."""
    for loss, name in enumerate(("rnn, init=default", "lstm, init=chrono", "lstm, init=default")):
        model, init = name.split(", init=")
        for length in (10, 20):
            folder = tmp_path / f"{name}{length}"
            config = {"model__name": model, "model__init": init, "task__length": length}
            make_run(folder, seeds=1, summaries=[{"loss": float(loss)}], **config)
    return find_runs([str(tmp_path)])


def colours(axis):
    """By the name that a legend's entry begins with."""
    handles, texts = axis.get_legend_handles_labels()
    lines = [getattr(handle, "lines", [handle])[0] for handle in handles]
    return {text.partition(":")[0]: to_hex(line.get_color()).upper() for text, line in zip(texts, lines, strict=True)}


@pytest.mark.parametrize(
    "draw",
    [learning_curves, survival_curves, lambda runs: reach_figure(reaches(runs))],
    ids=["curves", "solved", "reach"],
)
def test_in_the_figures_of_a_comparison(draw, runs):
    assert runs[0].config["model.name"] == "rnn"  # their order is that of the loss
    figure = draw(runs)
    assert colours(figure.axes[0]) == NETWORKS
    plt.close(figure)


def test_in_the_report(runs):
    for group in grouped(runs):
        assert group.shown[0].name == "rnn, init=default"  # the order is that of the rows
        assert {s.name: PALETTE[s.style] for s in group.shown} == NETWORKS


def test_in_the_figures_of_gradient_flow_whose_labels_say_more():
    found = []
    for name in reversed(NETWORKS):
        model, init = name.split(", init=")
        plan = plan_for(*SMALL, f"model={model}", f"model.init={init}", "model.num_layers=2", "task.length=8")
        subject = Subject.of(plan.task, plan.network(0), plan.task.sample(0, 0, "probe", 2))
        found += measure(f"{name} (trained, seed 0)", subject)
    figure = gradient_figure(found)
    shown = colours(figure.axes[0])
    assert {name.partition(" (")[0]: colour for name, colour in shown.items()} == NETWORKS
    assert len(shown) == 6  # each layer has a line, with dashes of its own
    assert len({line.get_linestyle() for line in figure.axes[0].get_lines() if line.get_label()[:3] == "rnn"}) == 2
    plt.close(figure)


def test_equal_names_have_colours_of_their_own():
    assert colour_numbers(["b", "a", "b", "a"]) == [2, 0, 3, 1]
    assert colour_numbers([]) == []
