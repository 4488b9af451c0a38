"""Mean-field theory of the gradient at the start, against networks; its border; and what it says of learning."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnlstm.studies.common import (
    CHRONO,
    DEFAULT,
    GRU,
    ORTHOGONAL_TANH,
    RELU,
    TANH,
    Comparison,
    common,
    forget_bias,
    most_solve,
    smaller,
    together,
)
from rnnlstm.studies.loop import kept_rows, plan_of, train_row
from rnnlstm.studies.study import Arm, Check, Minutes, Row, Rows, Study, register_study

if TYPE_CHECKING:
    from rnnlstm.instruments.mean_field import Start
    from rnnlstm.training.plan import Plan

NETWORKS = (TANH, ORTHOGONAL_TANH, RELU, DEFAULT, forget_bias(1), CHRONO, GRU)
#: Gated networks of which weights drawn afresh at each step are a wrong model.
GATED = (DEFAULT.name, forget_bias(1).name, GRU.name)
TASKS = ("adding", "keyword")
#: By size: hidden units, and seeds.
WIDTHS = {"quick": (32, 128), "standard": (64, 128, 512)}
SEEDS = {"quick": 5, "standard": 20}
STEPS, SEQUENCES = 60, 16  #: of the task, and in a measurement
#: Of the border: factors of the input weights, gains, hidden units.
SCALES = {"quick": (0.1, 1.0, 10.0), "standard": (0.1, 0.3, 1.0, 3.0, 10.0)}
GAINS = {
    "quick": (0.9, 1.1, 1.3, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
    "standard": (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0, 2.3, 2.6, 3.0, 3.5, 4.0),
}
BORDER_UNITS = 128
#: Of the learning map.
MAP_GAINS, MAP_RATES, MAP_LENGTHS = (0.8, 1.0, 1.2, 1.5), (1e-3, 3e-3, 1e-2), (10, 20, 30)
MAP_UNITS, MAP_UPDATES, MAP_SEEDS = 64, 1500, 5
BORDER, LEARNING = "border", "learning map"


@register_study("theory")
class Theory(Study):
    title = "Theory of the gradient at the start"
    question = (
        "Can the gradient's half-life at the start be computed from variances, and does it tell what is learned?"
    )
    reference = (
        "Chen, Pennington & Schoenholz 2018 (plain RNN, minimal gated RNN) and Gilboa et al. 2019 (LSTM, GRU): mean-"
        "field theory with weights drawn afresh at each step; the time scale of signal and gradient bounds the "
        "length that can be learned (from memory, *not seen*). The recursion with the same weights at each step "
        "is this project's"
    )
    deviations = (
        "Networks at their usual starts, one W at every step; adding and keyword recall with 60 steps, 16 sequences; "
        "half-life by the line through ln‖∂L/∂h‖ over lag, of networks and of theory alike. The sentences were "
        "written after a look at three seeds with 32 and 128 units. Learning: a tanh RNN of 64 units, Adam, 1,500 "
        "updates. Quick: no learning map."
    )
    claims = ("C3", "C5")
    caption = (
        "What to see: the half-life of ∂L/∂h at the start, measured (each dot a seed) against predicted; on the "
        "diagonal theory is right. The border: growth of the gradient in one step back, with theory's line χ = 1. "
        "If there: the longest length that most seeds solve, over the predicted half-life."
    )
    minutes = Minutes(quick=0.7, standard=20)
    columns = ("half_life", "predicted", "predicted_fresh", "growth", "predicted_growth")

    def settings(self, size: str) -> tuple[str, ...]:
        return (*TASKS, BORDER) if size == "quick" else (*TASKS, BORDER, LEARNING)

    def measured(self, size: str, setting: str, folder: Path) -> list[Row]:
        """Each row is kept in `folder` once it is there."""
        seeds = SEEDS[size]
        probe = f"{STEPS} steps, {SEQUENCES} sequences, {seeds} seeds"
        if setting == LEARNING:
            grid = [(gain, rate, length) for gain in MAP_GAINS for rate in MAP_RATES for length in MAP_LENGTHS]
            budget = f"{MAP_UNITS} units, {MAP_UPDATES} updates, {MAP_SEEDS} seeds"
            return kept_rows(
                folder, {f"{_map_arm(*place)}, {budget}": functools.partial(learned, *place) for place in grid}
            )
        if setting == BORDER:
            edges = [(scale, gain) for scale in SCALES[size] for gain in GAINS[size]]
            return kept_rows(
                folder,
                {
                    f"{_edge(*edge)}, {BORDER_UNITS} units, {probe}": functools.partial(growth, *edge, seeds)
                    for edge in edges
                },
            )
        pairs = [(arm, H) for arm in NETWORKS for H in WIDTHS[size]]
        return kept_rows(
            folder,
            {f"{at(*p)}, {setting}, {probe}": functools.partial(half_lives, setting, *p, seeds) for p in pairs},
        )

    def checks(self, size: str) -> list[Check]:
        narrow, wide, most = WIDTHS[size][0], WIDTHS[size][-1], 0.1
        plain = (TANH.name, RELU.name)
        checks = [
            Check(
                f"at H = {wide} the median half-life of the tanh and the ReLU RNN is within 10 % of theory's, on "
                "both tasks",
                lambda t: _near(t, plain, wide, most),
            ),
            Check(
                f"at H = {wide} so is that of the default LSTM, of forget bias 1, of chrono and of the GRU, by "
                "theory for the same weights at each step",
                lambda t: _near(t, (*GATED, CHRONO.name), wide, most),
            ),
            Check(
                f"at H = {wide} theory for weights drawn afresh at each step is more than 20 % too short for the "
                "default LSTM, for forget bias 1 and for the GRU, on both tasks",
                lambda t: _too_short(t, wide, 0.2),
            ),
            Check(
                f"at {len(SCALES[size])} sizes of the input, 100-fold apart, the gain where the tanh RNN's gradient "
                f"neither shrinks nor grows is within {5 if size == 'standard' else 10} % of theory's",
                lambda t: _borders(t, size, 0.05 if size == "standard" else 0.1),
            ),
        ]
        if size == "standard":
            checks += [
                Check(
                    f"theory's error is smaller at H = {wide} than at H = {narrow}, of the tanh RNN, on both tasks",
                    lambda t: _narrower(t, narrow, wide),
                ),
                Check(
                    "over the map of gain and rate the longest length that most seeds solve follows the predicted "
                    "half-life: Spearman's ρ above 0.6",
                    _followed,
                ),
            ]
        return checks

    def draw(self, rows: Sequence[Row], path: Path) -> bool:
        draw_theory(Rows(rows), path)
        return True


def at(arm: Arm | str, H: int) -> str:
    """The name of a row."""
    return f"{arm if isinstance(arm, str) else arm.name}, H={H}"


def _edge(scale: float, gain: float) -> str:
    return f"input × {scale:g}, gain {gain:g}"


def _map_arm(gain: float, rate: float, length: int) -> str:
    return f"gain {gain:g}, lr {rate:g}, T={length}"


def start(plan: Plan) -> Start:
    """What theory takes of a plan's network."""
    from rnnlstm.instruments.mean_field import input_power, start_of

    options = plan.config.network
    power = input_power(plan.task, options.embedding_size)
    return start_of(plan.cell, options.hidden_size, power, plan.task.sequence_length)


