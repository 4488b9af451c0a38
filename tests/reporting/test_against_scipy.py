"""Intervals, tests and the Kaplan–Meier estimate against SciPy's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rnnlstm.reporting.statistics import (
    SolveTimes,
    bootstrap_median,
    fisher_exact,
    holm,
    kaplan_meier,
    mann_whitney,
    sign_test,
    spearman,
    unsolved_last,
    wilson,
)

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


CELLS = st.integers(0, 40)


@given(CELLS, CELLS, CELLS, CELLS)
def test_fisher(a, b, c, d):
    """Both margins may be empty. Equal probabilities count, which SciPy finds to 1e-14 only: hence small tables."""
    p = fisher_exact(a, b, c, d)
    assert p == pytest.approx(stats.fisher_exact([[a, b], [c, d]]).pvalue, rel=1e-9)
    assert p == fisher_exact(c, d, a, b) == fisher_exact(b, a, d, c) == fisher_exact(a, c, b, d)


def test_fisher_by_hand():
    """Fisher's tea, 3 of 4 right: 2·(16 + 1) / 70. And 4 of 25 against 0 of 25."""
    assert fisher_exact(3, 1, 1, 3) == 34 / 70
    assert fisher_exact(4, 0, 0, 4) == 2 / 70
    assert fisher_exact(5, 0, 2, 3) == pytest.approx(1 / 6)
    assert fisher_exact(4, 21, 0, 25) == pytest.approx(0.10986, abs=1e-5)
    assert fisher_exact(0, 5, 0, 5) == fisher_exact(0, 0, 3, 2) == 1
    with pytest.raises(ValueError, match="negative"):
        fisher_exact(1, -1, 2, 2)


#: Values of which hardly any are equal, and values of which most are.
SAMPLES = st.one_of(st.lists(values, min_size=1, max_size=30) for values in (st.floats(-1e6, 1e6), st.integers(0, 5)))


@given(SAMPLES, SAMPLES)
def test_mann_whitney(a, b):
    if len({*a, *b}) == 1:
        assert mann_whitney(a, b) == 1
        return
    assert mann_whitney(a, b) == pytest.approx(stats.mannwhitneyu(a, b).pvalue, rel=1e-9)
    assert mann_whitney(a, b) == mann_whitney(b, a) == mann_whitney([-x for x in a], [-x for x in b])


@given(st.integers(1, 8), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_exact_p_of_mann_whitney_is_scipys(m, n, random):
    ranks = random.sample(range(m + n), m + n)
    expected = stats.mannwhitneyu(ranks[:m], ranks[m:], method="exact").pvalue
    assert mann_whitney(ranks[:m], ranks[m:]) == pytest.approx(expected, rel=1e-12)


def test_mann_whitney_by_hand():
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == 2 / 252
    assert mann_whitney([1, 4], [2, 3]) == 1
    assert mann_whitney([], [1.0]) == mann_whitney([7, 7], [7]) == 1
    with pytest.raises(ValueError, match="rank"):
        mann_whitney([1.0, float("nan")], [2.0])


def test_unsolved_runs_are_tied_behind_all_others():
    """However large the budget that stands for them, the ranks are the same."""
    solved, other = [100, 300, None, None, 250], [None, 900, None, 400, None]
    late = [[9999 if step is None else step for step in steps] for steps in (solved, other)]
    assert unsolved_last([100, None]) == [100.0, float("inf")]
    expected = stats.mannwhitneyu(*late).pvalue
    assert mann_whitney(unsolved_last(solved), unsolved_last(other)) == pytest.approx(expected)
    assert mann_whitney(unsolved_last([None] * 5), unsolved_last([None] * 5)) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_closed_test_of_bonferronis(p_values):
    """SciPy has none. By its definition: the largest Bonferroni p of the sets of hypotheses that contain this one."""
    every = range(1, 2 ** len(p_values))
    sets = [[k for k in range(len(p_values)) if bits >> k & 1] for bits in every]
    bonferroni = [min(1.0, len(chosen) * min(p_values[k] for k in chosen)) for chosen in sets]
    expected = [
        max(p for chosen, p in zip(sets, bonferroni, strict=True) if k in chosen) for k in range(len(p_values))
    ]
    assert holm(p_values) == pytest.approx(expected, rel=1e-12)


def test_holm_by_hand():
    assert holm([]) == []
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]


@given(st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5))
def test_of_five_values_the_bootstrap_interval_is_the_range(values):
    assert bootstrap_median(values) == (min(values), max(values))
    more = [*values, max(values) + 1]
    assert bootstrap_median(more)[1] < max(more)
