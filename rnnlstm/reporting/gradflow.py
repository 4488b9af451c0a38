"""What `python -m rnnlstm.gradflow` writes: tables on the terminal; figures, a CSV and a JSON in one folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from rich.table import Table
from rich.text import Text

from rnnlstm.config.errors import printable, writing
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.counterfactual import InfluenceRow, by_decade, counterfactual_influence
from rnnlstm.instruments.dynamics import Dynamics, answers, dynamics
from rnnlstm.instruments.flow import GAINS, LENGTHS, gain_map
from rnnlstm.instruments.measurement import Measurement, as_lists, measure
from rnnlstm.instruments.surgery_table import SurgeryRow, surgery_table
from rnnlstm.models import Network
from rnnlstm.record.files import json_bytes, write_output
from rnnlstm.record.folders import HOUSEKEEPING, flatten
from rnnlstm.reporting import gradflow_figures
from rnnlstm.reporting.colours import network_name, style_numbers
from rnnlstm.reporting.figures import save_picture
from rnnlstm.reporting.gradflow_figures import half_life_text
from rnnlstm.reporting.runs import Run, labels, task_title
from rnnlstm.reporting.tables import as_table, csv_text, leave_out, table_console
from rnnlstm.training.plan import Plan

MOST_ORBITS = 10  # in a table
WIDE = 400  # characters in a line of a file: room for all columns
MAPPED = ("identity", "tanh", "relu")
#: Columns that a narrow terminal lacks, in the order of leaving them out.
LEFT_OUT_FIRST = (
    "‖∂W‖", "parameters", "gates imply", "∂h 10 back", "∂h 100 back", "90 % of ∂W in", "∂W, last 10", "Lyapunov",
)  # fmt: skip
LEFT_OUT_FIRST_OF_OPERATIONS = ("half-life, steps", "∂L/∂h at the first")
#: Explanations of columns, beneath the table, by line.
MEANINGS = (
    {
        "half-life of ∂L/∂h": "Half-life: in steps back from the answer",
        "∂h at the first": "∂h at the first: gradient left at the first step, as a share of that at the answer",
    },
    {
        "gates imply": "Gates imply: the half-life of ∂L/∂c by the gates alone (range over the units' quartiles)",
        "∂h 10 back": "∂h 10 back: as ∂h at the first, ten steps before the answer",
    },
    {
        "∂W, last 10": "∂W, last 10: share of the weight gradient from the last 10 steps",
        "90 % of ∂W in": "90 % of ∂W in: so many steps",
        "‖∂W‖": "‖∂W‖: norm of the weight gradient",
        "Lyapunov": "Lyapunov: nats a step, below 0 vanishing",
    },
)


@dataclass(frozen=True)
class Setting:
    """A network whose gradient flow is measured."""

    plan: Plan
    seed: int
    network: Network
    place: str = ""  #: the folder of a trained one

    @property
    def trained(self) -> bool:
        return bool(self.place)

    def subject(self, sequences: int) -> AnalysedNetwork:
        task = self.plan.task
        return AnalysedNetwork.of(task, self.network, task.sample(self.seed, 0, "probe", sequences))


def setting_labels(settings: Sequence[Setting]) -> list[str]:
    """The label of each network, as in a comparison: `rnn, init=default`. Task and length follow where they differ,
    the seed where seeds differ or the network is trained, and the folder where labels would be equal."""
    trees = [{k: v for k, v in s.plan.config.tree.items() if k not in HOUSEKEEPING or k == "name"} for s in settings]
    configs = [dict(flatten(tree)) for tree in trees]
    titles = [task_title(config.pop("task.name"), config.pop("task.length")) for config in configs]
    names = labels([Run(Path(), config, []) for config in configs])
    if len(set(titles)) > 1:
        names = [f"{name}, {title}" for name, title in zip(names, titles, strict=True)]
    several = len({s.seed for s in settings}) > 1
    notes = [
        [*(["trained"] if s.trained else []), *([f"seed {s.seed}"] if s.trained or several else [])] for s in settings
    ]
    full = [_noted(name, note) for name, note in zip(names, notes, strict=True)]
    return [
        one if full.count(one) == 1 else _noted(name, [*note, printable(s.place)])
        for one, name, note, s in zip(full, names, notes, settings, strict=True)
    ]


def _noted(name: str, notes: Sequence[str]) -> str:
    words = ", ".join(filter(None, notes))
    return f"{name} ({words})" if words else name


class Analysis:
    """The parts of `show=`, each measured, printed and written into the folder `out`. Raises: DiskError."""

    def __init__(self, out: str) -> None:
        self.folder = Path(out).expanduser()
        self.console = table_console(WIDE)
        self.results: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with writing(f"in {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write("results.json", lambda path: write_output(path, json_bytes(self.results)))

    def flow(self, settings: Sequence[Setting], sequences: int) -> None:
        """The table, and figures of gradients, weight gradients, Jacobians, exponents, influence and gates."""
        measurements: list[Measurement] = []
        subjects: list[tuple[str, AnalysedNetwork]] = []
        names = setting_labels(settings)
        for name, setting in zip(names, settings, strict=True):
            with self.console.status(Text(f"measuring {name}")):
                subjects.append((name, setting.subject(sequences)))
                measurements += measure(*subjects[-1])
        self._print(*gradient_table(measurements, self.console.width))
        for m in measurements:
            if not m.bound_holds():
                self.console.print(f"{m.label}: a Jacobian is larger than its bound, which can't be: report this")
        self._write("table.csv", lambda path: _write_csv(path, [m.numbers() for m in measurements]))
        self.results["flow"] = [_as_data(m) for m in measurements]
        networks = [network_name(dict(flatten(setting.plan.config.tree))) for setting in settings]
        styles = dict(zip(names, style_numbers(names, networks), strict=True))
        self._figure("gradient.png", gradflow_figures.gradient_figure(measurements, styles))
        self._figure("weight_gradient.png", gradflow_figures.weight_figure(measurements, styles))
        self._figure("jacobian.png", gradflow_figures.jacobian_figure(measurements))
        self._figure("lyapunov.png", gradflow_figures.lyapunov_figure(measurements, styles))
        reached = {id(m.flow): m.influence for m in measurements}  # one for each network, whatever its layers
        seen = [(name, subject, values) for (name, subject), values in zip(subjects, reached.values(), strict=True)]
        self._figure("influence.png", gradflow_figures.influence_figure(seen))
        self._figure("influence_by_distance.png", gradflow_figures.distance_figure(seen))
        if any(subject.cell.gate_names for _, subject in subjects):
            self._figure("gates.png", gradflow_figures.gates_figure(subjects))

    def influence(self, settings: Sequence[Setting], sequences: int) -> None:
        """What changes the answer, beside where the gradient arrives: a table and a figure."""
        found: list[tuple[str, list[InfluenceRow]]] = []
        for name, setting in zip(setting_labels(settings), settings, strict=True):
            with self.console.status(Text(f"replacing tokens before {name}")):
                rows = counterfactual_influence(setting.plan.task, setting.network, setting.seed, sequences)
                found.append((name, rows))
        classes = any(row.divergence is not None for _, rows in found for row in rows)
        self._print(*influence_table(found, classes))
        data = [{"setting": name, **asdict(row)} for name, rows in found for row in rows]
        self._write("influence.csv", lambda path: _write_csv(path, data))
        self.results["influence"] = data
        figure = gradflow_figures.counterfactual_figure(found, classes)
        self._figure("counterfactual_influence.png", figure)

    def dynamics(self, settings: Sequence[Setting], sequences: int) -> None:
        """Where each network's state stays or moves to under held input: tables and a figure."""
        found: list[tuple[str, AnalysedNetwork, Dynamics]] = []
        for name, setting in zip(setting_labels(settings), settings, strict=True):
            with self.console.status(Text(f"searching for fixed points of {name}")):
                subject = setting.subject(sequences)
                found.append((name, subject, dynamics(subject)))
        rows = [(name, dynamics_rows(subject, d)) for name, subject, d in found]
        for (name, orbits), (_, _, d) in zip(rows, found, strict=True):
            self._print(*dynamics_table(name, orbits, d, self.console.width))
        self._write(
            "dynamics.csv", lambda path: _write_csv(path, [{"setting": n, **r} for n, rs in rows for r in rs])
        )
        self.results["dynamics"] = [
            {"setting": name, **dynamics_numbers(d), "orbits": orbits,
             "curves": {"right": as_lists(d.right), "told": as_lists(d.told)}}
            for (name, orbits), (_, _, d) in zip(rows, found, strict=True)
        ]  # fmt: skip
        self._figure("dynamics.png", gradflow_figures.dynamics_figure(found))

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
        for factor in gradflow_figures.FACTORS:
            power = f"{factor}^365 = {factor**365:.4g}"
            words = f"what becomes of a gradient of 1 by a factor of {factor} a step, taken 365 times"
            self.console.print(f"{power}: {words}", soft_wrap=True)
        self._figure("activations.png", gradflow_figures.activation_figure())

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
        self._figure("gain_map.png", gradflow_figures.gain_map_figure(maps, GAINS, LENGTHS))

    def _print(self, table: Table, lines: Sequence[str]) -> None:
        self.console.print(table)
        for line in lines:
            self.console.print(line, soft_wrap=True)

    def _figure(self, name: str, figure: Any) -> None:
        self._write(name, lambda path: save_picture(figure, path, 100))

    def _write(self, name: str, write: Any) -> None:
        with writing(self.folder / name):
            write(self.folder / name)
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[row.get(key) for key in columns] for row in rows]
    write_output(path, csv_text([columns, *lines]).encode("utf-8", "replace"))


