"""Who solves the task when: the share of seeds that have, by update."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnlstm.reporting.colours import PALETTE, colour_numbers
from rnnlstm.reporting.figures import LONGEST_LABEL, panels
from rnnlstm.reporting.runs import Run, labels
from rnnlstm.reporting.statistics import MOST_BANDS, SolveTimes, solve_times, solved_share


def survival_curves(runs: Sequence[Run]) -> Figure:
    """A panel for each task and length: a step line for each configuration, and its 95 % band from the first solved
    one on."""
    titled = panels(runs)
    most = max(map(len, titled.values()))
    size = (1 + 5.5 * len(titled), 4 + 0.2 * most)
    figure, axes = plt.subplots(1, len(titled), figsize=size, squeeze=False, layout="constrained")
    for panel, (title, members) in zip(axes[0], titled.items(), strict=True):
        times = [solve_times(run) for run in members]
        end = max((t.followed for t in times), default=0.0) or 1.0
        names = labels(members, LONGEST_LABEL)
        for k, (found, name, number) in enumerate(zip(times, names, colour_numbers(names), strict=True)):
            width = 1.5 + (len(members) - 1 - k) * min(1.6, 6 / len(members))
            _draw(panel, found, name, PALETTE[number], width, end, len(members) <= MOST_BANDS)
        panel.set_title(title, fontsize=10)
        panel.set_xlim(0, end * 1.02)
        panel.set_ylim(-0.04, 1.04)
        panel.set_xlabel("update")
        panel.set_ylabel("share of seeds that have solved it")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.15), frameon=False)
    return figure


def _draw(axes: Axes, times: SolveTimes, name: str, colour: str, width: float, end: float, band: bool) -> None:
    """One configuration's line as far as it is known, with a tick where seeds are followed no further. Lines become
    thinner one by one, so that one which runs along another can be seen."""
    curve = solved_share(times, end)
    count = f"{int(times.solved.sum())} of {len(times.steps)}"
    axes.step(curve.steps, curve.share, where="post", color=colour, label=f"{name}: {count}", linewidth=width)
    begun = curve.share > 0  # before, bands would only hide one another
    if band and begun.any():
        steps, low, high = curve.steps[begun], curve.low[begun], curve.high[begun]
        axes.fill_between(steps, low, high, step="post", color=colour, alpha=0.12, linewidth=0)
    if len(curve.ended):
        axes.plot(curve.ended, curve.ended_share, "|", color=colour, markersize=9, markeredgewidth=1.5)
