"""The colour of a network: the same in every picture of the project, from one table.

The colours start from Okabe & Ito's (2008). Each has a contrast of 3 : 1 with its ground, and any two differ by 10 in
CIELAB, also for readers without red or green cones. Dashes and marks tell networks apart without colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How a network's lines and marks look."""

    on_white: str  #: colour in PNGs, and in the report's light theme and on paper
    on_dark: str  #: colour in the report's dark theme
    dashes: tuple[int, ...]  #: lengths of strokes and gaps; empty: a solid line
    marker: str  #: matplotlib's name of the mark
    mark: str  #: the mark as an SVG path around 0


STYLES = (
    Style("#0067ad", "#56b4e9", (), "o", "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z"),
    Style("#c04000", "#f07a35", (9, 3), "s", "M-4.6-4.6h9.2v9.2h-9.2Z"),
    Style("#00855f", "#3cc79a", (), "D", "M0-6.4L6.4 0L0 6.4L-6.4 0Z"),
    Style("#b4588f", "#e79fc8", (12, 3, 3, 3), "^", "M0-6.2L5.8 4.4H-5.8Z"),
    Style("#b48200", "#eebc3c", (6, 2), "v", "M0 6.2L5.8-4.4H-5.8Z"),
    Style("#3d97d6", "#a9d8f5", (3, 3), "P", "M-1.8-5.5h3.6v3.7h3.7v3.6h-3.7v3.7h-3.6v-3.7h-3.7v-3.6h3.7Z"),
    Style("#1d2126", "#e6e4de", (14, 4), "h", "M0-6L5.2-3V3L0 6L-5.2 3V-3Z"),
    Style("#5f3f0c", "#c9a46a", (9, 3, 2, 3, 2, 3), "_", "M-6-2.5H6V2.5H-6Z"),
    Style("#882255", "#d66f9d", (4, 2), "X", "M-3-6L0-3L3-6L6-3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0L-6-3Z"),
    Style("#5b3fb8", "#8f76ff", (10, 2, 4, 2), "<", "M-6.2 0L4.4-5.8V5.8Z"),
    Style("#17696f", "#3fa8a8", (2, 2), ">", "M6.2 0L-4.4-5.8V5.8Z"),
    Style("#66751a", "#cfe06a", (12, 2, 2, 2), "p", "M0-6L5.7-1.9L3.5 4.9H-3.5L-5.7-1.9Z"),
)  # fmt: skip
#: Colours on white, by the number of the style.
PALETTE = tuple(style.on_white for style in STYLES)

#: What a configuration says of each network that has a style of its own; the k-th has style k. A key that is missing,
#: since several values are pooled, holds. The first that holds is the network.
NETWORKS: Mapping[str, Mapping[str, object]] = {
    "tanh RNN": {"model.name": "rnn", "model.nonlinearity": "tanh", "model.init": "default"},
    "LSTM, default": {"model.name": "lstm", "model.init": "default"},
    "LSTM, chrono": {"model.name": "lstm", "model.init": "chrono"},
    "LSTM, forget bias 1": {"model.name": "lstm", "model.init": "forget_bias", "model.forget_bias": 1.0},
    "GRU": {"model.name": "gru"},
    "ReLU RNN": {"model.name": "rnn", "model.nonlinearity": "relu", "model.init": "default"},
    "tanh RNN, orthogonal": {"model.name": "rnn", "model.nonlinearity": "tanh", "model.init": "orthogonal"},
    "linear, orthogonal": {"model.name": "linear"},
    "LSTM, forget bias 5": {"model.name": "lstm", "model.init": "forget_bias", "model.forget_bias": 5.0},
    "IRNN": {"model.name": "rnn", "model.nonlinearity": "relu", "model.init": "identity"},
}


#: Other names of networks in figures.
SHORT = {"tanh": "tanh RNN", "ReLU": "ReLU RNN"}


def network_name(config: Mapping[str, object]) -> str:
    """The name in `NETWORKS` of a flat configuration (`model.init` → `chrono`); empty for another network."""
    if "model.name" not in config:
        return ""
    holds = (
        name for name, keys in NETWORKS.items() if all(config.get(k, value) == value for k, value in keys.items())
    )
    return next(holds, "")


def named_network(name: str) -> str:
    """The name in `NETWORKS` with which a study's name of a network begins: `GRU` of `GRU, 2 layers`; or empty."""
    first, comma, rest = name.partition(",")
    name = f"{SHORT.get(first, first)}{comma}{rest}"
    return max((network for network in NETWORKS if f"{name},".startswith(f"{network},")), key=len, default="")


def style_numbers(names: Sequence[str], networks: Sequence[str]) -> list[int]:
    """The number in `STYLES` of each line of a figure, from its name there and its network's in `NETWORKS`.

    Of several lines of one network, the first by name has the network's style. The others, and networks outside the
    table, take in order of name the styles that are left: first those of no network, then those of networks that
    the figure lacks, the last first.
    """
    table = list(NETWORKS)
    order = sorted(range(len(names)), key=names.__getitem__)
    numbers: dict[int, int] = {}
    for k in order:
        if networks[k] in NETWORKS and (number := table.index(networks[k])) not in numbers.values():
            numbers[k] = number
    every = [*range(len(table), len(STYLES)), *reversed(range(len(table)))]
    left = [number for number in every if number not in numbers.values()] or every
    rest = [k for k in order if k not in numbers]
    numbers |= {k: left[i % len(left)] for i, k in enumerate(rest)}
    return [numbers[k] for k in range(len(names))]