def measured_norms(plan: Plan, seed: int, scale: float = 1.0) -> np.ndarray:
    """‖∂L/∂h‖ by lag, (K,), of an untrained network whose input weights are multiplied by `scale`."""
    import torch

    from rnnlstm.instruments.analysed_network import AnalysedNetwork
    from rnnlstm.instruments.flow import flow

    network = plan.network(seed)
    with torch.no_grad():
        network.recurrence.layer_weights(0)["weight_ih"].mul_(scale)
    norms = flow(AnalysedNetwork.of(plan.task, network, plan.task.sample(seed, 0, "probe", SEQUENCES)))
    return norms.total["hidden"][0].numpy()


def half_lives(task: str, arm: Arm, H: int, seeds: int) -> Row:
    """Measured and predicted half-lives of ∂L/∂h, in steps; `error` is |ln(measured / predicted)|."""
    from rnnlstm.instruments.mean_field import gradient_curve
    from rnnlstm.instruments.probe import decay_rate, half_life_at

    plan = plan_of(f"task={task}", f"task.length={STEPS}", f"model.hidden_size={H}", "threads=1", *arm.overrides)
    K = plan.task.sequence_length
    tied, fresh = (half_life_at(decay_rate(gradient_curve(start(plan), K, same).hidden)) for same in (True, False))
    measured = [half_life_at(decay_rate(measured_norms(plan, seed))) for seed in range(seeds)]
    scores: dict[str, list[float | None]] = {
        "half_life": [value if math.isfinite(value) else None for value in measured],
        "predicted": [tied if math.isfinite(tied) else None] * seeds,
        "predicted_fresh": [fresh if math.isfinite(fresh) else None] * seeds,
        "error": [abs(math.log(v / tied)) if math.isfinite(v) and math.isfinite(tied) else None for v in measured],
    }
    return Row(task, at(arm, H), hidden_size=H, parameters=plan.cost.parameters, seeds=[*range(seeds)], scores=scores)


