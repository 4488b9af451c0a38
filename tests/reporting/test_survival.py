"""Steps to solve with censoring, against examples computed by hand and against what holds without censoring."""

from __future__ import annotations

import math
import statistics

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnlstm.reporting.charts import grouped
from rnnlstm.reporting.figures import solving_figure
from rnnlstm.reporting.runs import find_runs
from rnnlstm.reporting.statistics import SolveTimes, bootstrap_median, kaplan_meier, solve_time, solve_times, wilson

from support.run_folders import make_run

STEPS = st.integers(1, 50).map(float)
SEEDS = st.lists(st.tuples(st.one_of(STEPS, st.just(math.inf)), st.booleans()), min_size=1, max_size=40).map(
    lambda pairs: SolveTimes.of([t for t, _ in pairs], [s and math.isfinite(t) for t, s in pairs])
)


def test_kaplan_meier_by_hand():
    # Freireich et al. 1963, remission under 6-MP: the textbook example, 21 patients, 9 relapses.
    relapses = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    times = SolveTimes.of(relapses + censored, [True] * 9 + [False] * 12)
    curve = kaplan_meier(times)
    assert curve.steps.tolist() == [0, 6, 7, 10, 13, 16, 22, 23]
    expected = [1, 0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482]
    assert curve.unsolved == pytest.approx(expected, abs=5e-5)
    assert times.median() == 23
    # Greenwood's standard error at 10 is published as 0.0963: the interval is Wilson's for S(1 − S)/0.0963² seeds.
    s = expected[3]
    n = s * (1 - s) / 0.0963**2
    assert (curve.low[3], curve.high[3]) == pytest.approx(wilson(s * n, n), abs=2e-3)


def test_a_diverged_seed_never_solves_and_a_censored_one_may():
    solved, unsolved = [100, 100, 100], [True, True, True]
    diverged = SolveTimes.of([*solved, math.inf, math.inf], [*unsolved, False, False])
    stopped = SolveTimes.of([*solved, 50, 50], [*unsolved, False, False])
    assert kaplan_meier(diverged).unsolved.tolist() == pytest.approx([1, 0.4])
    assert kaplan_meier(stopped).unsolved.tolist() == [1, 0]
    most = SolveTimes.of([100, math.inf, math.inf], [True, False, False])
    assert most.never
    assert math.isinf(most.median())


@given(st.lists(STEPS, min_size=1, max_size=40))
def test_without_censoring_it_is_the_empirical_distribution(steps):
    times = SolveTimes.of(steps, [True] * len(steps))
    curve = kaplan_meier(times)
    n = len(steps)
    for step, unsolved, low, high in zip(curve.steps, curve.unsolved, curve.low, curve.high, strict=True):
        left = sum(t > step for t in steps)
        assert unsolved == pytest.approx(left / n, abs=1e-12)
        if left:
            assert (low, high) == pytest.approx(wilson(left, n), abs=1e-9)
    assert times.median() == statistics.median(steps)
    if n >= 5:
        assert times.interval() == bootstrap_median(steps)


@given(SEEDS)
def test_it_falls_within_its_band(times):
    curve = kaplan_meier(times)
    assert (np.diff(curve.unsolved) < 0).all()
    assert (curve.unsolved >= 0).all()
    assert (curve.low <= curve.unsolved + 1e-9).all()
    assert (curve.unsolved <= curve.high + 1e-9).all()


@given(SEEDS)
def test_the_median_is_where_half_have_solved_it(times):
    median, (low, high) = times.median(), times.interval()
    assert low <= high
    if len(times.steps) < 5 and math.isfinite(median):
        assert low <= median <= high
    curve = kaplan_meier(times)
    if curve.unsolved[-1] > 0.5 + 1e-9:
        assert math.isinf(median)
    elif curve.unsolved[-1] < 0.5 - 1e-9:
        assert curve.unsolved[np.searchsorted(curve.steps, median, side="right") - 1] <= 0.5 + 1e-9
        assert (curve.unsolved[curve.steps < median] >= 0.5 - 1e-9).all()


@given(SEEDS, st.integers(60, 100))
def test_followed_longer_without_solving_is_later(times, longer):
    """Censored seeds that turn out to be unsolved at a later update move the median up, never down."""
    steps = np.where(times.solved | np.isinf(times.steps), times.steps, float(longer))
    later = SolveTimes.of(steps.tolist(), times.solved.tolist())
    assert later.median() >= times.median()


def test_the_bootstrap_with_censoring_agrees_with_the_one_without():
    """A seed censored before all others says next to nothing: the interval stays that of the others, nearly."""
    steps = [float(t) for t in range(100, 140)]
    without = SolveTimes.of(steps, [True] * 40)
    with_one = SolveTimes.of([1.0, *steps], [False] + [True] * 40)
    assert with_one.median() == without.median()
    assert with_one.interval() == pytest.approx(without.interval(), abs=1.5)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"status": "done", "solved": True, "steps_to_solve": 50, "steps": 80}, (50, True)),
        ({"status": "diverged", "solved": True, "steps_to_solve": 50, "steps": 80}, (50, True)),
        ({"status": "done", "solved": False, "steps_to_solve": None, "steps": 83}, (83, False)),
        ({"status": "interrupted", "solved": False, "steps_to_solve": None, "steps": 83}, (75, False)),
        ({"status": "running", "solved": False, "steps": 75}, (75, False)),
        ({"status": "failed", "solved": False, "steps": 0}, (0, False)),
        ({"status": "diverged", "solved": False, "steps": 30}, (math.inf, False)),
        ({}, (0, False)),
    ],
)
def test_what_is_known_of_a_seed(summary, expected):
    assert solve_time(summary, every=25) == expected


def test_a_runs_times(tmp_path):
    make_run(tmp_path / "a", solved={0}, summaries=[{}, {"status": "interrupted", "steps": 130}], eval__every=50)
    (run,) = find_runs([str(tmp_path)])
    times = solve_times(run)
    assert times.steps.tolist() == [50, 100, 100]
    assert times.solved.tolist() == [True, False, False]
    assert times.followed == 100


def test_bands_are_drawn_from_the_first_solved_one_on(tmp_path):
    make_run(tmp_path / "some", solved={1, 2})  # at updates 51 and 52
    make_run(tmp_path / "none", model__name="rnn")
    figure = solving_figure(grouped(find_runs([str(tmp_path)])))
    (band,) = figure.axes[0].collections
    (path,) = band.get_paths()
    assert path.vertices[:, 0].min() == 51
    assert len(figure.axes[0].get_legend().get_texts()) == 2
    plt.close(figure)
