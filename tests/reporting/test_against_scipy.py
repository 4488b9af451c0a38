"""Intervals, tests and the Kaplan–Meier estimate against SciPy's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rnnlstm.reporting.statistics import SolveTimes, bootstrap_median, kaplan_meier, sign_test, spearman, wilson

COUNTS = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
#: Updates, and whether the seed solved the task there; one at least did.
SEEDS = st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=50).filter(
    lambda seeds: any(solved for _, solved in seeds)
)


@given(COUNTS)
def test_wilson(counts):
    expected = stats.binomtest(*counts).proportion_ci(method="wilson")
    assert wilson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(COUNTS)
def test_sign_test(counts):
    wins, trials = counts
    assert sign_test(wins, trials - wins) == pytest.approx(stats.binomtest(wins, trials).pvalue, rel=1e-9)


@given(st.lists(st.tuples(st.integers(-3, 3), st.floats(-9, 9)), min_size=2, max_size=40))
def test_spearman(pairs):
    x, y = zip(*pairs, strict=True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def both(seeds):
    """The estimate and SciPy's survival function."""
    solved, censored = ([step for step, event in seeds if event is which] for which in (True, False))
    times = SolveTimes.of(solved + censored, [True] * len(solved) + [False] * len(censored))
    return kaplan_meier(times), stats.ecdf(stats.CensoredData(uncensored=solved, right=censored)).sf


@given(SEEDS)
def test_kaplan_meier(seeds):
    """Of a seed censored at the update at which another solves it, both say that it was still followed there."""
    curve, survival = both(seeds)
    assert curve.unsolved == pytest.approx(survival.evaluate(curve.steps), abs=1e-12)


@given(SEEDS)
def test_the_variance_behind_its_interval_is_greenwoods(seeds):
    """The band is Wilson's for n seeds, where S(1 − S)/n is Greenwood's variance: half of SciPy's linear interval is
    z times its root."""
    curve, survival = both(seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it is undefined where none is left
        upper = survival.confidence_interval(0.5).high.evaluate(curve.steps)
    for end, share, low, high in zip(upper, curve.unsolved, curve.low, curve.high, strict=True):
        if 0 < share < 1 and end < 1:
            deviation = (end - share) / stats.norm.ppf(0.75)
            n = share * (1 - share) / deviation**2
            assert (low, high) == pytest.approx(wilson(share * n, n), abs=1e-9)


@pytest.mark.parametrize("count", [5, 8, 25, 60])
def test_bootstrap_of_the_median(count):
    """The percentile interval, but for chance: each end within one place among the sorted values."""
    values = np.sort(np.random.default_rng(count).normal(size=count))
    rng = np.random.default_rng(1)
    expected = stats.bootstrap((values,), np.median, n_resamples=10_000, method="percentile", rng=rng)
    for mine, theirs in zip(bootstrap_median(values.tolist()), expected.confidence_interval, strict=True):
        assert abs(np.searchsorted(values, mine) - np.searchsorted(values, theirs)) <= 1
