"""Differences seed by seed: statistics against their symmetries, and which rows are paired at all."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnlstm.config.errors import ConfigError
from rnnlstm.reporting.pairing import contests
from rnnlstm.reporting.runs import find_runs
from rnnlstm.reporting.selection import compare, group_by
from rnnlstm.reporting.statistics import Differences, difference, median_of, sign_test
from rnnlstm.reporting.tables import paragraphs

from support.run_folders import make_run

EXACT = st.floats(-1e3, 1e3).map(lambda x: (x, x))
TIMES = st.one_of(
    st.integers(1, 300).map(lambda t: (float(t), float(t))),
    st.integers(1, 300).map(lambda t: (float(t), math.inf)),
    st.just((math.inf, math.inf)),
)


def pairs(kind):
    return st.lists(st.tuples(kind, kind), min_size=1, max_size=20)


@given(st.one_of(pairs(EXACT), pairs(TIMES)))
def test_swapping_the_sides_mirrors_everything(sides):
    a, b = zip(*sides, strict=True)
    there, back = Differences.of(a, b), Differences.of(b, a)
    for method in ("median", "interval"):
        low, high = getattr(back, method)()
        assert getattr(there, method)() == (-high, -low)
    assert (there.below, there.above, there.equal, there.open) == (back.above, back.below, back.equal, back.open)


@given(pairs(EXACT))
def test_exact_numbers_have_exact_differences(sides):
    a, b = zip(*sides, strict=True)
    found = Differences.of(a, b)
    low, high = found.median()
    assert low == high == statistics.median(x - y for (x, _), (y, _) in sides)
    assert found.interval()[0] <= low <= found.interval()[1]
    assert found.open == 0


@given(pairs(TIMES), st.data())
def test_whatever_lies_within_the_bounds_has_its_median_within_theirs(sides, data):
    """Seeds that may yet solve the task are given any later time, and the median stays where it was said to be."""
    a, b = zip(*sides, strict=True)

    def later(bounds):
        low, high = bounds
        return low if low == high else low + data.draw(st.integers(0, 500))

    realised = [(later(x), later(y)) for x, y in zip(a, b, strict=True)]
    exact = Differences.of([(x, x) for x, _ in realised], [(y, y) for _, y in realised])
    bounds = Differences.of(a, b)
    (low, high), (least, most) = bounds.median(), exact.median()
    assert low <= most
    assert least <= high
    assert bounds.below <= exact.below
    assert bounds.above <= exact.above


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((100, 100), (150, 150), (-50, -50)),
        ((100, 100), (301, math.inf), (-math.inf, -201)),  # B unsolved at 300
        ((400, 400), (301, math.inf), (-math.inf, 99)),  # B may be either
        ((301, math.inf), (301, math.inf), (-math.inf, math.inf)),
        ((math.inf, math.inf), (math.inf, math.inf), (0, 0)),  # both diverged
        ((math.inf, math.inf), (100, 100), (math.inf, math.inf)),
        ((math.inf, math.inf), (301, math.inf), (-math.inf, math.inf)),
    ],
)
def test_differences_of_times(a, b, expected):
    assert difference(a, b) == expected


def test_median_of_bounds():
    assert median_of([(1, 1), (2, 2), (11, math.inf)]) == (2, 2)
    assert median_of([(1, 1), (11, math.inf)]) == (6, math.inf)


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(0, 0, 1), (5, 0, 1 / 16), (0, 6, 1 / 32), (8, 2, 0.109375), (3, 3, 1)]
)
def test_sign_test(wins, losses, p):
    assert sign_test(wins, losses) == pytest.approx(p)
    assert sign_test(2000, 500) < 1e-200


def compared(tmp_path, *against, by=()):
    runs = find_runs([str(tmp_path)])
    return contests(group_by(runs, by) if by else runs, against)


def test_only_what_shares_data_is_paired(tmp_path):
    common = {"seeds": 3, "train__batch_size": 64, "eval__samples": 100}
    make_run(tmp_path / "a", **common, metrics=[0.9, 0.8, 0.7], solved={0, 1, 2})
    make_run(tmp_path / "b", **{**common, "seeds": 2}, metrics=[0.5, 0.6], model__init="default")
    make_run(tmp_path / "c", **{**common, "train__batch_size": 32}, model__init="orthogonal")
    make_run(tmp_path / "d", **common, task__length=100, model__init="default")
    (contest,) = compared(tmp_path, "init=chrono")
    assert contest.title == "keyword, length 50: minus lstm, init=chrono, batch_size=64"
    assert contest.name == "lstm, init=default, batch_size=64"
    assert [low for low, _ in contest.metric.bounds] == pytest.approx([-0.4, -0.2])
    assert (contest.better, contest.worse) == (0, 2)
    assert contest.steps.bounds == ((51, math.inf), (50, math.inf))  # unsolved at 100, against 50 and 51
    assert compared(tmp_path, "init=default", "length=100") == []
    with pytest.raises(ConfigError, match="no run has init=identity: there is chrono, default, orthogonal"):
        compared(tmp_path, "init=identity")
    with pytest.raises(ConfigError, match="2 rows are that"):
        compared(tmp_path, "init=default,orthogonal")
    make_run(tmp_path / "e", **common, model__init="identity", data="device")
    assert compared(tmp_path, "init=identity") == []
    (tmp_path / "e/config.yaml").write_text((tmp_path / "e/config.yaml").read_text().replace("device", "cpu"))
    assert len(compared(tmp_path, "init=identity")) == 2  # with a and b, which are from before there was the key


def test_less_is_better_for_errors_and_unfinished_seeds_have_no_metric_yet(tmp_path):
    mse = {"metric_name": "mse"}
    make_run(tmp_path / "a", metrics=[0.1, 0.1, 0.1], summaries=[mse] * 3)
    make_run(
        tmp_path / "b", metrics=[0.2, 0.3, 0.4], model__name="rnn",
        summaries=[mse, mse | {"status": "diverged"}, mse | {"status": "running"}],
    )  # fmt: skip
    (contest,) = compared(tmp_path, "model=lstm")
    assert contest.metric_name == "mse"
    assert (contest.better, contest.worse, len(contest.metric.bounds)) == (0, 2, 2)
    assert contest.steps.open == 3
    assert contest.steps.bounds[1] == (-math.inf, math.inf)  # diverged, against one that may yet solve it


def test_groups_are_paired_by_seed_with_the_median_over_configurations(tmp_path):
    for model, values in (("lstm", (0.9, 0.7)), ("rnn", (0.5, 0.1))):
        for lr, value in zip((0.1, 0.01), values, strict=True):
            make_run(tmp_path / f"{model}{lr}", metrics=[value] * 3, model__name=model, optimizer__lr=lr)
    (contest,) = compared(tmp_path, "model=lstm", by=["model"])
    assert [low for low, _ in contest.metric.bounds] == pytest.approx([-0.5] * 3)


def test_rows_of_several_tasks_are_told_apart_in_one_table(tmp_path):
    for task, length in (("keyword", 50), ("keyword", 100), ("adding", 50)):
        for model in ("lstm", "rnn"):
            make_run(tmp_path / f"{task}{length}{model}", task__name=task, task__length=length, model__name=model)
    titles = ["adding, length 50: minus lstm", "keyword, length 50: minus lstm", "keyword, length 100: minus lstm"]
    assert [(contest.title, contest.name) for contest in compared(tmp_path, "model=lstm")] == [
        (title, "rnn") for title in titles
    ]


@pytest.mark.parametrize(
    ("seeds", "by", "words"),
    [
        (3, [], "With 3 seeds p can't fall below 0.25"),
        (4, [], "With 4 seeds p can't fall below 0.12"),
        (1, ["model"], "With 1 seed p can't fall below 1"),
        (5, [], None),
    ],
)
def test_how_small_p_can_be_is_said_under_five_pairs(seeds, by, words, tmp_path):
    make_run(tmp_path / "a", seeds=seeds)
    make_run(tmp_path / "b", seeds=seeds, model__name="rnn")
    found = compare([str(tmp_path)], by=by)
    printed = [part for part in paragraphs(found, 40, True, [], 200) if isinstance(part, str)]
    assert [line for line in printed if "can't fall" in line] == [words] * (words is not None)


def test_pairs_of_groups_are_counted_as_pairs(tmp_path):
    for model in ("rnn", "lstm"):
        for length in (10, 20):
            make_run(tmp_path / f"{model}{length}", seeds=2, model__name=model, task__length=length)
    found = compare([str(tmp_path)], by=["model"])
    assert "With 4 pairs p can't fall below 0.12" in list(paragraphs(found, 40, True, [], 200))
