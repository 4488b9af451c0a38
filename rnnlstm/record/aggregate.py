"""The aggregate over a run's seeds: TensorBoard events of the median and a band, with charts that draw them.

A chart of custom scalars names tags and no runs: it draws every run that has them. So the tags begin with the folder
that runs of one task and length share (`keyword_T30/eval/loss/median`), and two tasks have charts of their own. The
layouts of several runs are merged by TensorBoard, category by category; those with equal titles must be equal.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rnnlstm.config.errors import printable
from rnnlstm.record.folders import METRICS, seed_folders
from rnnlstm.record.reader import read_metrics
from rnnlstm.record.tensorboard import TensorBoardView, layout

#: Beginnings of the tags that are aggregated.
PREFIXES = (
    "eval", "train/loss", "grad/norm_before_clip", "clip/rate", "flow/", "curriculum/",
    "baseline_current/",  # which differs from seed to seed, as other baselines don't
)  # fmt: skip


class Aggregate:
    """Writes `<run folder>/aggregate`. The band is the range under five seeds, the quartiles from five on.

    A seed that ended early (solved, say) counts with its last evaluation: its weights stay as they are.
    That the folder can't be written is a warning; with `strict`, an OSError.
    """

    def __init__(self, folder: Path, task: str, metric: str, plateaus: Sequence[str], strict: bool = False) -> None:
        self._folder, self._strict = folder, strict
        self._group = printable(folder.resolve().parent.parent.name) or task
        self._metric, self._plateaus = metric, list(plateaus)
        self._start()

    def add(self, step: int, lines: Mapping[int, Mapping[str, float]]) -> None:
        """Add the lines that the seeds, by number, wrote at an evaluation."""
        self._add(step, lines)
        self._view.publish()

    def rebuild(self, run_folder: Path) -> None:
        """Write all events again from the records of the seeds in the folder."""
        self._view.close()
        self._start()
        try:
            steps: dict[int, dict[int, Mapping[str, float]]] = {}
            for seed, folder in seed_folders(run_folder):
                for step, line in read_metrics(folder / METRICS, quiet=True):
                    if any(tag.startswith("eval/") for tag in line):
                        steps.setdefault(step, {})[seed] = line
            for step in sorted(steps):
                self._add(step, steps[step])
        except BaseException:
            self._view.close()  # unfinished events replace nothing
            raise
        self._view.publish()

    def close(self) -> None:
        self._view.publish()
        self._view.close()

    def _add(self, step: int, lines: Mapping[int, Mapping[str, float]]) -> None:
        for seed, line in lines.items():
            self._latest.setdefault(seed, {}).update(line)
        values: dict[str, float] = {}
        for tag in dict.fromkeys(tag for line in lines.values() for tag in line):
            if tag.startswith("baseline") and not tag.startswith(PREFIXES):
                values[tag] = next(line[tag] for line in lines.values() if tag in line)
            elif tag.startswith(PREFIXES):
                of_seeds = self._latest.values() if tag.startswith("eval") else lines.values()
                numbers = sorted(line[tag] for line in of_seeds if tag in line)
                values |= dict(zip((f"{tag}/low", f"{tag}/median", f"{tag}/high"), band(numbers), strict=True))
        self._view.scalars(step, {f"{self._group}/{tag}": value for tag, value in values.items()})

    def _start(self) -> None:
        self._latest: dict[int, dict[str, float]] = {}
        self._view = TensorBoardView(self._folder, self._strict)
        told = ", ".join(tag.partition("/")[2] for tag in self._plateaus)
        title = f"{self._group}: median and band over seeds" + (f" ({told})" if told else "")
        beside = f"^{re.escape(self._group)}/(eval/loss/median|baseline/.*)$"
        self._view.add(0, [layout(title, self._bands(), {"eval/loss beside its baseline": beside})])

    def _bands(self) -> dict[str, tuple[str, ...]]:
        """By title: tags of value, low and high. Of a second band in a chart TensorBoard says that seeds lack it."""
        charts = {
            f"eval/{self._metric}": f"eval/{self._metric}",
            "eval/loss": "eval/loss",
            "gradient 10 steps before the answer, for h": "flow/hidden_lag_10",
            "gradient 10 steps before the answer, for c": "flow/cell_lag_10",
            "half-life of the gradient in steps (no line: infinite)": "flow/half_life",
            "gradient norm before clipping": "grad/norm_before_clip",
            "share of updates that were clipped": "clip/rate",
        }
        return {
            title: tuple(f"{self._group}/{tag}/{end}" for end in ("median", "low", "high"))
            for title, tag in charts.items()
        }


def band(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Low, median, high of sorted numbers: the range under five of them, the quartiles from five on."""
    median = statistics.median(numbers)
    if len(numbers) < 5:
        return numbers[0], median, numbers[-1]
    low, _, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return low, median, high
