"""A network has one colour, whatever the picture, and whatever else is in it."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.measurement import measure
from rnnlstm.record.folders import flatten
from rnnlstm.reporting.charts import grouped, reaches
from rnnlstm.reporting.colours import NETWORKS, PALETTE, STYLES, network_name, style_numbers
from rnnlstm.reporting.figures import learning_figure, reach_figure, solving_figure
from rnnlstm.reporting.gradflow_figures import gradient_figure
from rnnlstm.reporting.runs import find_runs

from support.run_folders import make_run
from support.training import SMALL, plan_for

#: The table, as a list of its own: a change of a colour must be meant.
FIXED = {
    "tanh RNN": "#0067ad", "LSTM, default": "#c04000", "LSTM, chrono": "#00855f", "LSTM, forget bias 1": "#b4588f",
    "GRU": "#b48200", "ReLU RNN": "#3d97d6", "tanh RNN, orthogonal": "#1d2126", "linear, orthogonal": "#5f3f0c",
    "LSTM, forget bias 5": "#882255", "IRNN": "#5b3fb8",
}  # fmt: skip
SHOWN = {"lstm, init=chrono": "#00855f", "lstm, init=default": "#c04000", "rnn, init=default": "#0067ad"}


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
    return {text.partition(":")[0]: to_hex(line.get_color()) for text, line in zip(texts, lines, strict=True)}


@pytest.mark.parametrize(
    "draw",
    [
        lambda runs: learning_figure(grouped(runs)),
        lambda runs: solving_figure(grouped(runs)),
        lambda runs: reach_figure(reaches(runs)),
    ],
    ids=["curves", "solved", "reach"],
)
def test_in_the_figures_of_a_comparison(draw, runs):
    assert runs[0].config["model.name"] == "rnn"  # their order is that of the loss
    figure = draw(runs)
    assert colours(figure.axes[0]) == SHOWN
    plt.close(figure)


def test_in_the_report(runs):
    for group in grouped(runs):
        assert group.shown[0].name == "rnn, init=default"  # the order is that of the rows
        assert {s.name: PALETTE[s.style] for s in group.shown} == SHOWN


def test_in_the_figures_of_gradient_flow_whose_labels_say_more():
    found, styles = [], {}
    for name in reversed(SHOWN):
        model, init = name.split(", init=")
        plan = plan_for(*SMALL, f"model={model}", f"model.init={init}", "model.num_layers=2", "task.length=8")
        subject = AnalysedNetwork.of(plan.task, plan.network(0), plan.task.sample(0, 0, "probe", 2))
        label = f"{name} (trained, seed 0)"
        found += measure(label, subject)
        (styles[label],) = style_numbers([label], [network_name(dict(flatten(plan.config.tree)))])
    figure = gradient_figure(found, styles)
    shown = colours(figure.axes[0])
    assert {name.partition(" (")[0]: colour for name, colour in shown.items()} == SHOWN
    assert len(shown) == 6  # each layer has a line, with dashes of its own
    assert len({line.get_linestyle() for line in figure.axes[0].get_lines() if line.get_label()[:3] == "rnn"}) == 2
    plt.close(figure)


def test_the_table_is_fixed():
    assert {name: PALETTE[k] for k, name in enumerate(NETWORKS)} == FIXED
    assert len(set(PALETTE)) == len({style.on_dark for style in STYLES}) == len(STYLES)
    assert len({style.mark for style in STYLES}) == len({style.marker for style in STYLES}) == len(STYLES)


def lab(linear):
    """CIELAB of linear sRGB (3,), white point D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


#: What is left of linear sRGB without green or red cones (Machado, Oliveira & Fernandes 2009).
SIGHT = {
    "all cones": np.eye(3),
    "no green": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no red": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
}


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("ground", ["on_white", "on_dark"])
def test_any_two_colours_can_be_told_apart(sight, ground):
    channels = np.array([to_rgb(getattr(style, ground)) for style in STYLES])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = [lab(np.clip(SIGHT[sight] @ colour, 0, 1)) for colour in linear]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 10


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model.name": "rnn", "model.nonlinearity": "relu", "model.init": "identity"}, "IRNN"),
        ({"model.name": "rnn", "model.nonlinearity": "tanh", "model.init": "default"}, "tanh RNN"),
        ({"model.name": "rnn"}, "tanh RNN"),  # pooled over its starts
        ({"model.name": "lstm", "model.init": "forget_bias", "model.forget_bias": 1}, "LSTM, forget bias 1"),
        ({"model.name": "lstm", "model.init": "forget_bias", "model.forget_bias": 2}, ""),
        ({"model.name": "lstm_peephole", "model.init": "chrono"}, ""),
        ({}, ""),
    ],
)
def test_a_configuration_is_found_in_the_table(config, name):
    assert network_name(config) == name


def test_what_else_is_shown_changes_no_colour_of_the_table():
    names = ["lru", "gru", "lstm, lr=0.1", "lstm, lr=0.2", "rnn"]
    networks = ["", "GRU", "LSTM, chrono", "LSTM, chrono", "tanh RNN"]
    numbers = style_numbers(names, networks)
    assert [PALETTE[numbers[k]] for k in (1, 2, 4)] == [FIXED["GRU"], FIXED["LSTM, chrono"], FIXED["tanh RNN"]]
    assert len(set(numbers)) == 5  # the second LSTM and the network outside the table have colours of their own
    assert style_numbers(names[::-1], networks[::-1]) == numbers[::-1]
    assert style_numbers(names[1::3], networks[1::3]) == numbers[1::3]


def test_equal_names_have_colours_of_their_own():
    assert len(set(style_numbers(["b", "a", "b", "a"], [""] * 4))) == 4
    assert style_numbers([], []) == []
    assert len(style_numbers([str(k) for k in range(40)], [""] * 40)) == 40  # some share one
