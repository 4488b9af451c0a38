"""What `python -m rnnlstm.gradflow` leaves: tables on the terminal, figures, a CSV and a JSON in one folder."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnnlstm.config.errors import DiskError
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.flow import GAINS, LENGTHS, gain_map
from rnnlstm.instruments.measurement import Measurement, as_lists, measure
from rnnlstm.instruments.surgery_table import surgery_table
from rnnlstm.record.files import write_json
from rnnlstm.reporting import activation_figures, flow_figures, sentence_figures
from rnnlstm.reporting.flow_table import gradient_table, operations_table
from rnnlstm.reporting.setting import Setting, setting_labels

WIDE = 400  # characters in a line, where it isn't a terminal: a file has room for all columns
MAPPED = ("identity", "tanh", "relu")


class Report:
    """Writes into the folder `out`. Raises: DiskError."""

    def __init__(self, out: str) -> None:
        self.folder = Path(out).expanduser()
        self.console = Console(highlight=False, markup=False)
        if not self.console.is_terminal:
            self.console.width = WIDE
        self.results: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"can't write in {self.folder}: {error.strerror}") from None
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write("results.json", lambda path: write_json(path, self.results))

    def flow(self, settings: Sequence[Setting], sequences: int) -> None:
        """The table, and figures of gradients, weight gradients, Jacobians, exponents, influence and gates."""
        found: list[Measurement] = []
        subjects: list[tuple[str, AnalysedNetwork]] = []
        for name, setting in zip(setting_labels(settings), settings, strict=True):
            with self.console.status(Text(f"measuring {name}")):
                subjects.append((name, setting.subject(sequences)))
                found += measure(*subjects[-1])
        self._print(*gradient_table(found, self.console.width))
        for m in found:
            if not m.bound_holds():
                self.console.print(f"{m.label}: a Jacobian is larger than its bound, which can't be: report this")
        self._write("table.csv", lambda path: _write_csv(path, [m.numbers() for m in found]))
        self.results["flow"] = [_as_data(m) for m in found]
        self._figure("gradient.png", flow_figures.gradient_figure(found))
        self._figure("weight_gradient.png", flow_figures.weight_figure(found))
        self._figure("jacobian.png", flow_figures.jacobian_figure(found))
        self._figure("lyapunov.png", flow_figures.lyapunov_figure(found))
        reached = {id(m.flow): m.influence for m in found}  # one for each network, whatever its layers
        seen = [(name, subject, values) for (name, subject), values in zip(subjects, reached.values(), strict=True)]
        self._figure("influence.png", sentence_figures.influence_figure(seen))
        self._figure("influence_by_distance.png", sentence_figures.distance_figure(seen))
        if any(subject.cell.gate_names for _, subject in subjects):
            self._figure("gates.png", sentence_figures.gates_figure(subjects))

    def surgery(self, settings: Sequence[Setting]) -> None:
        """For each setting the table of operations."""
        self.results["surgery"] = {}
        for name, setting in zip(setting_labels(settings), settings, strict=True):
            config = setting.plan.config
            if not setting.trained:
                self.console.print(f"{name} is not trained: its score says nothing; name a run with weights=")
            with self.console.status(Text(f"operating on {name}")):
                rows = surgery_table(setting.plan.task, setting.network, setting.seed, config.eval.samples)
            metrics = [metric for metric in rows[0].scores if metric != "loss"]
            seed = "" if "seed" in name else f", seed {setting.seed}"
            self.console.print(f"What makes it remember: {name}, {setting.plan.task.name}{seed}")
            self._print(*operations_table(rows, metrics, self.console.width))
            self.results["surgery"][name] = [
                {"operation": r.name, **r.scores, "half_life": r.half_life, "log10_ratio": r.ratio,
                 "log10_cell_ratio": r.cell_ratio}
                for r in rows
            ]  # fmt: skip

    def activations(self) -> None:
        for factor in activation_figures.FACTORS:
            power = f"{factor}^365 = {factor**365:.4g}"
            words = f"what becomes of a gradient of 1 by a factor of {factor} a step, taken 365 times"
            self.console.print(f"{power}: {words}", soft_wrap=True)
        self._figure("activations.png", activation_figures.activation_figure())

    def gain_map(self, setting: Setting) -> None:
        """Of the setting's task, hidden size and seed."""
        maps: dict[str, torch.Tensor] = {}
        size, seed = setting.plan.config.network.hidden_size, setting.seed
        for name in MAPPED:
            with self.console.status(f"mapping {name}"):
                maps[name] = gain_map(setting.plan.task, name, size, seed, GAINS, LENGTHS)
        self.results["gain_map"] = {
            "gains": GAINS, "lengths": LENGTHS, **{name: as_lists(values) for name, values in maps.items()},
        }  # fmt: skip
        self._figure("gain_map.png", activation_figures.gain_map_figure(maps, GAINS, LENGTHS))

    def _print(self, table: Table, lines: Sequence[str]) -> None:
        self.console.print(table)
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def _figure(self, name: str, figure: Figure) -> None:
        self._write(name, lambda path: figure.savefig(path, dpi=100))
        plt.close(figure)

    def _write(self, name: str, write: Any) -> None:
        try:
            write(self.folder / name)
        except OSError as error:
            raise DiskError(f"can't write {self.folder / name}: {error.strerror}") from None
        self.console.print(f"Written: {self.folder / name}", soft_wrap=True)


def _as_data(m: Measurement) -> dict[str, Any]:
    """The numbers, and the curves behind the figures."""
    numbers = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in m.numbers().items()}
    curves = {f"gradient_{state}": as_lists(norms[m.layer]) for state, norms in m.flow.total.items()}
    curves["gradient_hidden_direct"] = as_lists(m.flow.direct[m.layer])
    curves["weight_gradient_share"] = as_lists(m.weights.share)
    curves["weight_gradient_norm"] = as_lists(m.weights.norms)
    curves["log10_singular_largest"] = as_lists(m.singular[:, 0])
    curves |= {f"log10_bound_{name}": as_lists(bound) for name, bound in m.bounds.items()}
    if m.cell is not None:
        curves |= {"log10_cell_path": as_lists(m.cell.along), "log10_cell_rest": as_lists(m.cell.rest)}
    curves["lyapunov"] = as_lists(m.lyapunov)
    curves["influence_mean"] = as_lists(m.influence.mean(1))
    return {**numbers, "curves": curves}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
