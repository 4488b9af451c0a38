"""The last lines of `train` and `compare`: how to start TensorBoard, and a link to the charts that matter first."""

from __future__ import annotations

import json
import os
import shlex
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnlstm.record.glossary import FIRST

PAGE = "http://localhost:6006/"
SERVED = 1000  #: points of a chart that TensorBoard shows unless told otherwise; of more it draws a random subset
ENOUGH = 10_000


def link(metrics: Iterable[str]) -> str:
    """TensorBoard's page with these headline metrics and the glossary's `FIRST` on top, curves unsmoothed, a colour
    for each configuration. A pinned tag that no run has is left out by the page."""
    tags = [*(f"eval/{name}" for name in dict.fromkeys(metrics)), *FIRST]
    cards = json.dumps([{"plugin": "scalars", "tag": tag} for tag in tags], separators=(",", ":"))
    query = {"pinnedCards": cards, "smoothing": "0", "runColorGroup": "regex:(.*)/"}
    return f"{PAGE}?{urllib.parse.urlencode(query)}#timeseries"


def look(places: Sequence[str | Path], summaries: Sequence[Mapping[str, Any]], log_every: int) -> list[str]:
    """Two lines; none without a summary that names its metric. `log_every`: the shortest interval of lines."""
    metrics = [summary["metric_name"] for summary in summaries if summary.get("metric_name")]
    if not metrics:
        return []
    folder = str(places[0])
    if len(set(map(str, places))) > 1:
        folder = os.path.relpath(os.path.commonpath([Path(place).absolute() for place in places]))
    most = max(_points(summary, log_every) for summary in summaries)
    more = f" --samples_per_plugin scalars={ENOUGH}" if most > SERVED else ""
    return [f"tensorboard --logdir {shlex.quote(folder)}{more}", f"  then open {link(metrics)}"]


def _points(summary: Mapping[str, Any], log_every: int) -> float:
    """Of the longest curve of a seed: lines, or updates on which clipping fired."""
    steps, rate = summary.get("steps") or 0, summary.get("clip_rate") or 0.0
    return max(steps / log_every, steps * rate)
