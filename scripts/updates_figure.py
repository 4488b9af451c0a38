"""Updates a second of the project and of scripts, as a picture (`scripts/figures updates`):

python scripts/updates_figure.py SPEED.json PICTURE.png     SPEED.json: of python -m rnnlstm.benchmark --training
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rnnlstm.cli.arguments import check_writable
from rnnlstm.cli.exits import guarded
from rnnlstm.config.errors import ConfigError, show, writing
from rnnlstm.reporting.colours import PALETTE
from rnnlstm.reporting.figures import plt, save_picture

#: Names of the benchmark's contenders, from the top down, as the picture has them.
CONTENDERS = {
    "plain script": "PyTorch, plain script",
    "fair script": "PyTorch, tuned script",
    "JAX script": "JAX",
    "lockstep": "rnnlstm",
}
TITLES = {1: "one seed", 8: "eight seeds"}
#: Whose bars are drawn: the network that PyTorch computes fastest.
DRAWN = ("keyword", "lstm")


def rates(figures: Mapping[str, Any], seeds: int) -> dict[str, float]:
    """Updates a second of each contender, those of all seeds counted. Raises: KeyError, StopIteration."""
    entry = next(e for e in figures["training"] if (e["task"], e["model"], e["seeds"]) == (*DRAWN, seeds))
    return {
        label: 1e3 * seeds / entry["times"][name]["median"]
        for name, label in CONTENDERS.items()
        if name in entry["times"]
    }


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Raises: ConfigError if the figures lack training; DiskError."""
    try:
        panels = {seeds: rates(figures, seeds) for seeds in TITLES}
    except (KeyError, StopIteration, TypeError, ZeroDivisionError):
        raise ConfigError("no times of training in it: python -m rnnlstm.benchmark --training writes them") from None
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.6), sharey=True, layout="constrained")
    most = max(rate for panel in panels.values() for rate in panel.values())
    for axis, (seeds, panel) in zip(axes, panels.items(), strict=True):
        ours = panel["rnnlstm"]
        for row, (label, rate) in enumerate(panel.items()):
            axis.barh(row, rate, height=0.7, color=PALETTE[0] if label == "rnnlstm" else "0.72")
            beside = "" if label == "rnnlstm" else f"   rnnlstm: {ours / rate:.1f} ×"
            bold = "bold" if label == "rnnlstm" else "normal"
            axis.annotate(f"{rate:.0f}{beside}", (rate, row), (6, 0), textcoords="offset points", va="center",
                          fontsize=14, fontweight=bold)  # fmt: skip
        axis.set_title(TITLES[seeds], fontsize=17, loc="left")
        axis.set(xlim=(0, 1.5 * most), xticks=[])
        axis.set_yticks(range(len(panel)), list(panel), fontsize=15)
        axis.tick_params(length=0)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.suptitle("Updates a second, all seeds counted (more is better)", fontsize=18, x=0.01, ha="left")
    threads = "one thread" if figures.get("threads") == 1 else f"{figures.get('threads')} threads"
    words = f"LSTM, first keyword recall, T = 100, B = 64, H = 64, {threads}"
    figure.supxlabel(words, fontsize=12, x=0.01, ha="left", color="0.25")
    with writing(str(path)):
        save_picture(figure, path, 110)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        raise ConfigError("two arguments are needed: SPEED.json PICTURE.png")
    source, picture = arguments
    try:
        figures = json.loads(Path(source).read_bytes())
    except OSError as error:
        raise ConfigError(f"{show(source)} can't be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{show(source)} is no JSON") from None
    check_writable(picture)
    draw(figures, Path(picture))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
