"""The same seed of the same configuration counts once, in whatever folders it lies."""

from __future__ import annotations

import csv
import shutil

import pytest

from rnnlstm.compare import main
from rnnlstm.reporting.html.page import page
from rnnlstm.reporting.runs import counts
from rnnlstm.reporting.selection import compare
from rnnlstm.reporting.statistics import interval

from support.run_folders import make_run

SIX = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("by", [(), ("--by", "model")])
def test_a_copied_run_folder_is_no_more_seeds(tmp_path, capsys, by):
    make_run(tmp_path / "runs" / "a", seeds=6, metrics=SIX)
    table = tmp_path / "table.csv"
    assert main([str(tmp_path / "runs"), *by, "--csv", str(table)]) == 0
    assert "counted once" not in capsys.readouterr().out
    before = rows(table)
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "b")
    assert main([str(tmp_path / "runs"), *by, "--csv", str(table)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "counted once" in line]
    assert line.startswith("6 seeds are in another folder of the same configuration, too, and counted once (")
    assert "differ" not in line
    assert rows(table) == before
    assert before[0]["seeds"] == "6"
    low, high = interval(SIX)
    assert (float(before[0]["metric_low"]), float(before[0]["metric_high"])) == (low, high)


def test_one_configuration_in_two_folders_is_one_row(tmp_path, capsys):
    make_run(tmp_path / "runs" / "a", seeds=2, launcher__name="serial", checkpoint__every=5)
    make_run(tmp_path / "runs" / "b", seeds=3, launcher__name="local", checkpoint__every=7)
    assert main([str(tmp_path / "runs"), "--csv", str(tmp_path / "t.csv")]) == 0
    assert "2 seeds are in another folder" in capsys.readouterr().out
    (row,) = rows(tmp_path / "t.csv")
    assert (row["seeds"], row["configurations"], row["missing"]) == ("3", "1", "0")
    comparison = compare([str(tmp_path / "runs")])
    (run,) = comparison.rows
    assert [seed["seed"] for seed in run.seeds] == [0, 1, 2]
    assert [folder.parent.name for folder, _ in run.records] == ["a", "a", "b"]
    assert len(run.series) == 3


def test_a_gap_that_another_folder_fills_is_not_missing(tmp_path):
    for name, left in (("a", [1]), ("b", [0, 2])):
        folder = make_run(tmp_path / name, seeds=3)
        for seed in left:
            shutil.rmtree(folder / f"seed_{seed}")
    (run,) = compare([str(tmp_path)]).rows
    assert counts(run)["missing"] == 0
    assert len(run.seeds) == 3


def test_a_label_keeps_rows_apart_but_pools_once(tmp_path):
    for name in ("mine", "yours"):
        make_run(tmp_path / name, seeds=4, name=name)
    assert [len(run.seeds) for run in compare([str(tmp_path)]).rows] == [4, 4]
    (pooled,) = compare([str(tmp_path)], by=["model"]).rows
    assert len(pooled.seeds) == 4
    assert [len(run.seeds) for run in compare([str(tmp_path)], by=["name"]).rows] == [4, 4]


def test_where_results_differ_the_first_counts_and_the_line_says_so(tmp_path, capsys):
    make_run(tmp_path / "second", seeds=2, metrics=[0.5, 0.6], summaries=[{"loss": 0.1}])
    make_run(tmp_path / "first", seeds=2, metrics=[0.9, 0.6], summaries=[{"loss": 1.5, "steps_per_second": 3.0}])
    for order, metric in ((["first", "second"], 0.9), (["second", "first"], 0.5)):
        places = [str(tmp_path / name) for name in order]
        assert main([*places, "--by", "model"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "counted once" in line]
        assert "; the results of 1 differ, the first counts (" in line
        assert f"{order[0]}/seed_0, not " in line
        (run,) = compare(places).rows
        assert run.values("metric") == [metric, 0.6]
        shown = page(compare(places))
        assert "the results of 1 differ, the first counts" in shown
        assert "2 trained networks" in shown


def test_a_seed_that_has_ended_counts_before_one_that_has_not(tmp_path):
    make_run(tmp_path / "a", seeds=1, status="interrupted", metrics=[0.1])
    make_run(tmp_path / "b", seeds=1, metrics=[0.9])
    comparison = compare([str(tmp_path / "a"), str(tmp_path / "b")])
    assert comparison.rows[0].values("metric") == [0.9]
    assert "differ" not in comparison.notes[0]


def test_long_values_that_end_differently_are_other_configurations(tmp_path):
    many = list(range(100, 140))
    make_run(tmp_path / "a", eval__lengths=many)
    make_run(tmp_path / "b", eval__lengths=[*many, 7])
    make_run(tmp_path / "c", seeds=4, eval__lengths=[*map(float, many)])
    assert sorted(len(run.members) for run in compare([str(tmp_path)]).rows) == [1, 2]


@pytest.mark.slow
def test_figures_and_page_of_a_copied_folder_are_those_of_one(tmp_path):
    make_run(tmp_path / "a", seeds=3, solved={0})
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    pictures, report = tmp_path / "pictures", tmp_path / "report.html"
    assert main([str(tmp_path), "--figures", str(pictures), "--html", str(report)]) == 0
    assert main([str(tmp_path / "a"), "--figures", str(tmp_path / "one")]) == 0
    for path in sorted(pictures.iterdir()):
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
    text = report.read_text()
    assert "1 configuration, 3 trained networks" in text
    assert "3 seeds are in another folder of the same configuration" in text
