"""What TensorBoard shows of one seed: written live in training, or again from the record, by the same calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rnnlstm.record.columns import hparams
from rnnlstm.record.folders import CLIP_EVENTS, FLOW, METRICS, SAMPLES, SEED_FOLDER, seed_folders
from rnnlstm.record.heatmap import flow_png
from rnnlstm.record.reader import Sample, read_clip_events, read_flow, read_metrics, read_samples
from rnnlstm.record.tensorboard import TensorBoardView, session_end, session_start

SYMBOLS = {"hidden": "h", "cell": "c"}  #: how states are called in a picture
#: Fired updates that are all shown. Then every second is, until as many have been shown again, then every fourth, …
MOST_EVENTS = 4096
#: Tags of a fired update's values, by their names in clip_events.jsonl.
EVENT_TAGS = {
    "norm_before": "clip/event_norm",
    "coefficient": "clip/event_coefficient",
    "clipped_share": "clip/event_clipped_share",
}
MOST_ROWS = 240  #: rows of the picture of the gradient through time; beyond, every second is dropped


class SeedView:
    """Writes events for the seed's folder; `publish` puts them in the place of the old ones.

    `strict`: an OSError is raised, and not a warning.
    """

    def __init__(self, folder: Path, strict: bool = False) -> None:
        self.folder = folder
        self._view = TensorBoardView(folder, strict, describe=_is_first_seed(folder))
        self._flow: dict[str, list[tuple[int, np.ndarray]]] = {}  # by tag: (training step, norms by lag)
        self._flow_stride = 1
        self._looks = 0
        self._fired, self._event_stride, self._stride_began = 0, 1, 0

    def begin(self, configuration: Mapping[str, Any], group: str) -> None:
        """Add the seed to TensorBoard's table of hyperparameters, in the row of its `group`."""
        self._view.add(0, [session_start(hparams(configuration), group)])

    def replay(self) -> int:
        """Write events for everything in the seed's record. Returns the number of lines of metrics."""
        lines = 0
        for step, values in read_metrics(self.folder / METRICS):
            self.scalars(step, values)
            lines += 1
        for step, fired in read_clip_events(self.folder / CLIP_EVENTS):
            self.clip_event(step, fired)
        for step, norms in read_flow(self.folder / FLOW):
            self.flow(step, norms)
        for step, samples in read_samples(self.folder / SAMPLES):
            self.samples(step, samples)
        return lines

    def publish(self) -> None:
        self._view.publish()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._view.scalars(step, values)

    def clip_event(self, step: int, fired: Mapping[str, Any]) -> None:
        """Show an update on which clipping fired at its own step, whatever the interval of the lines is."""
        place = self._fired - self._stride_began
        self._fired += 1
        if place == MOST_EVENTS * self._event_stride:
            self._stride_began, self._event_stride, place = self._fired - 1, 2 * self._event_stride, 0
            self.scalars(step, {"clip/event_thinning": self._event_stride})
        if place % self._event_stride == 0:
            shown = {tag: fired.get(name) for name, tag in EVENT_TAGS.items()}
            self.scalars(step, {tag: value for tag, value in shown.items() if value is not None})

    def flow(self, step: int, norms: Mapping[str, np.ndarray]) -> None:
        """Add gradient norms by lag, (L, K) for each state; after 1, 2, 4, 8 … calls draw a picture of all so far."""
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

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Decoded sequences, each `text` with the right answer, and the model's `answer`."""
        self._view.text(step, "samples", samples_table(samples))

    def end(self, step: int, status: str) -> None:
        """The last picture, and the session's end."""
        if self._flow:
            self._draw_flow(step)
        self._view.add(step, [session_end(status)])

    def close(self) -> None:
        self._view.close()

    def _draw_flow(self, step: int) -> None:
        for tag, kept in self._flow.items():
            steps, norms = zip(*kept, strict=True)
            state = tag.split("/")[1]
            self._view.image(step, tag, *flow_png(steps, np.stack(norms), SYMBOLS.get(state, state)))


def _is_first_seed(folder: Path) -> bool:
    """Whether no seed with a lower number has a folder beside this one: descriptions are written once for a run."""
    seeds = seed_folders(folder.parent) if SEED_FOLDER.fullmatch(folder.name) else []
    return not seeds or folder.name == seeds[0][1].name


ARROW = " → "  # between a decoded text and the right answer, in what every task decodes to
VERDICTS = {True: "✓", False: "✗", None: ""}
ESCAPES = {"&": "&amp;", "<": "&lt;", "|": "&#124;", "*": "&#42;", "[": "&#91;", "_": "&#95;", "\n": " "}


def samples_table(samples: Sequence[Sample]) -> str:
    """A Markdown table: each text with the right answer, the model's, and whether that is right, if known."""
    rows = ["| | text | right answer | model's answer |", "|---|---|---|---|"]
    for sample in samples:
        text, arrow, right = sample["text"].rpartition(ARROW)
        text, right = (text, right) if arrow else (right, "")
        cells = (VERDICTS[sample["right"]], text, right, sample["answer"])
        rows.append(f"| {' | '.join(map(_escaped, cells))} |")
    return "\n".join(rows)


def _escaped(text: str) -> str:
    """Text for a Markdown table, with every markup character escaped."""
    return "".join(ESCAPES.get(mark, mark) for mark in text)
