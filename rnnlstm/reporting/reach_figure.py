"""How far each network reaches, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rnnlstm.reporting.colours import PALETTE, colour_numbers
from rnnlstm.reporting.figures import LONGEST_LABEL, MOST_PANELS
from rnnlstm.reporting.reach import Reach, by_reach
from rnnlstm.reporting.runs import shortened

MARKERS = "osD^vP*X"


def reach_figure(found: Sequence[Reach]) -> Figure:
    """A panel for each task: the share of seeds that solve it, by length, with 95 % intervals; networks that reach
    farthest first."""
    tasks = dict(list(by_reach(found).items())[:MOST_PANELS])
    most = max(min(len(members), len(PALETTE)) for members in tasks.values())
    size = (1 + 6 * len(tasks), 3.6 + 0.22 * most)
    figure, axes = plt.subplots(1, len(tasks), figsize=size, squeeze=False, layout="constrained")
    for panel, (task, members) in zip(axes[0], tasks.items(), strict=True):
        drawn = members[: len(PALETTE)]
        for reach, number in zip(drawn, colour_numbers([reach.name for reach in drawn]), strict=True):
            _draw(panel, reach, number, len(drawn))
        lengths = sorted({length for reach in members for length in reach.lengths})
        panel.set_xscale("log")
        panel.set_xticks(lengths, [str(length) for length in lengths])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_ylim(-0.04, 1.04)
        panel.set_title(task, fontsize=10)
        panel.set_xlabel("length T")
        panel.set_ylabel("share of seeds that solve it")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)
    return figure


def _draw(axes: Axes, reach: Reach, k: int, count: int) -> None:
    """Moved aside by a little: intervals at one length would hide one another."""
    lengths = np.array(reach.lengths) * 1.025 ** (k - (count - 1) / 2)
    shares = np.array(reach.shares)
    low, high = np.array(reach.intervals).T
    name = shortened(reach.name, LONGEST_LABEL)
    axes.errorbar(
        lengths,
        shares,
        np.maximum([shares - low, high - shares], 0),
        color=PALETTE[k],
        marker=MARKERS[k],
        markersize=5,
        linewidth=1.6,
        elinewidth=1,
        capsize=2,
        label=f"{name}: {'T = ' + str(reach.longest) if reach.longest else 'none of these lengths'}",
    )