def gradient_table(measurements: Sequence[Measurement], width: int = 200) -> tuple[Table, list[str]]:
    """A row per setting and layer: how far back the gradient reaches. And the lines beneath it: the columns that
    `width` characters had no room for, what the others mean."""
    rows = [m.numbers() for m in measurements]
    columns: dict[str, list[str]] = {"setting": [m.label for m in measurements]}
    columns["parameters"] = [f"{m.parameters:,}" for m in measurements]
    columns["half-life of ∂L/∂h"] = [_interval(r, "hidden") for r in rows]
    if any("cell_half_life" in r for r in rows):
        columns["of ∂L/∂c"] = [_interval(r, "cell") if "cell_half_life" in r else "—" for r in rows]
    if any(m.gates_half_life for m in measurements):
        columns["gates imply"] = [_implied(m) for m in measurements]
    for name, title in (("10", "10 back"), ("100", "100 back"), ("first", "at the first")):
        key = f"log10_gradient_ratio_lag_{name}"
        if any(key in r for r in rows):
            columns[f"∂h {title}"] = [_power(r.get(key)) for r in rows]
    columns["∂W, last 10"] = [_share(r.get("weight_share_last_10")) for r in rows]
    columns["90 % of ∂W in"] = [f"{r['steps_for_90%_of_weight_gradient']:.0f}" for r in rows]
    columns["‖∂W‖"] = [f"{r['weight_gradient_norm']:.2g}" for r in rows]
    columns["Lyapunov"] = [f"{r['lyapunov_largest']:+.4f}" for r in rows]
    left_out = leave_out(columns, LEFT_OUT_FIRST, width)
    meanings = [[words for column, words in line.items() if column in columns] for line in MEANINGS]
    lines = ["; ".join(words) for words in meanings if words]
    return _table(columns), [*_no_room(left_out, "table.csv"), *lines]


