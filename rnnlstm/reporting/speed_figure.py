"""The benchmark as a picture: how many times faster than PyTorch's module, shape by shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw_ratios(recurrences: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One panel for each cell: work of a step (B·T·H² multiply-adds) across, ratio up, sizes of H in colours."""
    cells = list(dict.fromkeys(r["cell"] for r in recurrences))
    figure, axes = plt.subplots(
        1, len(cells), figsize=(4 * len(cells), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for cell, axis in zip(cells, axes[0], strict=True):
        found = [r for r in recurrences if r["cell"] == cell]
        for H in sorted({r["H"] for r in found}):
            points = [(r["B"] * r["T"] * H * H, r["ratio"]) for r in found if r["H"] == H]
            axis.plot(*zip(*points, strict=True), "o", markersize=5, alpha=0.8, label=f"H = {H}")
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(title=cell, xscale="log", yscale="log", xlabel="B·T·H²")
        axis.grid(alpha=0.3, which="both")
    first = axes[0, 0]
    first.set_ylabel("times faster than torch.nn")
    first.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    first.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)
