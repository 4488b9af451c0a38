"""What one replica leaves on disk: JSON lines, a summary, and TensorBoard's events as a view of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnlstm.record import tensorboard_plugins as plugins
from rnnlstm.record.files import LineWriter, read_lines, write_json
from rnnlstm.record.heatmap import flow_png
from rnnlstm.record.tensorboard import TensorBoardView

METRICS, CLIP_EVENTS, FLOW, SAMPLES = "metrics.jsonl", "clip_events.jsonl", "flow.jsonl", "samples.jsonl"
LINES = (METRICS, CLIP_EVENTS, FLOW, SAMPLES)
SUMMARY, WEIGHTS = "summary.json", "weights.pt"
MOST_ROWS = 240  #: rows of the picture of the gradient through time; beyond, every second is dropped


class SeedRecord:
    """Writers into `folder`, which is made. Raises: OSError if it can't be written.

    `lengths`, of an earlier `sync`, cuts the lines that are there back to what they were then; events are written
    anew from them by `replay`.
    """

    def __init__(self, folder: Path, lengths: Mapping[str, int] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        kept = lengths or {}
        self._lines = {name: LineWriter(folder / name, kept.get(name)) for name in LINES}
        for events in folder.glob("events.out.tfevents.*"):
            events.unlink()
        self._view = TensorBoardView(folder)
        self._flow: dict[str, list[tuple[int, np.ndarray]]] = {}  # by tag: (training step, norms by lag)
        self._flow_stride = 1
        self._looks = 0

    def begin(self, configuration: Mapping[str, Any], group: str, metrics: Sequence[str]) -> None:
        """Enter the seed into TensorBoard's table of hyperparameters, in the row of its `group`."""
        self._view.add(0, plugins.session_start(configuration, group, metrics))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics; `values` by tag, as in the glossary."""
        self._lines[METRICS].write({"step": step, **values})
        self._view.scalars(step, values)

    def sync(self) -> dict[str, int]:
        """All lines are on the disk; how long their files are."""
        return {name: writer.sync() for name, writer in self._lines.items()}

    def replay(self) -> None:
        """Show everything in the lines in TensorBoard."""
        for line in read_lines(self.folder / METRICS):
            step = line.pop("step")
            self._view.scalars(step, line)
        for line in read_lines(self.folder / FLOW):
            self._show_flow(line.pop("step"), {name: np.asarray(norms) for name, norms in line.items()})
        for line in read_lines(self.folder / SAMPLES):
            self._show_samples(line["step"], line["samples"])

    def clip_event(self, fields: Mapping[str, Any]) -> None:
        """One line for an update on which clipping fired."""
        self._lines[CLIP_EVENTS].write(fields)

    def flow(self, step: int, norms: Mapping[str, np.ndarray]) -> None:
        """Gradient norms by lag, (L, K) for each state: a line, and now and then a picture of all so far."""
        lines = {name: [[float(f"{v:.6g}") for v in layer] for layer in layers] for name, layers in norms.items()}
        self._lines[FLOW].write({"step": step, **lines})
        self._show_flow(step, norms)

    def _show_flow(self, step: int, norms: Mapping[str, np.ndarray]) -> None:
        if self._looks % self._flow_stride == 0:
            for name, layers in norms.items():
                for layer, values in enumerate(layers):
                    tag = f"flow/{name}" + (f"/layer_{layer}" if len(layers) > 1 else "")
                    self._flow.setdefault(tag, []).append((step, values))
        self._looks += 1
        rows = len(next(iter(self._flow.values())))
        if rows == MOST_ROWS:
            self._flow = {tag: kept[::2] for tag, kept in self._flow.items()}
            self._flow_stride *= 2
        if self._looks & (self._looks - 1) == 0:  # 1, 2, 4, 8, … looks: pictures add up to twice the last one
            self._draw_flow(step)

    def samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        """Decoded sequences, each `text` with the right answer and the model's `answer`."""
        self._lines[SAMPLES].write({"step": step, "samples": list(samples)})
        self._show_samples(step, samples)

    def _show_samples(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        rows = [f"| {_cell(s['text'])} | {_cell(s['answer'])} |" for s in samples]
        self._view.text(step, "samples", "\n".join(["| text → right answer | model's answer |", "|---|---|", *rows]))

    def summary(self, fields: Mapping[str, Any]) -> None:
        write_json(self.folder / SUMMARY, fields)

    def end(self, step: int, status: str) -> None:
        """The last picture, the session's end, and everything closed."""
        if self._flow:
            self._draw_flow(step)
        self._view.add(step, [plugins.session_end(status)])
        for writer in self._lines.values():
            writer.close()
        self._view.close()

    def _draw_flow(self, step: int) -> None:
        for tag, kept in self._flow.items():
            steps, norms = zip(*kept, strict=True)
            self._view.image(step, tag, *flow_png(steps, np.stack(norms)))


def _cell(text: str) -> str:
    """Text inside a Markdown table; nothing in it is markup."""
    for mark, escaped in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "&#124;"),
        ("*", "&#42;"),
        ("[", "&#91;"),
        ("_", "&#95;"),
    ):
        text = text.replace(mark, escaped)
    return text.replace("\n", " ")
