"""What one replica leaves on disk: `metrics.jsonl`, `clip_events.jsonl`, `summary.json` and TensorBoard's events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnlstm.record.files import LineWriter, write_json
from rnnlstm.record.tensorboard import TensorBoardView

METRICS, CLIP_EVENTS, SUMMARY, WEIGHTS = "metrics.jsonl", "clip_events.jsonl", "summary.json", "weights.pt"


class SeedRecord:
    """Writers into `folder`, which is made. Raises: OSError if it can't be written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._metrics = LineWriter(folder / METRICS)
        self._clip_events = LineWriter(folder / CLIP_EVENTS)
        self._view = TensorBoardView(folder)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics; `values` by tag, as in the glossary."""
        self._metrics.write({"step": step, **values})
        self._view.scalars(step, values)

    def clip_event(self, fields: Mapping[str, Any]) -> None:
        """One line for an update on which clipping fired."""
        self._clip_events.write(fields)

    def summary(self, fields: Mapping[str, Any]) -> None:
        write_json(self.folder / SUMMARY, fields)

    def close(self) -> None:
        self._metrics.close()
        self._clip_events.close()
        self._view.close()
