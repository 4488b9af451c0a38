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
from rnnlstm.record.columns import columns, refresh
from rnnlstm.record.folders import METRICS, seed_folders
from rnnlstm.record.reader import read_metrics
from rnnlstm.record.tensorboard import EVERY_TASK, TensorBoardView, experiment, layout

#: Beginnings of the tags that are aggregated.
PREFIXES = (
    "eval", "train/loss", "grad/norm_", "clip/rate", "curriculum/",
    "baseline_current/",  # which differs from seed to seed, as other baselines don't
)  # fmt: skip
#: Of the gradient through time, what has a chart: the other lags are in the seeds' own.
FLOW = re.compile(r"flow/(\w+_lag_10|(\w+_)?half_life)(/layer_\d+)?")
#: Tags of which every seed has the same value, which is shown as it is.
SAME = ("baseline", "clip/threshold")
SEED_CHARTS = {
    "gradient norm before and after clipping, and the threshold":
        "^(grad/norm_before_clip|grad/norm_after_clip|clip/threshold)$",
    "each update on which clipping fired: norm before clipping": "^(clip/event_norm|clip/threshold(_norm_.*)?)$",
    "largest norm before clipping since the last line": "^(grad/window_max_norm|clip/threshold)$",
    "share of updates clipped since the last line": "^clip/window_rate$",
}  # fmt: skip


class Aggregate:
    """Writes `<run folder>/aggregate`. The band is the range under five seeds, the quartiles from five on.

    A seed that ended early (solved, say) counts with its last evaluation: its weights stay as they are.
    That the folder can't be written is a warning; with `strict`, an OSError.
    """

    def __init__(
        self,
        folder: Path,
        task: str,
        metric: str,
        plateaus: Sequence[str],
        headlines: Sequence[str],
        strict: bool = False,
    ) -> None:
        """`headlines`: the tasks' headline metrics. HParams has a column for each."""
        self._folder, self._strict = folder, strict
        self._group = printable(folder.resolve().parent.parent.name) or task
        self._metric, self._plateaus = metric, list(plateaus)
        self._columns = [*(f"eval/{name}" for name in sorted({*headlines, metric})), *EVERY_TASK]
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

    def refresh_columns(self) -> None:
        """Once the run has ended: HParams' columns here and in the finished runs beside this one."""
        refresh(self._folder.parent, self._columns)

    def close(self) -> None:
        self._view.publish()
        self._view.close()

    def _add(self, step: int, lines: Mapping[int, Mapping[str, float]]) -> None:
        for seed, line in lines.items():
            self._latest.setdefault(seed, {}).update(line)
        values: dict[str, float] = {}
        for tag in dict.fromkeys(tag for line in lines.values() for tag in line):
            if tag.startswith(SAME) and not tag.startswith(PREFIXES):
                values[tag] = next(line[tag] for line in lines.values() if tag in line)
            elif tag.startswith(PREFIXES) or FLOW.fullmatch(tag):
                of_seeds = self._latest.values() if tag.startswith("eval") else lines.values()
                numbers = sorted(line[tag] for line in of_seeds if tag in line)
                values |= dict(zip((f"{tag}/low", f"{tag}/median", f"{tag}/high"), band(numbers), strict=True))
        self._view.scalars(step, {f"{self._group}/{tag}": value for tag, value in values.items()})

    def _start(self) -> None:
        self._latest: dict[int, dict[str, float]] = {}
        self._view = TensorBoardView(self._folder, self._strict, describe=False)
        self._view.add(0, [experiment(columns(self._folder.parent), self._columns)])
        told = ", ".join(tag.partition("/")[2] for tag in self._plateaus)
        title = f"{self._group}: median and band over seeds" + (f" ({told})" if told else "")
        own = f"^{re.escape(self._group)}/"
        lines = {
            "eval/loss beside its baseline": f"{own}(eval/loss/median|baseline/.*)$",
            "gradient norm before and after clipping, and the threshold":
                f"{own}(grad/norm_(before|after)_clip/median|clip/threshold)$",
        }  # fmt: skip
        self._view.add(0, [layout({title: (self._bands(), lines), "clipping, seed by seed": ({}, SEED_CHARTS)})])

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
