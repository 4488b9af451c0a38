"""Studies plan whole, judge both ways, choose rates by the rule, go on where they stopped, and make a page."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from matplotlib import pyplot as plt

from rnnlstm.jobs.job import Job
from rnnlstm.reporting.statistics import fisher_exact, mann_whitney
from rnnlstm.reproduce import main
from rnnlstm.studies import studies
from rnnlstm.studies.common import higher_within, larger, more_solve, network_of, smaller, sooner, together
from rnnlstm.studies.figure import save_figure, scatter_plots
from rnnlstm.studies.results import csv_text, read, result, text_table, verdict, write
from rnnlstm.studies.runner import Runner, StoppedError, Trial, choose, compose, reproduce
from rnnlstm.studies.study import FIRST, GRID, Arm, Check, Finding, Minutes, Row, Rows, Setting, Study, Sweep
from rnnlstm.training import loop as run_module
from rnnlstm.training.evaluation import evaluate
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from results_overview import NETWORKS, overview_figure, save_overview
from results_overview import STUDIES as OVERVIEW_STUDIES
from results_page import overview, study_page, write_pages

pytestmark = pytest.mark.usefixtures("shared_composer")

COMMITTED = Path(__file__).parents[2] / "docs/results"
EVERY = [pytest.param(study, size, id=f"{study.name}-{size}") for study in studies().values() for size in study.sizes]


def each_once(sweep):
    """The sweep with every setting and every arm, but not every pair: composing takes a quarter of a second."""
    seen, settings = set(), []
    for setting in sweep.settings:
        if setting.overrides in (other.overrides for other in settings):
            continue
        arms = tuple(arm for arm in setting.arms if arm not in seen) or setting.arms[:1]
        seen |= set(arms)
        settings.append(dataclasses.replace(setting, arms=arms))
    return dataclasses.replace(sweep, settings=tuple(settings))


@pytest.mark.slow
@pytest.mark.parametrize(("study", "size"), EVERY)
def test_every_study_composes_and_plans(study, size, tmp_path, monkeypatch):
    if (sweep := study.sweep(size)) is None:
        return
    # match=step_time would time networks; any size does for planning
    monkeypatch.setattr("rnnlstm.training.match._by_time", lambda plan, H: H)
    monkeypatch.setattr("rnnlstm.studies.cost.TIMINGS", 1)
    sweep = each_once(sweep)
    conditions = compose(study, size, sweep, tmp_path)
    assert len(conditions) == len({c.key for c in conditions}) == sum(len(setting.arms) for setting in sweep.settings)
    for condition in conditions:
        job = condition.job(GRID[0], sweep.final)
        plan = make_plan(job.config)
        assert job.folder.is_relative_to(tmp_path)
        assert job.config.train.steps == condition.setting.steps
        assert job.config.optimizer.lr == GRID[0]
        # A scan is slower than steps, and the leaky RNN has no kernel.
        asked = not {"model.backend=reference", "model=leaky_rnn"}.isdisjoint(condition.arm.overrides)
        assert plan.backend == "fused" or not job.config.surgery.nothing or asked


@pytest.mark.parametrize(("study", "size"), EVERY)
def test_verdicts_come_from_five_fresh_seeds_and_rates_from_one_grid(study, size):
    sweep = study.sweep(size)
    if sweep is None:
        return
    assert not set(sweep.final) & set(sweep.tuning)
    assert len(sweep.final) >= 5
    assert set(sweep.grid) <= {*GRID, *FIRST["grid"]}
    if size != "quick":
        assert all(setting.rate for setting in sweep.settings) or sweep.grid in (GRID, FIRST["grid"])
    names = {setting.name for setting in sweep.settings}
    for setting in sweep.settings:
        assert setting.rate is None or setting.rate in {*GRID, *FIRST["grid"]}
        if setting.rates_of is not None:
            (source,) = [s for s in sweep.settings if s.name == setting.rates_of]
            assert source.name in names
            assert source.rate is None
            assert source.rates_of is None
            assert {a.name for a in setting.arms} <= {a.name for a in source.arms}


@pytest.mark.parametrize(("study", "size"), EVERY)
def test_a_study_says_what_it_is_held_against(study, size):
    assert study.checks(size)
    assert all(len(text) > 20 for text in (study.question, study.reference, study.deviations, study.caption))
    assert len({check.text for check in study.checks(size)}) == len(study.checks(size))


# Criteria on tables made up.


def row(setting, arm, steps=(None,) * 5, metric=0.5, budget=1000, baseline=1 / 6, diverged=0, loss=None, **scores):
    n = len(steps)
    metric = list(metric) if isinstance(metric, list | tuple) else [metric] * n
    return Row(
        setting, arm, "metric", 1e-3, budget, 32, 32, 1000, baseline, list(range(n)), [s is not None for s in steps],
        [k < diverged for k in range(n)], list(steps), metric, [loss if loss is not None else 1.0] * n, [0.0] * n,
        {name: [value] * n for name, value in scores.items()},
    )  # fmt: skip


FAST, SLOW, NEVER = (100,) * 5, (900,) * 5, (None,) * 5
QUICK_TABLES = {
    "adding": lambda good: [
        row("T=30", "tanh RNN", NEVER, 0.167 if good else 0.001),
        row("T=30", "LSTM, default", SLOW, 0.009),
        *(row("T=30", arm, FAST if good else NEVER, 0.005 if good else 0.16)
          for arm in ("LSTM, forget bias 1", "LSTM, chrono", "GRU")),
    ],
    "keyword": lambda good: [
        *(row("T=20", arm, FAST if good else NEVER, 1.0) for arm in ("LSTM, forget bias 5", "LSTM, chrono")),
        row("T=20", "LSTM, forget bias 1", NEVER, 0.25),
        *(row("without decoys", arm, FAST, 1.0, **{"eval_decoys0.05/recency_error": error})
          for arm, error in (("tanh RNN", 0.4 if good else 0.0), ("LSTM, chrono", 0.1))),
    ],
    "interference": lambda good: [
        row(f"window 1, {rate} % decoys", "LSTM, chrono", FAST if good else NEVER, 1.0,
            **{"last_dish_at_30%": named if good else 0.1, "named_early": 0.1, "named_middle": 0.1,
               "named_last": 0.2 if good else 0.05})
        for rate, named in ((0, 0.3), (30, 0.0))
    ],
    "copy": lambda good: [
        row("T=10", arm, NEVER, baseline=1.0, loss=loss[not good])
        for arm, loss in (("tanh RNN", (0.99, 0.5)), ("LSTM, default", (0.9, 0.95)), ("LSTM, chrono", (0.8, 0.95)),
                          ("LSTM, forget bias 1", (0.9, 0.95)), ("tanh RNN, orthogonal", (0.3, 0.96)),
                          ("linear, orthogonal", (0.5, 0.96)))
    ],
    "clipping": lambda good: [
        row("adding T=50, SGD at 0.01", "clip none", NEVER, diverged=5 if good else 0),
        row("adding T=50, SGD at 0.01", "clip norm", NEVER, diverged=0 if good else 1),
        row("adding T=50, SGD at 0.01", "clip value", NEVER),
        row("order T=20", "clip none", (100, 100, None, None, None)),
        row("order T=20", "clip norm", FAST if good else NEVER),
        row("order T=20", "clip value", FAST),
    ],
    "gradient": lambda good: [
        Row("T=200", arm, seeds=[0],
            scores={"at_the_first_step": [first if good else 1 - first], "at_the_last_step": [0.16]})
        for arm, first in (("tanh RNN", 1e-40), ("LSTM, default", 1e-35), ("LSTM, forget bias 1", 1e-14),
                           ("tanh RNN, orthogonal", 1e-6), ("IRNN", 0.09), ("LSTM, forget bias 5", 1.7),
                           ("LSTM, default (memory)", 1e-30), ("LSTM, forget bias 1 (memory)", 1e-12),
                           ("LSTM, chrono (memory)", 0.02 if good else 0.9999), ("LSTM, forget bias 5 (memory)", 2.0))
    ],
    "long_lag": lambda good: [
        *(row(f"{v}, 20", "LSTM of 1997", FAST if good else NEVER) for v in ("2a", "2b", "2c")),
        row("2c, 20", "tanh RNN", NEVER if good else FAST),
    ],
    "lag_parts": lambda good: [
        row(f"{v}, 20", arm, FAST if (arm in ("direct connection", "direct connection, squared error, cell delayed"))
            == good else NEVER)
        for v in ("2a", "2b")
        for arm in ("LSTM of 1997", "direct connection", "squared error", "cell delayed",
                    "direct connection, squared error, cell delayed")
    ],
    "gates": lambda good: [
        row(f"{task} T=20", "LSTM, chrono", FAST if good else NEVER, 0.99, input_open=0.3,
            forget_shut=0.25 if good else 0.9, forget_open=0.98 if good else 0.1)
        for task in ("keyword", "adding")
    ],
    "length": lambda good: [
        *(row("keyword 10–20", arm, FAST, 1.0, at_20=1.0, at_40=score, at_100=score)
          for arm, score in (("tanh RNN", 0.4), ("LSTM, forget bias 5", 0.9), ("GRU", 0.5),
                             ("LSTM, chrono", 0.95 if good else 0.3))),
        *(row("adding 10–20", arm, FAST, 0.005, at_20=0.005, at_40=0.01 if good else 0.1, at_100=0.2)
          for arm in ("LSTM, chrono", "GRU")),
    ],
    "activations": lambda good: [
        *(row(f"keyword T=10, lr {rate}", arm, (100,) * count + (None,) * (5 - count))
          for rate in ("0.003", "0.01")
          for arm, count in (("tanh", 5), ("σ", 0), ("2σ−1", 5), ("σ(4x)", 0), ("ReLU", 1))
          for count in [count if good else 4 - min(count, 4)]),
        *(row("adding T=50, lr 0.01", f"{start}, clip {clip}", NEVER, dead=dead if good else 1 - dead,
              diverged=(clip == "none") == good)
          for start in ("ReLU", "IRNN") for clip, dead in (("none", 0.9), ("norm", 0.4))),
    ],
    "start_map": lambda good: [
        row("T=20", "forget 0, input 0", NEVER if good else FAST),
        row("T=20", "forget 5, input -5", FAST if good else NEVER),
    ],
    "cost": lambda good: [
        row("keyword T=20", "LSTM, chrono", FAST if good else SLOW),
        *(row("keyword T=20", f"tanh RNN, equal {b}", SLOW if good else FAST)
          for b in ("units", "parameters", "time")),
        *(row("keyword T=20", f"LSTM, chrono, {k} layers", SLOW if good else FAST) for k in (2, 4)),
    ],
    "truncation": lambda good: [
        row(f"T={length}, lr 0.01", f"LSTM, chrono{what}", FAST if reaches == good else NEVER)
        for length, truncations in ((12, (3, 6, 11)), (24, (12, 23)))
        for what, reaches in (("", True), (", h detached", True), *((f", k = {k}", False) for k in truncations))
    ],
    "restored_gradient": lambda good: [
        dataclasses.replace(
            row(f"T={length}", f"{arm}, lr {rate:g}", FAST if solves == good else NEVER,
            log10_gradient_kept=kept if good else -kept), rate=rate)
        for rate in (0.003, 0.01)
        for length, solving in ((12, ("tanh RNN",)), (30, ("gradient rescaled",)))
        for arm, kept in (("tanh RNN", -8.0), ("gradient rescaled", 0.0), ("rescaled, of another text", 0.0),
                          ("Ω, λ = 0.5", 0.0), ("Ω, λ = 2", 1.0))
        for solves in [arm in solving]
    ],
    "memory_trace": lambda good: [
        row(setting, arm, (steps,) * 5, trace_at_start=trace if good else 1 - trace,
            gradient_halvings_per_step=-steps % 7 if good else steps,
            variance_ratio_at_start=ratio if good else -ratio)
        for setting in ("T=12", "T=24")
        for arm, steps, trace, ratio in (
            ("tanh RNN", 900, 0.25, 0.1), ("LSTM, default", 700, 0.26, 0.1), ("LSTM, forget bias 1", 500, 0.28, 0.1),
            ("LSTM, forget bias 5", 400, 0.5, 0.2), ("LSTM, forget bias 5, input bias −5", 300, 0.6, 0.3),
            ("LSTM, chrono", 100, 0.9, 0.5))
    ],
    "counting": lambda good: [
        row("anbn, lr 0.01", arm, FAST, 1.0, reach=reach)
        for arm, reach in (("LSTM, default", 18 if good else 9), ("LSTM, output gate only", 50 if good else 19),
                           ("tanh RNN", 11 if good else 20))
    ],
    "state_tracking": lambda good: [
        row(setting, arm, SLOW if solves == good else NEVER, 1.0 if solves == good else 0.7)
        for setting in ("parity", "S3")
        for arm, solves in (("tanh RNN", True), ("LSTM, default", True), ("minGRU, 2 layers", False))
    ],
    "surgery": lambda good: [
        row("keyword T=20", "LSTM, chrono", FAST if good else NEVER, 1.0, as_it_is=1.0,
            forget_open=0.995 if good else 0.9, forget_shut=0.25)
    ],
    "clipping_map": lambda good: [
        row("tanh RNN, T=10", "SGD 0.1, clip none", SLOW, diverged=0),
        row("tanh RNN, T=10", "SGD 0.1, clip norm 1", FAST, diverged=0 if good else 2),
    ],
    "centring": lambda good: [
        row("keyword T=10", arm, FAST * 2 if solves == good else NEVER * 2)
        for arm, solves in (("tanh", True), ("σ", False), ("σ(4x)", False), ("σ(4x)−½", True), ("2σ−1", True),
                            ("2σ(4x)−1", True))
    ],
    "irnn": lambda good: [
        row(f"threshold {threshold}", f"IRNN, {optimizer}", FAST if (optimizer == "SGD") == good else NEVER)
        for threshold in (1, 100)
        for optimizer in ("SGD", "Adam")
    ],
    "leak": lambda good: [
        row("adding 10–20", arm, FAST, 0.005, left_at_20=1.0,
            left_at_40=0.9 if good else 1.1, left_at_100=0.8 if good else 0.95)
        for arm in ("LSTM, chrono", "GRU")
    ],
    "slow_paths": lambda good: [
        row(f"keyword T={T}", arm, FAST if (reach >= T) == good else NEVER)
        for T in (10, 20)
        for arm, reach in (("tanh RNN", 0), ("leaky tanh RNN", 10), ("GRU", 10), ("GRU, chrono", 20),
                           ("LSTM, chrono", 20))
    ],
    "dynamics": lambda good: [
        row("T=12", arm, FAST, 1.0, dishes_named_at_attractors=4 if good else 3, dishes_right=4,
            slow_directions_on_the_way=2 if good else 1, right_after_10_T=0.96 if good else 0.8,
            accuracy_at_1_to_5_more=0.1 if good else 0.9)
        for arm in ("tanh RNN", "tanh RNN, T/2 … T", "GRU", "LSTM, default", "LSTM, chrono")
    ],
    "theory": lambda good: [
        *(row(task, f"{arm}, H=128", half_life=3.0, predicted=3.1 if good else 4.0,
              predicted_fresh=2.0 if good else 3.0)
          for task in ("adding", "keyword")
          for arm in ("tanh RNN", "ReLU RNN", "LSTM, default", "LSTM, forget bias 1", "LSTM, chrono", "GRU")),
        *(row("border", f"input × {scale:g}, gain {gain:g}", growth=(gain / edge) ** 0.5)
          for scale, edge in ((0.1, 1.16), (1, 1.39 if good else 1.1), (10, 2.67))
          for gain in (0.9, 1.1, 1.3, 1.5, 2, 2.5, 3, 3.5, 4)),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", list(studies()))
def test_criteria_pass_and_miss(name):
    study = studies()[name]
    good, bad = (study.findings("quick", QUICK_TABLES[name](good)) for good in (True, False))
    assert [finding.text for finding in good if not finding.passed] == []
    assert [finding.text for finding in bad if finding.passed] == []
    assert (verdict(good), verdict(bad)) == ("pass", "miss")
    assert verdict([*good, *bad]) == "miss"


def test_a_table_without_numbers_passes_nothing():
    never = [dataclasses.replace(r, metric=[None] * 5, loss=[None] * 5) for r in QUICK_TABLES["copy"](True)]
    assert not any(finding.passed for finding in studies()["copy"].findings("quick", never))


# Sentences that compare rows.


def judged(*outcomes):
    """Whether sentences with these outcomes hold, and their corrected p-values, in a study that has no others."""
    study = Tiny()
    study.checks = lambda size: [Check(f"sentence {k}", lambda t, o=o: o) for k, o in enumerate(outcomes)]
    found = study.findings("quick", [])
    return [f.passed for f in found], [f.adjusted_p and round(f.adjusted_p, 6) for f in found], found


def test_a_comparing_sentence_must_be_significant_among_all_that_compare():
    assert judged((True, "so", 0.03))[:2] == ([True], [0.03])
    assert judged((True, "so", 0.03), (True, "so", 0.03))[:2] == ([False, False], [0.06, 0.06])
    assert judged((True, "so", 0.05))[:2] == ([False], [0.05])
    passed, adjusted, found = judged((True, "plain"), (False, "other way", 0.001), (True, "so", 0.04))
    assert (passed, adjusted) == ([True, False, True], [None, 0.002, 0.04])
    assert [f.measured for f in found] == [
        "plain",
        "other way; p = 0.001, by Holm 0.002",
        "so; p = 0.04, by Holm 0.04",
    ]
    assert verdict(found) == "miss"


def test_solved_shares_are_compared_by_fisher():
    some, none = row("A", "x", (10,) * 4 + (None,) * 21), row("A", "y", (None,) * 25)
    holds, told, p = more_solve(some, none)
    assert (holds, told) == (True, "solved x 4 of 25, y 0 of 25")
    assert p == fisher_exact(4, 21, 0, 25)
    assert more_solve(none, some)[::2] == (False, p)
    assert more_solve(none, none)[::2] == (False, 1)


def test_updates_to_solve_are_compared_with_unsolved_runs_last():
    quick, slow = row("A", "x", (50, 60, 70, 80, 90)), row("B", "x", (100, 200, 300, None, None))
    holds, told, p = sooner(quick, slow)
    assert (holds, told) == (True, "updates to solve A 70, B 300")
    assert p == mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 9])
    assert sooner(slow, quick)[::2] == (False, p)
    assert sooner(quick, row("A", "y", (None,) * 5))[1] == "updates to solve x 70, y > 1,000"
    with pytest.raises(ValueError, match="budgets"):
        sooner(quick, dataclasses.replace(slow, steps=2000))


def test_scores_are_compared_over_the_seeds_that_have_them():
    a, b = row("A", "x", metric=[5.0, 6.0, 7.0, 8.0, None]), row("A", "y", metric=[1.0, 2.0, 3.0, 4.0, 4.5])
    holds, told, p = larger(a, b)
    assert (holds, told, p) == (True, "metric x 6.5, y 3", pytest.approx(2 / 126))
    assert smaller(a, b) == (False, told, p)
    assert smaller(b, a)[::2] == (True, p)
    assert larger(a, row("A", "y", metric=[None] * 5))[::2] == (False, 1)
    assert together((True, "one", 0.01), (True, "two", 0.04)) == (True, "one; two", 0.04)
    assert together((True, "one", 0.01), (False, "two", 0.02))[0] is False


def test_two_scores_of_the_same_seeds_are_compared_in_pairs():
    pairs = dataclasses.replace(row("A", "x"), scores={"early": [1, 2, 3, 4, None], "late": [2, 3, 3, 5, 9]})
    holds, told, p = higher_within(pairs, "late", "early")
    assert (holds, told, p) == (True, "x: late 3, early 2.5; larger in 3 of 4 seeds", 0.25)
    assert higher_within(pairs, "early", "late")[::2] == (False, 0.25)


def test_findings_on_disk_are_read_with_p_values_and_without():
    assert Finding(text="one", passed=True, measured="so") == Finding("one", True, "so", None, None)
    for path in COMMITTED.glob("*/*.json"):
        checks = read(path.stem, path.parent.name, COMMITTED)["checks"]
        assert all(finding.p is None or "p = " in finding.measured for finding in (Finding(**c) for c in checks))


# The rule for learning rates.


def trial(steps, loss):
    return Trial(1000, list(steps), list(loss))


def test_most_solved_wins_before_speed():
    assert choose({1e-3: trial([900, 900], [1, 1]), 1e-2: trial([100, None], [0, 0])}) == 1e-3


def test_speed_decides_among_equals():
    assert choose({1e-3: trial([900, None], [0, 0]), 1e-2: trial([100, None], [1, 1])}) == 1e-2


def test_loss_decides_where_nothing_is_solved_and_divergence_loses():
    none = [None, None]
    assert choose({1e-3: trial(none, [0.5, 0.5]), 1e-2: trial(none, [0.4, 0.4])}) == 1e-2
    assert choose({1e-3: trial(none, [0.5, 0.5]), 1e-2: trial(none, [0.1, math.inf])}) == 1e-3


def test_a_tie_goes_to_the_smaller_rate_whatever_the_order():
    same = trial([None, None], [math.inf, math.inf])
    assert choose({1e-2: same, 1e-4: same, 1e-3: same}) == 1e-4


def test_a_trial_reads_summaries():
    summaries = [
        {"status": "done", "steps_to_solve": 50, "loss": 0.1},
        {"status": "diverged", "steps_to_solve": None, "loss": 0.1},
        {"status": "done", "steps_to_solve": None, "loss": float("nan")},
        {"status": "diverged", "steps_to_solve": None, "loss": None},
    ]
    assert Trial.of(summaries, 100).loss == [0.1, math.inf, math.inf, math.inf]


# A study from its start to its end.


class Tiny(Study):
    name, title, question = "tiny", "Tiny", "Does the machinery work from end to end?"
    reference = deviations = caption = "none: this is a test of the machinery"
    minutes = Minutes(quick=1)
    columns = ("weights",)

    def __init__(self):
        self.looked = 0

    def sweep(self, size):
        small = (
            "task.length=6",
            "model.hidden_size=4",
            "train.batch_size=4",
            "eval.samples=8",
            "eval.every=2",
            "probe=off",
        )
        arms = (Arm("tanh RNN", ("model=rnn",)), Arm("LSTM", ("model=lstm",)))
        settings = (
            Setting("A", ("task=adding",), arms, 4),
            Setting("B", ("task=adding", "task.length=8"), arms, 4, rates_of="A"),
            Setting("C", ("task=adding",), arms[:1], 6, rate=1e-2),
        )
        old = FIRST | {"grid": (1e-3, 1e-2)}
        return Sweep(settings, final_seeds=5, common=small, tuning_samples=6, **old)

    def after(self, size, folder, seed):
        self.looked += 1
        return {"weights": float((folder / f"seed_{seed}" / "weights.pt").stat().st_size)}

    def checks(self, size):
        return [Check("every seed has a score", lambda t: (all(len(r.values("metric")) == 5 for r in t), "so"))]


def runner(study, folder, said):
    return Runner(study, "quick", folder, said.append, lambda job: Progress())


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped_and_ends_the_same(tmp_path, monkeypatch):
    study, said = Tiny(), []
    *_, whole = runner(study, tmp_path / "whole", said).rows()
    assert [(r.setting, r.arm, r.n) for r in whole] == [
        ("A", "tanh RNN", 5), ("A", "LSTM", 5), ("B", "tanh RNN", 5), ("B", "LSTM", 5), ("C", "tanh RNN", 5),
    ]  # fmt: skip
    assert study.looked == 25
    by = Rows(whole)
    assert by("B", "LSTM").rate == by("A", "LSTM").rate
    assert set(by("A", "LSTM").tuning) == {"0.001", "0.01"}
    assert by("C", "tanh RNN").rate == 1e-2
    assert all(seeds == [0, 1, 2, 3, 4] for seeds in (r.seeds for r in whole))
    for folder in (tmp_path / "whole").glob("adding_T*/*"):
        tuning = (folder / "seed_100").exists()
        assert tuning != (folder / "seed_0").exists()
        assert f"samples: {6 if tuning else 8}\n" in (folder / "config.yaml").read_text()

    # Stopped by a signal in the midst of the third run: only what is missing is trained, and the rows are the same.
    trained = []
    real = run_module.train_run
    monkeypatch.setattr(run_module, "train_run", lambda *a: trained.append(a[1]) or real(*a))

    class Stopping(Progress):
        def show(self, step, update, replicas):
            if len(trained) == 3 and step == 2:
                signal.raise_signal(signal.SIGTERM)

    place = tmp_path / "broken"
    with pytest.raises(StoppedError):
        list(Runner(Tiny(), "quick", place, said.append, lambda job: Stopping()).rows())
    assert len(trained) == 3
    assert list(trained[-1].glob("checkpoints/*"))
    *_, rows = runner(Tiny(), place, said).rows()
    assert rows == whole
    assert len(trained) == 3 + 9 - 2  # of 4 tuning and 5 final runs two had ended before

    # A third time everything is read.
    monkeypatch.setattr(run_module, "train_run", lambda *a: pytest.fail("trained again"))
    idle = Tiny()
    third = runner(idle, place, said)
    assert list(third.rows())[-1] == rows
    assert idle.looked == 0
    assert all(third.seconds(setting) > 0 for setting in "ABC")
    assert "tuning: all 2 runs are there" in said


class Stepwise(Tiny):
    """By the rules of now."""

    def sweep(self, size):
        sweep = super().sweep(size)
        rules = {"tuning_seeds": 3, "one_above": True, "gives_up": True, "test_samples": 32}
        return dataclasses.replace(sweep, **rules)


@pytest.mark.slow
def test_each_setting_is_written_at_once_and_not_run_again(tmp_path, monkeypatch, capsys):
    trained = []
    real = run_module.train_run
    monkeypatch.setattr(run_module, "train_run", lambda *a: trained.append(a[1]) or real(*a))
    place = tmp_path / "out/quick/tiny.json"

    def run(setting=None):
        trained.clear()
        assert reproduce([Stepwise()], "quick", tmp_path / "runs", tmp_path / "out", setting) is None
        return json.loads(place.read_text())

    first = run("B")  # takes its rates from A, whose final networks it does not train
    assert {row["setting"] for row in first["rows"]} == {"B"}
    assert first["verdict"] == "unfinished"
    assert "UNFINISHED" in capsys.readouterr().out
    assert not [folder for folder in trained if "T6" in folder.parent.name and (folder / "seed_0").exists()]
    assert {row["setting"] for row in run("C")["rows"]} == {"B", "C"}
    shutil.rmtree(tmp_path / "runs")
    whole = run()
    assert [row["setting"] for row in whole["rows"]] == ["A", "A", "B", "B", "C"]
    assert whole["rows"][2:] == [row for row in whole["rows"] if row["setting"] != "A"]
    assert whole["rows"][2:4] == first["rows"]
    assert all("T6" in folder.parent.name for folder in trained)
    assert whole["verdict"] == "pass"
    assert set(whole["setting_seconds"]) == {"A", "B", "C"}
    assert whole["seconds"] == pytest.approx(sum(whole["setting_seconds"].values()), abs=0.2)
    again = run()
    assert not trained
    assert again["rows"] == whole["rows"]


@pytest.mark.slow
def test_rates_without_progress_are_given_up_and_one_above_the_top_is_tried(tmp_path, monkeypatch):
    losses = {1e-3: 1.0, 1e-2: 0.1, 1e-1: 0.05}  # as shares of the baseline
    real = Job.summaries

    def summaries(job):
        found = real(job)
        share = losses[job.config.optimizer.lr]
        return [{**s, "loss": share * s["baseline"], "solved": False, "steps_to_solve": None} for s in found]

    monkeypatch.setattr(Job, "summaries", summaries)
    study = Stepwise()
    *_, rows = runner(study, tmp_path, []).rows("A")
    row = Rows(rows)("A", "LSTM")
    assert row.rate == 1e-1
    assert list(row.tuning) == ["0.001", "0.01", "0.1"]
    assert row.tuning["0.001"]["given_up"]
    assert "given_up" not in row.tuning["0.01"]
    steps = {}
    for folder in tmp_path.glob("adding_T6/lstm*"):
        if (folder / "seed_100").exists():
            config = yaml.safe_load((folder / "config.yaml").read_text())
            steps.setdefault(config["optimizer"]["lr"], set()).add(config["train"]["steps"])
    assert steps == {1e-3: {2}, 1e-2: {2, 4}, 1e-1: {2, 4}}


@pytest.mark.slow
def test_final_networks_are_scored_on_sequences_that_nothing_else_sees(tmp_path):
    study = Stepwise()
    *_, rows = runner(study, tmp_path, []).rows("C")
    (folder,) = [f for f in tmp_path.glob("adding_T6/rnn*") if (f / "seed_0").exists()]
    plan, network = network_of(folder, 1)
    scores, _ = evaluate(network, plan.task, 1, 32, stream="test")
    assert rows[0].metric[1] == scores["mse"]
    assert rows[0].loss[1] == scores["loss"]
    assert rows[0].scores["eval/mse"][1] == scores["mse"]
    assert scores["mse"] != evaluate(network, plan.task, 1, 32)[0]["mse"]


def test_a_result_is_written_and_read_and_its_page_says_no_more(tmp_path):
    study = studies()["adding"]
    rows = QUICK_TABLES["adding"](True)
    data = result(study, "quick", rows, {"T=30": 12.0})
    assert data["seconds"] == 12
    paths = write(study, data, tmp_path / "results")
    assert all(path.stat().st_size > 0 for path in paths)
    assert paths[2].stat().st_size < 60_000
    assert read("adding", "quick", tmp_path / "results") == json.loads(paths[0].read_text())
    assert [Row.from_data(r) for r in data["rows"]] == rows
    out = tmp_path / "results"
    text = study_page(study, out)
    assert "](quick/adding.png)" in text
    assert "Not run." not in text
    assert "**holds** (3 of 3)" in overview(out, tmp_path)
    assert str(tmp_path) not in text + overview(out, tmp_path)
    (out / "reading").mkdir()
    (out / "reading" / "adding.md").write_text("*What it means.* A gate, as in [copy](#copy).\n")
    (out / "reading" / "answers.md").write_text("adding: Gates do.\ncopy: No.\n")
    assert "\n\n*What it means.* A gate, as in [copy](copy.md).\n\n" in study_page(study, out)
    text = overview(out, tmp_path)
    assert f"[adding](results/adding.md) | {study.question} | Gates do. | **holds** (3 of 3)" in text
    write_pages(tmp_path / "results.md", out)
    assert (tmp_path / "results.md").read_text() == text
    for other in studies().values():
        assert f"[{other.name}](results/{other.name}.md)" in text
        assert ("Not run." in (out / f"{other.name}.md").read_text()) == (other.name != "adding")


def test_rows_that_were_there_keep_when_and_where_they_were_measured():
    study, rows = studies()["adding"], QUICK_TABLES["adding"](True)
    before = {**result(study, "quick", rows, {}), "written": "2020-01-01", "machine": {"processor": "another"}}
    again = result(study, "quick", rows, {}, json.loads(json.dumps(before)))
    assert (again["written"], again["machine"]) == ("2020-01-01", {"processor": "another"})
    other = result(study, "quick", QUICK_TABLES["adding"](False), {}, before)
    assert other["written"] != "2020-01-01"
    assert other["machine"] != before["machine"]


def test_a_figure_has_a_panel_for_each_setting_and_says_who_diverged(tmp_path, monkeypatch):
    rows = [row(f"T={T}", "tanh", NEVER, diverged=2 if T == 5 else 0) for T in range(6)]
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    save_figure(studies()["clipping"], rows, tmp_path / "figure.png")
    shown = [axes for axes in kept[0].axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [f"T={T}" for T in range(6)]
    assert [[text.get_text() for text in axes.texts] for axes in shown] == [[]] * 5 + [["2 of 5 diverged"]]


def test_the_overview_needs_three_studies_and_stands_on_the_page(tmp_path):
    (tmp_path / "standard").mkdir()
    for name in OVERVIEW_STUDIES:
        assert save_overview(tmp_path) is None, f"drawn without {name}"
        shutil.copy(COMMITTED / f"standard/{name}.json", tmp_path / "standard")
    assert "overview" not in overview(tmp_path, tmp_path)
    assert save_overview(tmp_path).stat().st_size > 10_000
    assert "](./overview.png)" in overview(tmp_path, tmp_path)


def test_what_the_overview_draws():
    tables = {
        name: Rows([Row.from_data(r) for r in read(name, "standard", COMMITTED)["rows"]]) for name in OVERVIEW_STUDIES
    }
    late = tables["adding"]("T=200", "LSTM, default")
    late.steps_to_solve[:] = [None] * 5
    figure = overview_figure(tables)
    lines = [{line.get_label(): line for line in axes.get_lines()} for axes in figure.axes]
    tanh, chrono = (lines[0][name] for name in ("tanh RNN", "LSTM, chrono"))
    assert list(tanh.get_xdata()) == [199, 99, 49, 0]
    assert tanh.get_ydata()[0] < 1e-40
    assert tanh.get_ydata()[3] == chrono.get_ydata()[3] == 1
    dotted = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert len(dotted) == 4  # ∂L/∂c of the four LSTMs
    memory = tables["gradient"]("T=200", "LSTM, chrono (memory)")
    (drawn,) = [line for line in dotted if line.get_color() == chrono.get_color()]
    assert drawn.get_ydata()[0] == memory.median("at_the_first_step") / memory.median("at_the_last_step")
    assert 0.1 < drawn.get_ydata()[0] < 1
    assert list(lines[1]["LSTM, chrono"].get_ydata()) == [
        tables["keyword"](f"T={T}", "LSTM, chrono").median("metric") for T in (50, 100, 200)
    ]
    drawn = [line for line in figure.axes[2].get_lines() if line.get_label() == "LSTM, PyTorch's start"]
    assert [line.get_fillstyle() for line in drawn] == ["full", "full", "none"]
    assert [float(line.get_ydata()[0]) for line in drawn] == [750, 1200, 4000]
    joined = next(line for line in figure.axes[2].get_lines() if line.get_color() == drawn[0].get_color())
    assert list(joined.get_ydata())[:2] == [750, 1200]
    assert math.isnan(joined.get_ydata()[2])
    plt.close(figure)


def test_a_figure_of_updates_has_a_median_only_where_most_seeds_solved(tmp_path, monkeypatch):
    rows = [row("T=5", "few", (100, 200, None, None, None)), row("T=5", "most", (100, 200, 300, None, None))]
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    save_figure(studies()["cost"], rows, tmp_path / "figure.png")
    (axes,) = kept[0].axes
    bars = [line for line in axes.get_lines() if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
    assert [bar.get_xdata()[0] for bar in bars] == [300]
    assert [text.get_text() for text in axes.texts] == ["2 of 5", "3 of 5"]
    assert axes.get_xlim()[1] > 1000


def test_scatter_plots_show_every_seed_and_who_did_not_solve():
    rows = [
        dataclasses.replace(row("T=5", "tanh RNN", (100, None)), scores={"a": [0.1, 0.2], "b": [3.0, None]}),
        dataclasses.replace(row("T=9", "GRU", (200, 300)), scores={"a": [0.3, 0.4], "b": [1.0, 2.0]}),
    ]
    figure = scatter_plots(rows, ("a", "b"))
    drawn = [
        [
            (line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() == "none")
            for line in axes.get_lines()
        ]
        for axes in figure.axes
    ]
    assert drawn == [
        [(0.1, 100, False), (0.2, 1000, True), (0.3, 200, False), (0.4, 300, False)],
        [(3.0, 100, False), (1.0, 200, False), (2.0, 300, False)],
    ]
    assert len({line.get_color() for line in figure.axes[0].get_lines()}) == 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["tanh RNN", "GRU", "T=5", "T=9"]
    plt.close(figure)


def test_the_memory_trace_is_measured_at_the_start_half_way_and_at_the_end(train):
    """Half-way is where another run with half the updates ends."""
    small = ("task=keyword", "model=lstm", "model.hidden_size=8", "task.length=8", "optimizer.lr=0.05")
    study = studies()["memory_trace"]
    whole, half = (train(*small, f"train.steps={steps}") for steps in (8, 4))
    values = {name: study.after("quick", run.folder, 0) for name, run in (("whole", whole), ("half", half))}
    for name in ("trace", "variance_ratio"):
        assert values["whole"][f"{name}_half_way"] == pytest.approx(values["half"][f"{name}_at_end"])
        assert values["whole"][f"{name}_at_start"] == values["half"][f"{name}_at_start"]
    assert values["whole"]["variance_ratio_at_start"] != values["whole"]["variance_ratio_at_end"]
    assert values["whole"]["trace_at_end"] == values["whole"]["trace_at_end_cell_7"]
    assert set(study.columns) <= set(values["whole"])
    assert all(f"trace_half_way_hidden_{lag}" in values["whole"] for lag in (1, 2, 5, 7))
    assert all(map(math.isfinite, values["whole"].values()))


def test_gates_are_held_where_all_of_them_are_there(train):
    found = []
    for network in (["model=lstm"], ["model=lstm_1997"], ["model=lstm", "surgery.open=[input]"]):
        trained = train("train.steps=1", "model.hidden_size=8", *network)
        found.append(studies()["gates"].after("quick", trained.folder, 0))
    assert [len(values) for values in found] == [6, 0, 0]


def test_every_network_of_the_overview_is_in_its_studies():
    """A renamed arm would silently lose its line."""
    rows = [row for name in OVERVIEW_STUDIES for row in read(name, "standard", COMMITTED)["rows"]]
    assert {name for names in NETWORKS.values() for name in names} <= {row["arm"] for row in rows}


def test_the_table_says_what_did_not_end():
    rows = [
        row("T=5", "a", (100, 200, None, None, None), 0.5),
        row("T=5", "b", FAST, [1.0, 2.0, 3.0, 4.0, 5.0], diverged=1),
    ]
    head, first, second = text_table(rows, ("weights",))
    cells = dict(zip(head, first, strict=True))
    assert cells["updates to solve"] == "> 1,000"
    assert cells["solved (95 %)"].startswith("2 of 5 (12%")
    assert dict(zip(head, second, strict=True))["diverged"] == "1 of 5"
    assert dict(zip(head, second, strict=True))["metric"].startswith("3 (")
    lines = csv_text(rows, ()).splitlines()
    assert len(lines) == 3
    assert ">1000" in lines[1]


def test_the_list_has_a_line_for_each_study(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for study in studies().values():
        (line,) = [line for line in lines if line.startswith(f"{study.name} ")]
        assert line.endswith(study.question)
    assert len(lines) <= len(studies()) + 4


def test_a_study_that_is_named_is_listed_with_its_criteria(capsys):
    assert main(["--list", "copy"]) == 0
    assert "Adding" not in capsys.readouterr().out
    assert main(["--list", *studies()]) == 0
    said = capsys.readouterr().out
    for study in studies().values():
        assert study.title in said
        for size in study.sizes:
            assert all(check.text in said for check in study.checks(size))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["addng"], "did you mean adding"),
        (["adding,copy"], "must be one of adding, keyword, copy"),
        (["adding,copy"], "separate studies by spaces"),
        (["--list", "addng"], "did you mean adding"),
        ([], "which study"),
        (["gradient", "--long"], "gradient has no --long"),
        (["--quick", "--long", "adding"], "not allowed"),
        (["adding", "--speed"], "--speed"),
        (["adding", "--setting", "T=10"], "did you mean T=100"),
        (["adding", "copy", "--setting", "T=100"], "is of one study; 2 are named"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_nothing_is_said_in_a_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["gradient", "--quick", "--out", str(tmp_path / "file"), "--runs", str(tmp_path / "runs")]) == 74
    assert capsys.readouterr().err.count("\n") == 1
