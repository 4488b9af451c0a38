"""Comparison: statistics against known values, tables and curves over finished, running and torn runs."""

from __future__ import annotations

import json
import math
import tracemalloc

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from rnnlstm.compare import main
from rnnlstm.config.errors import ConfigError
from rnnlstm.record import files
from rnnlstm.record.files import read_json
from rnnlstm.record.reader import read_flow
from rnnlstm.reporting.charts import flow_maps, grouped
from rnnlstm.reporting.figures import learning_figure, overview_figure, save_figures
from rnnlstm.reporting.runs import differing_keys, find_runs, label
from rnnlstm.reporting.statistics import bootstrap_median, interval, wilson
from rnnlstm.reporting.tables import COSTS, STANDING, equal_keys, row, write_csv

from support.run_folders import make_run


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for (k, n), expected in {
        (81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718),
    }.items():  # fmt: skip
        assert wilson(k, n) == pytest.approx(expected, abs=5e-5)
    assert wilson(20, 20)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_intervals():
    assert interval([]) is None
    assert interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    values = list(np.random.default_rng(1).normal(size=40))
    low, high = interval(values)
    assert low == bootstrap_median(values)[0]
    assert min(values) < low < np.median(values) < high < max(values)
    # About 95 % of intervals cover the true median, and exactly as many as the ranks of their ends say.
    rng = np.random.default_rng(2)
    covered = [lo <= 0 <= hi for lo, hi in (bootstrap_median(rng.normal(size=25)) for _ in range(300))]
    assert 0.90 <= np.mean(covered) <= 0.99
    for n in range(5, 60, 2):
        lo, hi = (int(end) for end in bootstrap_median(range(1, n + 1)))
        assert 0.875 <= sum(math.comb(n, k) for k in range(lo, hi)) / 2**n <= 0.965, n


def test_a_row_groups_the_seeds(tmp_path):
    run = find_runs([str(make_run(tmp_path / "a", solved={0, 2}).parent)])[0]
    values = row(run)
    assert values["seeds"] == 3
    assert values["solved"] == 2
    assert values["median_steps_to_solve"] == 52  # 50, 52, and one that never did
    assert (values["metric_low"], values["metric"], values["metric_high"]) == (0.5, 0.6, 0.7)
    assert values["clip_rate"] == pytest.approx(0.1)
    unsolved = find_runs([str(make_run(tmp_path / "b", solved={0}))])[0]
    assert row(unsolved)["median_steps_to_solve"] is None


def test_only_what_differs_is_named(tmp_path):
    make_run(tmp_path / "a", optimizer__lr=0.01, model__max_lag=None)
    make_run(tmp_path / "b", optimizer__lr=0.003, model__name="rnn", model__init="default")
    runs = find_runs([str(tmp_path)])
    assert differing_keys(runs) == ["model.init", "model.name", "optimizer.lr"]
    assert label(runs[0], runs) == "lstm, init=chrono, lr=0.01"
    assert "task.length=50" in equal_keys(runs)
    assert "model.init" not in equal_keys(runs)
    write_csv(runs, str(tmp_path / "t.csv"))
    assert (
        (tmp_path / "t.csv")
        .read_text()
        .splitlines()[0]
        .endswith(",".join(["steps_per_second,optimizer.lr", *COSTS, *STANDING]))
    )


def test_it_works_with_one_run_with_running_ones_and_with_torn_ends(tmp_path, capsys):
    folder = make_run(tmp_path / "a", seeds=1, status="running")
    path = folder / "seed_0" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    (folder / "seed_1").mkdir()  # just made, nothing in it yet
    (folder / "seed_2").mkdir()
    (folder / "seed_2" / "summary.json").write_text('{"status": "run')
    assert main([str(tmp_path), "--figures", str(tmp_path / "pictures")]) == 0
    out = capsys.readouterr().out
    assert "1 running" in out
    with Image.open(tmp_path / "pictures" / "learning_curves.png") as picture:
        assert picture.width > 400
    make_run(tmp_path / "empty", seeds=0)
    assert len(find_runs([str(tmp_path)])) == 1
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="no runs"):
        find_runs([str(tmp_path)])


def test_curves_carry_on_what_a_finished_seed_reached(tmp_path):
    folder = make_run(tmp_path / "a")
    path = folder / "seed_2" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    run = find_runs([str(folder)])[0]
    curve = run.curve("eval/accuracy")
    assert curve.steps.tolist() == [0, 1, 2]
    assert curve.values[2].tolist() == [0, 0.3, 0.3]
    low, median, high = curve.band()
    assert (low[2], median[2], high[2]) == pytest.approx((0.2, 0.3, 0.4))
    assert run.curve("absent") is None


