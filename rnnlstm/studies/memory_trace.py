"""The keyword's trace in the state at each step, and whether it or the gradient predicts who learns the task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.reporting.statistics import spearman
from rnnlstm.studies.common import CHRONO, DEFAULT, GRU, RELU, TANH, common, each, forget_bias
from rnnlstm.studies.study import Arm, Check, Minutes, Rows, Setting, Study, Sweep, register_study

if TYPE_CHECKING:
    from rnnlstm.models import Network
    from rnnlstm.training.plan import Plan

ONE, FIVE = forget_bias(1), forget_bias(5)
#: Forget gate open and input gate shut at the start.
SHUT_INPUT = Arm("LSTM, forget bias 5, input bias −5", (*FIVE.overrides, "model.input_bias=-5"))
ARMS = (TANH, RELU, GRU, DEFAULT, ONE, FIVE, CHRONO, SHUT_INPUT)
RATE = 3e-3
#: By size: lengths, updates, dishes.
SIZES = {"quick": ((12, 24), 200, 4), "standard": ((20, 50, 100), 1000, 8)}
#: Steps after the keyword at which the trace is kept, beside the last step.
LAGS = (1, 2, 5, 10, 20, 50)
STAGES = ("at_start", "half_way", "at_end")
TRACE, HALVINGS = "trace_at_start", "gradient_halvings_per_step"


@register_study("memory_trace")
class MemoryTraces(Study):
    title = "The keyword's trace in the state"
    question = (
        "Does an untrained state hold the keyword, and does that or the gradient's half-life tell who learns it?"
    )
    reference = (
        "No published table of this. Linear readouts as probes: Alain & Bengio 2016 (from memory). Hochreiter & "
        "Schmidhuber 1997 (from memory) name the drift of an LSTM's internal state, and shut the input gate at the "
        "start against it"
    )
    deviations = (
        "Ridge regression (λ = 0.001 on states of unit variance) on 1,024 texts, scored on 1,024 others. Decoys at "
        "5 % of places; one rate, 0.003, for all; five seeds. Half-way: after half of the updates that a seed took. "
        "The memory is c where there is one, else h."
    )
    claims = ("C10", "C15")
    caption = (
        "What to see: updates to solve the task against what the untrained network has, the trace of the keyword in "
        "its memory at the last step (left) and the gradient's halvings per step back (right). A mark is a seed; "
        "hollow ones did not solve it."
    )
    minutes = Minutes(quick=0.7, standard=12)
    columns = (*(f"trace_{stage}" for stage in STAGES), *(f"variance_ratio_{stage}" for stage in STAGES), HALVINGS)
    scatter = (TRACE, HALVINGS)

    def sweep(self, size: str) -> Sweep:
        lengths, steps, dishes = SIZES[size]
        task = ("task=keyword", f"task.num_keywords={dishes}")
        settings = tuple(
            Setting(f"T={length}", (*task, f"task.length={length}"), ARMS, steps, rate=RATE) for length in lengths
        )
        return Sweep(settings, common=common(size))

    def after(self, size: str, folder: Path, seed: int) -> dict[str, float]:
        """At each stage of training: the trace in the memory at the last step, `trace_at_start`; the variance ratio
        there; and the trace by state and lag, `trace_at_start_hidden_10`. Also the gradient's halvings per step back
        at the start, 1/half-life, which is 0 where it does not shrink."""
        from rnnlstm.record.files import read_object
        from rnnlstm.record.folders import SUMMARY
        from rnnlstm.studies.common import flow_and_units, network_of
        from rnnlstm.training.step import Trainer

        plan, network = network_of(folder, seed)
        half = plan.network(seed)
        trainer = Trainer(plan, [seed])  # trained again by itself: the same to rounding
        for step in range(1, read_object(folder / f"seed_{seed}" / SUMMARY)["steps"] // 2 + 1):
            trainer.step(step)
        half.load_state_dict(trainer.model.weights(0))
        values = {HALVINGS: 1 / flow_and_units(plan, network, seed)["half_life_at_start"]}
        for stage, at_stage in zip(STAGES, (plan.network(seed), half, network), strict=True):
            values |= _traces(plan, at_stage, seed, stage)
        return values

    def checks(self, size: str) -> list[Check]:
        lengths, _, dishes = SIZES[size]
        longest, above = f"T={lengths[-1]}", 1 / dishes + 0.05
        blind = (TANH.name, DEFAULT.name, ONE.name)

        def held(t: Rows) -> tuple[bool, str]:
            rows = [t(longest, arm) for arm in (*blind, CHRONO.name)]
            *without, chrono = (row.median(TRACE) for row in rows)
            return max(without) < above < chrono, each(rows, TRACE)

        def drift(t: Rows) -> tuple[bool, str]:
            rows = [t(longest, arm.name) for arm in (FIVE, SHUT_INPUT)]
            free, shut = (row.median("variance_ratio_at_start") for row in rows)
            return free < shut, each(rows, "variance_ratio_at_start")

        return [
            Check(
                f"{longest}, untrained: a readout from chrono's c is right more often than chance by over 5 % of the "
                "texts, one from tanh RNN, default LSTM or forget bias 1 is not",
                held,
            ),
            *(_predicts(f"T={length}") for length in lengths),
            Check(f"{longest}, untrained, forget bias 5: c holds more of the keyword with input bias −5", drift),
        ]


def _traces(plan: Plan, network: Network, seed: int, stage: str) -> dict[str, float]:
    from rnnlstm.instruments.memory_trace import memory_trace

    trace = memory_trace(plan.task, network, seed)
    memory = plan.cell.state_names[-1]
    values = {f"trace_{stage}": trace.accuracy[memory][-1].item()}
    values[f"variance_ratio_{stage}"] = trace.variance_ratio[memory]
    for state, accuracy in trace.accuracy.items():
        lags = [lag for lag in (*LAGS, len(accuracy) - 1) if lag < len(accuracy)]
        values |= {f"trace_{stage}_{state}_{lag}": accuracy[lag].item() for lag in lags}
    return values


def _predicts(setting: str) -> Check:
    def test(t: Rows) -> tuple[bool, str]:
        by_trace, by_gradient = -rank_correlation(t, setting, TRACE), rank_correlation(t, setting, HALVINGS)
        return by_trace > by_gradient, f"−ρ with the trace {by_trace:.2f}, ρ with halvings per step {by_gradient:.2f}"

    return Check(
        f"{setting}: over the seeds of all networks, updates to solve follow the untrained trace more closely than "
        "the gradient's half-life, by Spearman's rank correlation",
        test,
    )


def rank_correlation(t: Rows, setting: str, name: str) -> float:
    """Spearman's ρ of a score with updates to solve over all seeds; a seed that did not solve comes last."""
    pairs = [
        (value, row.steps + 1 if step is None else step)
        for row in t.of(setting)
        for value, step in zip(row.scores[name], row.steps_to_solve, strict=True)
        if value is not None
    ]
    return spearman(*zip(*pairs, strict=True))