def operations_table(rows: Sequence[SurgeryRow], metrics: Sequence[str], width: int = 200) -> tuple[Table, list[str]]:
    """A row per operation: the score and the gradient after it. And the line beneath it, if `width` characters have
    no room for some columns: the gradient, and metrics but the first."""
    columns = {"operation": [row.name for row in rows]}
    columns |= {m: [f"{row.scores[m]:.4g}" if m in row.scores else "—" for row in rows] for m in ("loss", *metrics)}
    columns["∂L/∂h at the first"] = [_power(row.ratio) for row in rows]
    if any(row.cell_ratio is not None for row in rows):
        columns["∂L/∂c at the first"] = [_power(row.cell_ratio) for row in rows]
    columns["half-life, steps"] = [half_life_text(row.half_life) for row in rows]
    left_out = leave_out(columns, (*LEFT_OUT_FIRST_OF_OPERATIONS, *reversed(metrics[1:])), width)
    return _table(columns), _no_room(left_out, "results.json")


def influence_table(found: Sequence[tuple[str, Sequence[InfluenceRow]]], classes: bool) -> tuple[Table, list[str]]:
    """A row for each setting, kind of token and decade of distances; and what the columns mean."""
    rows = [(name, row) for name, measured in found for row in by_decade(measured)]
    strongest = {name: max((row.gradient for row in measured), default=0.0) for name, measured in found}
    columns = {
        "setting": [name for name, _ in rows],
        "token": [row.label for _, row in rows],
        "steps before the answer": [_range(row.nearest, row.farthest) for _, row in rows],
        "places": [f"{row.places:,}" for _, row in rows],
        "answers change" if classes else "answer changes by": [
            f"{row.changed:.1%}" if row.divergence is not None else f"{row.changed:.3g}" for _, row in rows
        ],
    }
    if classes:
        columns["KL, nats"] = ["—" if row.divergence is None else f"{row.divergence:.2g}" for _, row in rows]
    columns["gradient"] = [
        _power(math.log10(row.gradient / strongest[name]) if row.gradient else -math.inf) for name, row in rows
    ]
    lines = [
        "One token replaced by another of its kind: what the network remembers",
        "Gradient: ‖∂answer/∂x‖ at the same tokens, against the strongest: what training can still learn from",
    ]
    return _table(columns), lines