@pytest.mark.slow
def test_the_picture_shows_bands_baselines_and_maps(train, tmp_path):
    outcome = train("task=adding", "train.steps=6", "eval.every=2", "probe.every=2", "seeds=2")
    (run,) = find_runs([str(outcome.folder)])
    flow = run.flows["hidden"]
    steps, ratios = flow.steps, flow.by_step
    assert steps == [0, 2, 4, 6]
    assert ratios.shape == (4, 12)
    assert (ratios[:, 0] == 0).all()
    figure = learning_figure(grouped([run]))
    lines = figure.axes[1].get_lines()
    assert sorted(line.get_ydata()[0] for line in lines[1:]) == pytest.approx([1 / 12, 1 / 6])
    plt.close(figure)
    paths = save_figures([run], str(tmp_path / "pictures"))
    assert [path.name for path in paths] == ["learning_curves.png", "survival.png", "overview.png"]
    (group,) = grouped([run])
    maps = [flow_map for flow_map in flow_maps(group) if flow_map.state == "h"] * 8
    figure = overview_figure(group, maps)
    texts = [axis.get_xlabel() for part in figure.subfigs for axis in part.axes]
    assert "steps back from the answer\n2 more networks: compare --html shows their maps" in texts
    plt.close(figure)


def test_the_aggregate_is_the_median_and_band_and_counts_earlier_seeds(train):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ("task=adding", "train.steps=4", "eval.every=2")
    outcome = train(*options, "seeds=2")
    train(*options, "seed=2", "seeds=3")
    events = EventAccumulator(str(outcome.folder / "aggregate"), size_guidance={"scalars": 0}).Reload()
    final = [read_json(outcome.folder / f"seed_{seed}" / "summary.json")["loss"] for seed in range(5)]
    quartiles = np.quantile(final, (0.25, 0.5, 0.75))
    for name, value in zip(("low", "median", "high"), quartiles, strict=True):
        shown = events.Scalars(f"adding_T12/eval/loss/{name}")
        assert [event.step for event in shown] == [0, 2, 4]
        assert shown[-1].value == pytest.approx(value, rel=1e-6)
    assert events.Scalars("adding_T12/baseline/one_operand_stored")[0].value == pytest.approx(1 / 12)
    assert math.isclose(events.Scalars("adding_T12/baseline/loss")[0].value, 1 / 6, rel_tol=1e-6)


@pytest.mark.slow
def test_a_threshold_that_decides_everything_or_nothing_is_named(train, caplog):
    train("train.steps=100", "clip.threshold=1e-6", "eval.every=100", "probe=off", "name=all")
    assert "clipping fired on 100% of the updates" in caplog.text
    caplog.clear()
    train("train.steps=500", "clip.threshold=1e6", "eval.every=500", "probe=off", "train.stop_when_solved=false")
    assert "note: clipping never fired in 500 updates" in caplog.text
    caplog.clear()
    train("train.steps=100", "clip=none", "eval.every=100", "probe=off")
    assert caplog.text == ""


def test_a_large_record_is_thinned_out_and_ends_where_it_ends(tmp_path):
    """One evaluation and one probe in fifty lines: all of them stay. Memory does not grow with the record."""
    run, count = make_run(tmp_path / "run", seeds=1), 20_000
    with (run / "seed_0" / "metrics.jsonl").open("w") as file:
        for step in range(count):
            line = {"step": step, "clip/rate": step / count, "train/loss": 1.0}
            line |= {"eval/loss": 2.0 - step / count} if step % 50 == 0 else {}
            line |= {"gate/forget_mean": 0.5} if step % 50 == 25 else {}
            file.write(json.dumps(line) + "\n")
    (record,) = find_runs([str(tmp_path)])
    tracemalloc.start()
    (series,) = record.series
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert set(series["eval/loss"]) == set(range(0, count, 50))
    assert set(series["gate/forget_mean"]) == set(range(25, count, 50))
    assert 1000 < len(series["clip/rate"]) < 4000
    assert {0, count - 1} <= set(series["clip/rate"])
    assert record.ends("clip/rate") == (0.0, (count - 1) / count)


def test_lines_that_are_long_are_thinned_out_by_their_bytes(tmp_path, monkeypatch):
    path = tmp_path / "flow.jsonl"
    path.write_text("".join(json.dumps({"step": k, "hidden": [[0.5] * 200]}) + "\n" for k in range(100)))
    monkeypatch.setattr(files, "MOST_BYTES", 20_000)
    steps = [step for step, _ in read_flow(path, most=1000)]
    assert steps[0] == 0
    assert steps[-1] == 99
    assert 5 < len(steps) < 30
    assert [step for step, _ in read_flow(path)] == list(range(100))
