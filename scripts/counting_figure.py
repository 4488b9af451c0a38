"""The memory of networks that count a's and b's, over three strings (`scripts/figures counting`):

python scripts/counting_figure.py RUNS PICTURE.png     RUNS: of `python -m rnnlstm.reproduce counting`
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rnnlstm.cli.arguments import check_writable
from rnnlstm.cli.exits import guarded
from rnnlstm.config.errors import ConfigError, writing
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.record.folders import find_run_folders
from rnnlstm.reporting.colours import PALETTE, network_name
from rnnlstm.reporting.figures import plt, save_picture
from rnnlstm.tasks.counting import Counting
from rnnlstm.training.weights import TrainedNetwork, load_network

NUMBERS = (10, 50, 100)  #: n of the strings that are drawn; networks were trained up to 50
SHOWN = {"task.name": "counting", "task.variant": "anbn", "optimizer.lr": 3e-3, "train.stop_when_solved": True}


@dataclass(frozen=True)
class Memory:
    """What a network keeps over the strings a^n b^n: by n the state (T, H), and the steps that it answers wrongly."""

    state: str  #: its name in the cell's equations
    unit: int  #: the one that follows the count best, on the second string
    values: list[Tensor]
    wrong: list[list[int]]


def memory(trained: TrainedNetwork, numbers: Sequence[int] = NUMBERS) -> Memory:
    """c of an LSTM, the real part of z of the LRU, else h."""
    task = trained.plan.task.vary(length=max(numbers))
    assert isinstance(task, Counting)
    batch = task.strings(torch.tensor(numbers))
    analysed = AnalysedNetwork.of(task, trained.network(), batch)
    state = analysed.cell.state_names[min(1, len(analysed.cell.state_names) - 1)]
    missed = batch.mask & (analysed.path.outputs.argmax(-1) != batch.targets)
    values = [analysed.path.states[-1][state][: 2 * n + 1, b] for b, n in enumerate(numbers)]
    unit = following(values[1], batch.inputs[: 2 * numbers[1] + 1, 1])
    return Memory(state, unit, values, [column.nonzero()[:, 0].tolist() for column in missed.T])


def following(states: Tensor, inputs: Tensor) -> int:
    """The unit of states (T, H) whose value is most correlated with the a's minus the b's read so far."""
    count = ((inputs == 1).long() - (inputs == 2).long()).cumsum(0).to(states.dtype)
    count, states = count - count.mean(), states - states.mean(0)
    spread = states.norm(dim=0)
    return int(((count @ states).abs() / spread.where(spread > 0, torch.inf)).argmax())


def networks(runs: str) -> dict[str, TrainedNetwork]:
    """The first seed of each network below `runs` that the picture shows, by name. Raises: ConfigError."""
    found = {}
    for folder, config in find_run_folders([runs]).items():
        if all(config.get(key) == value for key, value in SHOWN.items()):
            held = " and ".join(config.get("surgery.open") or [])
            name = network_name(config) or str(config["model.name"]).upper()
            found[f"{name},\n{held} open" if held else name] = load_network(str(sorted(folder.glob("seed_*"))[0]))
    if not found:
        raise ConfigError(f"no runs on a^n b^n at a rate of 0.003 in {runs}: python -m rnnlstm.reproduce counting")
    return found


def draw(trained: dict[str, TrainedNetwork], path: Path) -> None:
    """Raises: DiskError."""
    figure, axes = plt.subplots(
        len(trained), len(NUMBERS), figsize=(11, 1.7 * len(trained)), squeeze=False, layout="constrained"
    )
    for row, (label, network) in zip(axes, trained.items(), strict=True):
        kept = memory(network)
        for panel, n, values, wrong in zip(row, NUMBERS, kept.values, kept.wrong, strict=True):
            panel.plot(values, color="0.8", linewidth=0.6)
            panel.plot(values[:, kept.unit], color=PALETTE[0], linewidth=1.8)
            panel.plot(wrong, values[wrong, kept.unit], "x", color=PALETTE[1], markersize=4)
            panel.axvline(n + 0.5, color="0.5", linewidth=0.8, linestyle="--")
            panel.set_title(f"n = {n}: {'wrong' if wrong else 'right'}", fontsize=9, loc="left")
            panel.tick_params(labelsize=7)
        row[0].set_ylabel(f"{label}\n{kept.state}", fontsize=8)
    words = "step; dashed: the last a. Blue: the unit that follows the count best. ×: a wrong symbol"
    figure.supxlabel(words, fontsize=9)
    with writing(str(path)):
        save_picture(figure, path, 72)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        raise ConfigError("two arguments are needed: RUNS PICTURE.png")
    runs, picture = arguments
    check_writable(picture)
    draw(networks(runs), Path(picture))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
