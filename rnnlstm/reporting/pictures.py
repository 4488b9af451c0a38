"""Every picture of a comparison, into a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rnnlstm.config.errors import DiskError
from rnnlstm.record.folders import as_name
from rnnlstm.reporting.figures import MOST_MAPS, MOST_PANELS, learning_curves, overview
from rnnlstm.reporting.flow import flows
from rnnlstm.reporting.reach import reaches
from rnnlstm.reporting.reach_figure import reach_figure
from rnnlstm.reporting.runs import Run, by_task
from rnnlstm.reporting.survival_figure import survival_curves


def save_figures(runs: Sequence[Run], folder: str) -> list[Path]:
    """`learning_curves.png`, `survival.png`, `reach.png` where a network was trained at several lengths, and an
    overview of each task and length that has records of the gradient through time: `overview.png`, or
    `overview_<task>_T<length>.png` where there are several.

    However many runs there are, at most eight tasks and lengths are drawn, and eight of their configurations, the
    first: the lowest loss. Raises: DiskError.
    """
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():  # names are no formulas
        warnings.filterwarnings("ignore", "Glyph")  # and may be written in letters that the font lacks
        return _save(runs, folder)


def _save(runs: Sequence[Run], folder: str) -> list[Path]:
    paths = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, figure in _figures(runs):
            paths.append(Path(folder) / name)
            figure.savefig(paths[-1], dpi=110)
            plt.close(figure)
    except OSError as error:
        raise DiskError(f"can't write figures in {folder}: {error.strerror}") from None
    finally:
        plt.close("all")
    return paths


def _figures(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    yield "learning_curves.png", learning_curves(runs)
    yield "survival.png", survival_curves(runs)
    if far := reaches(runs):
        yield "reach.png", reach_figure(far)
    groups = by_task(runs)
    for (task, length), members in list(groups.items())[:MOST_PANELS]:
        if any("hidden" in flows(run) for run in members[: 4 * MOST_MAPS]):
            yield "overview.png" if len(groups) == 1 else f"overview_{as_name(task)}_T{length}.png", overview(members)
