"""Digits by pixel: real images, one pixel at a time (the task of Le, Jaitly & Hinton 2015, on smaller images).

Which digit was it? 64 grey values in [0, 1], row by row, then the answer at the last step::

    in_order   0.00 0.00 0.31 0.81 0.56 0.06 0.00 0.00 | 0.00 0.00 0.81 …     → 0
    permuted   0.94 0.00 0.12 1.00 0.00 0.50 …           one fixed random order for all images

The images are scikit-learn's 8 × 8 digits (Alpaydin & Kaynak 1998; 1,797 of them, bundled with it: an extra,
`pip install rnnlstm[digits]`). A class is drawn uniformly, then one of its images. The last fifth of each class, in
the data set's order, is held out: `train` never sees it, `eval` and `probe` see nothing else. With `length` above 64
so many blank pixels follow. In order, neighbouring pixels carry most of the information; permuted, it lies at all
distances.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rnnlstm.config.errors import ConfigError
from rnnlstm.config.options import option
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import LookupTable, RandomSource
from rnnlstm.tasks.task import Task, register_task, share_right

PIXELS, CLASSES = 64, 10
#: The order of `permuted`: the same for every run, on every machine.
ORDER = np.random.Generator(np.random.PCG64(8 * 8)).permutation(PIXELS)
PERMUTED = LookupTable(ORDER)


@register_task("digits")
@dataclass(frozen=True, kw_only=True)
class Digits(Task):
    metric_name = "accuracy"
    solved_when = "accuracy ≥ 0.95"
    kind_names = ("pixel", "blank")
    takes_scored_answers = True
    drawn_together = True

    length: int = option(PIXELS, "pixels, and blank steps after them", at_least=PIXELS, at_most=1_000_000)
    variant: str = option("in_order", "order of the pixels: in_order, permuted", choices=("in_order", "permuted"))

    def __post_init__(self) -> None:
        super().__post_init__()
        _images()

    @property
    def input_size(self) -> int:
        return 1

    @property
    def output_size(self) -> int:
        return CLASSES

    @property
    def baseline(self) -> float:
        """Every digit is as likely: ln 10."""
        return math.log(CLASSES)

    @property
    def scored_alike(self) -> bool:
        return True

    def generate(self, random: RandomSource, batch_size: int) -> Batch:
        T, B = self.length, batch_size
        images, counts = _images()[0 if random.stream == "train" else 1]
        label = random.integers(0, CLASSES, (B,))
        which = random.integers(0, counts.on(label.device)[label], (B,))
        pixels = images.on(label.device)[label, which]  # (B, 64)
        if self.variant == "permuted":
            pixels = pixels[:, PERMUTED.on(label.device)]
        inputs = torch.zeros(T, B, 1, dtype=torch.float32)
        inputs[:PIXELS, :, 0] = pixels.T
        targets = torch.zeros(T, B, dtype=torch.int64)
        targets[-1] = label
        mask = torch.zeros(T, B, dtype=torch.bool)
        mask[-1] = True
        kinds = torch.zeros(T, B, dtype=torch.int8)
        kinds[PIXELS:] = 1
        return Batch(inputs, targets, mask, kinds)

    def decode(self, batch: Batch, b: int) -> str:
        """The image as text, eight rows of eight, in the order of the sequence."""
        grey = (batch.inputs[:PIXELS, b, 0] * 4).round().long().tolist()
        if self.variant == "permuted":
            grey = [grey[k] for k in np.argsort(ORDER)]
        rows = ["".join(" ░▒▓█"[value] for value in grey[r : r + 8]) for r in range(0, PIXELS, 8)]
        return "|" + "|".join(rows) + f"| → {int(batch.targets[-1, b])}"

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        return {"accuracy": share_right(outputs, batch)}

    def solved(self, metrics: Mapping[str, float]) -> bool:
        """No paper names a threshold. Of the held-out images a nearest neighbour gets 95.6 % right, a
        logistic regression 90.4 % (both scikit-learn's, all pixels at once)."""
        return metrics["accuracy"] >= 0.95

    def slices(self, batch: Batch) -> Mapping[str, Tensor]:
        """By digit."""
        return {f"digit_{k}": batch.mask & (batch.targets == k) for k in range(CLASSES)}


@functools.cache
def _images() -> tuple[tuple[LookupTable, LookupTable], tuple[LookupTable, LookupTable]]:
    """For training and held out: images float32 (10, most, 64) in [0, 1], and how many each class has, (10,).

    Raises: ConfigError if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError(
            "task=digits needs scikit-learn, which holds the images: pip install 'rnnlstm[digits]'"
        ) from None
    loaded = load_digits()
    parts: list[tuple[LookupTable, LookupTable]] = []
    by_class = [np.flatnonzero(loaded.target == k) for k in range(CLASSES)]
    for held_out in (False, True):
        chosen = [rows[len(rows) * 4 // 5 :] if held_out else rows[: len(rows) * 4 // 5] for rows in by_class]
        counts = [len(rows) for rows in chosen]
        images = np.zeros((CLASSES, max(counts), PIXELS), dtype=np.float32)
        for k, rows in enumerate(chosen):
            images[k, : len(rows)] = loaded.data[rows] / 16
        parts.append((LookupTable(images), LookupTable(counts)))
    return parts[0], parts[1]
