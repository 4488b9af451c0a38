"""What observing costs: a real run, which measures it itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rnnlstm.python_api import run
from rnnlstm.record.files import read_lines
from rnnlstm.record.seed_record import METRICS


def instruments_share(model: str, updates: int = 300) -> float:
    """Share of a training run's time that instruments took at their default cadence."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"model={model}", f"runs_root={folder}", "train.stop_when_solved=false", "eval.samples=128"]
        (summary,) = run([*options, f"train.steps={updates}"])
        tag = "time/instruments_share"
        shares = [float(line[tag]) for line in read_lines(Path(summary["folder"]) / METRICS) if tag in line]
    return shares[-1]
