"""What one replica writes to disk: JSON lines, a summary, and TensorBoard events as a view of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from rnnlstm.config.errors import CheckpointError
from rnnlstm.record.files import LineWriter, write_json
from rnnlstm.record.folders import CLIP_EVENTS, FLOW, LINES, METRICS, SAMPLES, SUMMARY
from rnnlstm.record.reader import Sample
from rnnlstm.record.seed_view import SeedView


class SeedRecord:
    """Writers into `folder`, which is made. Raises: OSError if it can't be written. `opened` closes them, if `end`
    has not, however the run ends.

    `lengths`, of an earlier `sync`, cuts the lines that are there back to what they were then; events are written
    again from them by `replay`. Raises: CheckpointError if the files are shorter than that.
    """

    def __init__(self, folder: Path, opened: ExitStack, lengths: Mapping[str, int] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        kept = lengths or {}
        if lost := lost_lines(folder, kept):
            raise CheckpointError(f"the checkpoint does not fit this run: {lost}; overwrite=true starts again")
        self._lines = {
            name: opened.enter_context(closing(LineWriter(folder / name, kept.get(name)))) for name in LINES
        }
        self._view = opened.enter_context(closing(SeedView(folder)))
        if lengths is None:
            self._view.publish()

    def begin(self, configuration: Mapping[str, Any], group: str) -> None:
        """Enter the seed into TensorBoard's table of hyperparameters, in the row of its `group`."""
        self._view.begin(configuration, group)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics; `values` by tag, as in the glossary."""
        self._lines[METRICS].write({"step": step, **values})
        self._view.scalars(step, values)

    def sync(self) -> dict[str, int]:
        """All lines are on the disk; how long their files are."""
        return {name: writer.sync() for name, writer in self._lines.items()}

    def replay(self) -> None:
        """Show everything in the lines in TensorBoard, in place of what it has shown before."""
        self._view.replay()
        self._view.publish()

    def clip_event(self, fields: Mapping[str, Any]) -> None:
        """One line for an update on which clipping fired."""
        self._lines[CLIP_EVENTS].write(fields)
        self._view.clip_event(
            fields["step"], {name: fields[name] for name in ("norm_before", "coefficient", "clipped_share")}
        )

    def flow(self, step: int, norms: Mapping[str, np.ndarray]) -> None:
        """Gradient norms by lag, (L, K) for each state: a line, and now and then a picture of all so far."""
        lines = {name: [[float(f"{v:.6g}") for v in layer] for layer in layers] for name, layers in norms.items()}
        self._lines[FLOW].write({"step": step, **lines})
        self._view.flow(step, {name: np.array(layers) for name, layers in lines.items()})

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Decoded sequences, each `text` with the right answer and the model's `answer`."""
        self._lines[SAMPLES].write({"step": step, "samples": list(samples)})
        self._view.samples(step, samples)

    def summary(self, fields: Mapping[str, Any]) -> None:
        write_json(self.folder / SUMMARY, fields)

    def end(self, step: int, status: str) -> None:
        """The last picture, the session's end, and everything closed."""
        self._view.end(step, status)
        for writer in self._lines.values():
            writer.close()
        self._view.close()


def lost_lines(folder: Path, lengths: Mapping[str, int]) -> str | None:
    """The first file of lines that is shorter than it was, in words; None if none is."""
    for name, length in lengths.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size is None or size < length:
            present = "no file" if size is None else f"{size:,} bytes long"
            return f"{path} is {present}, and was {length:,} bytes long when it was saved"
    return None