def growth(scale: float, gain: float, seeds: int) -> Row:
    """The factor of ‖∂L/∂h‖ in one step back, measured and √χ, of an orthogonal tanh RNN on keyword recall."""
    from dataclasses import replace

    from rnnlstm.instruments.mean_field import chi
    from rnnlstm.instruments.probe import decay_rate

    plan = plan_of(*_border_of(gain))
    begun = start(plan)
    predicted = math.sqrt(chi(replace(begun, driven=begun.driven * scale**2)))
    measured: list[float | None] = [math.exp(decay_rate(measured_norms(plan, seed, scale))) for seed in range(seeds)]
    scores: dict[str, list[float | None]] = {"growth": measured, "predicted_growth": [predicted] * seeds}
    return Row(
        BORDER,
        _edge(scale, gain),
        hidden_size=BORDER_UNITS,
        parameters=plan.cost.parameters,
        seeds=[*range(seeds)],
        scores=scores,
    )


def _border_of(gain: float) -> tuple[str, ...]:
    task = ("task=keyword", f"task.length={STEPS}", f"model.hidden_size={BORDER_UNITS}", "threads=1")
    return (*task, *ORTHOGONAL_TANH.overrides, f"model.gain={gain}")


def predicted_border(scale: float) -> float:
    """Theory's gain with χ = 1."""
    from rnnlstm.instruments.mean_field import border

    begun = start(plan_of(*_border_of(1.0)))
    return border(begun.driven * scale**2 + 2 * begun.bias)


def learned(gain: float, rate: float, length: int) -> Row:
    """All seeds of one place of the learning map, with the predicted factor of one step back."""
    from rnnlstm.instruments.mean_field import gradient_curve
    from rnnlstm.instruments.probe import decay_rate

    task = ("task=keyword", f"task.length={length}", f"model.hidden_size={MAP_UNITS}", "eval.samples=512")
    network = (*ORTHOGONAL_TANH.overrides, f"model.gain={gain}", f"optimizer.lr={rate}", f"train.steps={MAP_UPDATES}")
    plan = plan_of(*common("standard"), *task, *network, f"seeds={MAP_SEEDS}", "device=cpu", "threads=1")
    row = train_row(plan, LEARNING, _map_arm(gain, rate, length))
    factor = math.exp(decay_rate(gradient_curve(start(plan), STEPS).hidden))
    row.scores["predicted_growth"] = [factor] * row.n
    return row