def dynamics_rows(subject: AnalysedNetwork, found: Dynamics) -> list[dict[str, Any]]:
    """The numbers of each point and cycle, by name."""
    return [
        {
            "kind": orbit.kind, "texts_end": orbit.ends, "starts": orbit.starts,
            "unstable_directions": orbit.unstable,
            "largest_eigenvalue": orbit.eigenvalues[0].abs().item(),
            "time_constant": _finite(orbit.time_constants[0].item()),
            "slow_directions": orbit.slow_directions(found.length), "speed": orbit.speed, "distance": orbit.distance,
            "answer": " → ".join(answers(subject, orbit.outputs)),
        }
        for orbit in found.orbits
    ]  # fmt: skip


def dynamics_numbers(found: Dynamics) -> dict[str, Any]:
    """What is measured of the network as a whole, by name."""
    numbers: dict[str, Any] = {
        "length": found.length, "starts": found.starts, "lost": found.lost, "spread": found.spread,
        "at_rest": found.at_rest, "cycling": found.cycling, "slow_directions_on_the_way": found.slow_on_the_way,
        "classes_named_at_attractors": len(found.named), "variance_explained": found.explained,
    }  # fmt: skip
    for steps in found.after:
        numbers[f"right_after_{steps}"] = _finite(found.over(found.right, steps))
        numbers[f"told_after_{steps}"] = _finite(found.over(found.told, steps))
    return numbers


def dynamics_table(
    name: str, rows: Sequence[dict[str, Any]], found: Dynamics, width: int = 200
) -> tuple[Table, list[str]]:
    """A row for each of the points and cycles in which most texts end, and what became of the texts."""
    shown = rows[:MOST_ORBITS]
    columns = {
        "found": [row["kind"] for row in shown],
        "texts": [f"{row['texts_end']}" for row in shown],
        "grow": [f"{row['unstable_directions']}" for row in shown],
        "slow": [f"{row['slow_directions']}" for row in shown],
        "|λ|": [f"{row['largest_eigenvalue']:.4f}" for row in shown],
        "away": [f"{row['distance']:.3g}" for row in shown],
        "answer": [_short(row["answer"]) for row in shown],
    }
    left_out = leave_out(columns, ("away", "|λ|"), width)
    table = as_table(columns, [header for header in columns if header not in ("found", "answer")], title=name)
    B, T = found.visited.shape[1], found.length
    moving = max(1 - found.at_rest - found.cycling, 0)
    more = len(rows) - len(shown)
    lines = [
        *([f"{more} more in dynamics.csv"] if more else []),
        *_no_room(left_out, "dynamics.csv"),
        "texts: end here under held input; grow: directions in which deviations grow",
        f"slow: directions in which they change by under a factor e in {T:,} steps",
        *([] if left_out else ["away: from the nearest state of a text, in units of the states' spread"]),
        f"After {found.held:,} steps {found.at_rest:.0%} of {B} texts are at rest, {found.cycling:.0%} in a cycle, "
        f"{moving:.0%} move",
    ]
    if found.classes:
        lines.append(f"Answers after {' / '.join(f'{k:,}' for k in found.after)} steps (means over the last {T}):")
        for words, shares in (("right", found.right), ("tell the class", found.told)):
            lines.append(f"  {words} {' / '.join(f'{found.over(shares, k):.0%}' for k in found.after)}")
    return table, [*lines, ""]


def _short(answer: str) -> str:
    """Of a cycle the first answer, and how many there are."""
    first, *others = answer.split(" → ")
    return f"{first}, … ({len({first, *others})})" if others else first


def _range(nearest: int, farthest: int) -> str:
    return str(nearest) if nearest == farthest else f"{nearest}–{farthest}"


def _table(columns: dict[str, list[str]]) -> Table:
    """Names to the left, which are wrapped where it is narrow; numbers are whole always."""
    _, *numbers = columns
    table = as_table(columns, numbers)
    for column in table.columns[1:]:
        column.no_wrap = True
    return table


def _no_room(left_out: Sequence[str], file: str) -> list[str]:
    names = ", ".join(header.replace(",", "") for header in left_out)
    return [f"No room for: {names}; {file} has them"] if left_out else []


def _interval(row: dict[str, float], state: str) -> str:
    low, high = row[f"{state}_half_life_low"], row[f"{state}_half_life_high"]
    return f"{half_life_text(row[f'{state}_half_life'])} [{half_life_text(low)} … {half_life_text(high)}]"


def _implied(m: Measurement) -> str:
    if m.gates_half_life is None:
        return "—"
    middle, low, high = (half_life_text(value) for value in m.gates_half_life)
    return f"{middle} ({low}–{high})"


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.0%}"


def _power(log10: float | None) -> str:
    """10^log10, as 3.2e-17."""
    if log10 is None or math.isnan(log10):
        return "—"
    if math.isinf(log10):
        return "0"
    return f"{10 ** (log10 % 1):.1f}e{math.floor(log10):+03d}"