def _near(t: Rows, networks: Sequence[str], H: int, most: float) -> tuple[bool, str]:
    rows = [t(task, at(name, H)) for task in TASKS for name in networks]
    ratios = [row.median("half_life") / row.median("predicted") for row in rows]
    told = ", ".join(
        f"{row.setting} {row.arm} {row.median('half_life'):.3g} for {row.median('predicted'):.3g}" for row in rows
    )
    return all(abs(ratio - 1) <= most for ratio in ratios), told


def _too_short(t: Rows, H: int, least: float) -> tuple[bool, str]:
    rows = [t(task, at(name, H)) for task in TASKS for name in GATED]
    ratios = [row.median("predicted_fresh") / row.median("half_life") for row in rows]
    told = ", ".join(f"{row.setting} {row.arm} {ratio:.2g}" for row, ratio in zip(rows, ratios, strict=True))
    return all(ratio < 1 - least for ratio in ratios), f"of the measured one: {told}"


def _narrower(t: Rows, narrow: int, wide: int) -> Comparison:
    return together(*(smaller(t(task, at(TANH, wide)), t(task, at(TANH, narrow)), "error") for task in TASKS))


def measured_border(t: Rows, size: str, scale: float) -> float:
    """The first gain at which the median factor crosses 1, linear in the logarithms between gains; NaN if none."""
    gains = np.log(GAINS[size])
    logs = np.log([t(BORDER, _edge(scale, gain)).median("growth") for gain in GAINS[size]])
    for k in range(len(gains) - 1):
        if logs[k] < 0 <= logs[k + 1]:
            return float(np.exp(gains[k] - logs[k] * (gains[k + 1] - gains[k]) / (logs[k + 1] - logs[k])))
    return math.nan


def _borders(t: Rows, size: str, most: float) -> tuple[bool, str]:
    pairs = [(scale, measured_border(t, size, scale), predicted_border(scale)) for scale in SCALES[size]]
    told = ", ".join(f"input × {scale:g} {measured:.3g} for {theory:.3g}" for scale, measured, theory in pairs)
    return all(abs(measured / theory - 1) <= most for _, measured, theory in pairs), told


def longest(t: Rows, gain: float, rate: float) -> int:
    """The longest length that most seeds solve; 0 if none."""
    rows = {length: t(LEARNING, _map_arm(gain, rate, length)) for length in MAP_LENGTHS}
    return max((length for length, row in rows.items() if most_solve(row)), default=0)


def _followed(t: Rows) -> tuple[bool, str]:
    """Ranks of the factor of one step back are those of the half-life, and go on where that is infinite."""
    from rnnlstm.reporting.statistics import spearman

    places = [(gain, rate) for gain in MAP_GAINS for rate in MAP_RATES]
    factors = [t(LEARNING, _map_arm(*p, MAP_LENGTHS[0])).median("predicted_growth") for p in places]
    reached = [longest(t, *p) for p in places]
    rho = spearman(factors, reached)
    told = ", ".join(f"gain {g:g} lr {r:g} {T}" for (g, r), T in zip(places, reached, strict=True))
    return rho > 0.6, f"ρ = {rho:.2f}; longest: {told}"


def draw_theory(rows: Rows, path: Path) -> None:
    """Measured against predicted for each task, the border's map, and the learning map if it is there."""
    from rnnlstm.reporting.colours import PALETTE
    from rnnlstm.reporting.figures import save_picture
    from rnnlstm.studies.figure import panels

    settings = [setting for setting in (*TASKS, BORDER, LEARNING) if setting in rows.settings]
    figure, axes = panels(1, len(settings), 0.6 + 3.6 * len(settings), 3.8)
    for panel, setting in zip(axes[0], settings, strict=True):
        panel.set_title(setting, fontsize=9)
        panel.tick_params(labelsize=8)
        here = rows.of(setting)
        if setting == BORDER:
            _draw_border(figure, panel, here)
        elif setting == LEARNING:
            for rate, colour in zip(MAP_RATES, PALETTE, strict=False):
                factors = [
                    rows(setting, _map_arm(g, rate, MAP_LENGTHS[0])).median("predicted_growth") for g in MAP_GAINS
                ]
                reached = [longest(rows, g, rate) for g in MAP_GAINS]
                panel.plot(factors, reached, "o-", color=colour, label=f"lr {rate:g}", alpha=0.8)
            panel.set_xlabel("predicted growth of ‖∂L/∂h‖ in one step back", fontsize=9)
            panel.set_ylabel("longest T that most seeds solve", fontsize=9)
            panel.set_yticks(MAP_LENGTHS)
            panel.legend(fontsize=7, frameon=False)
        else:
            _draw_diagonal(panel, here)
    save_picture(figure, path, 90)


def _draw_diagonal(panel: Any, rows: Sequence[Row]) -> None:
    from rnnlstm.reporting.colours import PALETTE, named_network, style_numbers

    names = [arm.name for arm in NETWORKS]
    numbers = style_numbers(names, [named_network(name) or name for name in names])
    for arm, number in zip(NETWORKS, numbers, strict=True):
        colour = PALETTE[number]
        mine = [row for row in rows if row.arm == at(arm, row.hidden_size)]
        for row in mine:
            values = row.values("half_life")
            size = 2 + math.log2(row.hidden_size) / 1.5
            label = arm.name if row is mine[0] else None
            panel.plot(
                [row.median("predicted")] * len(values), values, "o", color=colour, alpha=0.6, ms=size, label=label
            )
            panel.plot([row.median("predicted_fresh")], [row.median("half_life")], "x", color=colour, ms=5)
    ends = [value for row in rows for name in ("half_life", "predicted") for value in row.values(name)]
    panel.plot([min(ends), max(ends)], [min(ends), max(ends)], color="0.5", linewidth=1)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("predicted half-life, steps (×: fresh weights)", fontsize=9)
    panel.set_ylabel("measured half-life, steps", fontsize=9)
    panel.legend(fontsize=6.5, frameon=False)


def _draw_border(figure: Any, panel: Any, rows: Sequence[Row]) -> None:
    size = next(size for size in SCALES if {row.arm for row in rows} == {
        _edge(scale, gain) for scale in SCALES[size] for gain in GAINS[size]
    })  # fmt: skip
    by_arm = {row.arm: row for row in rows}
    logs = np.array([
        [math.log(by_arm[_edge(scale, gain)].median("growth")) for scale in SCALES[size]] for gain in GAINS[size]
    ])  # fmt: skip
    reach = np.abs(logs).max()
    edges = [_between(values) for values in (SCALES[size], GAINS[size])]
    image = panel.pcolormesh(*edges, logs, cmap="RdBu_r", vmin=-reach, vmax=reach)
    bar = figure.colorbar(image, ax=panel)
    bar.set_label("ln growth of ‖∂L/∂h‖ in one step back", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    panel.set_yscale("log")
    panel.set_yticks([1, 1.5, 2, 3, 4], labels=["1", "1.5", "2", "3", "4"], minor=False)
    panel.minorticks_off()
    fine = np.geomspace(SCALES[size][0], SCALES[size][-1], 25)
    panel.plot(fine, [predicted_border(scale) for scale in fine], color="black", label="theory, χ = 1")
    measured = [measured_border(Rows(rows), size, scale) for scale in SCALES[size]]
    panel.plot(SCALES[size], measured, "ko", markerfacecolor="white", label="measured")
    panel.set_xscale("log")
    panel.set_xlabel("factor of the input weights", fontsize=9)
    panel.set_ylabel("gain of W_hh", fontsize=9)
    panel.legend(fontsize=7, loc="upper left")


def _between(values: Sequence[float]) -> np.ndarray:
    """Borders of the cells around `values`, halfway between them on a logarithmic scale."""
    logs = np.log(values)
    middle = (logs[1:] + logs[:-1]) / 2
    return np.exp([2 * logs[0] - middle[0], *middle, 2 * logs[-1] - middle[-1]])
