"""Studies plan whole, judge both ways, choose rates by the rule, go on where they stopped, and make a page."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from rnnlstm.reproduce import main
from rnnlstm.studies import studies
from rnnlstm.studies.figure import save_figure
from rnnlstm.studies.results import csv_text, read, result, text_table, verdict, write
from rnnlstm.studies.runner import Runner, StoppedError, Trial, choose, compose
from rnnlstm.studies.study import GRID, Arm, Check, Minutes, Row, Rows, Setting, Study, Sweep
from rnnlstm.training import loop as run_module
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from results_overview import NETWORKS, overview_figure, save_overview
from results_overview import STUDIES as OVERVIEW_STUDIES
from results_page import page

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
        asked = "model.backend=reference" in condition.arm.overrides  # where a scan is slower than steps
        assert plan.backend == "fused" or not job.config.surgery.nothing or asked


@pytest.mark.parametrize(("study", "size"), EVERY)
def test_verdicts_come_from_five_fresh_seeds_and_rates_from_one_grid(study, size):
    sweep = study.sweep(size)
    if sweep is None:
        return
    assert not set(sweep.final) & set(sweep.tuning)
    assert len(sweep.final) >= 5
    assert set(sweep.grid) <= set(GRID)
    if size != "quick":
        assert sweep.grid == GRID
    names = {setting.name for setting in sweep.settings}
    for setting in sweep.settings:
        assert setting.rate is None or setting.rate in GRID
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
    "copy": lambda good: [
        row("T=10", arm, NEVER, baseline=1.0, loss=loss[not good])
        for arm, loss in (("tanh RNN", (0.99, 0.5)), ("LSTM, default", (0.9, 0.95)), ("LSTM, chrono", (0.8, 0.95)),
                          ("LSTM, forget bias 1", (0.9, 0.95)), ("tanh RNN, orthogonal", (0.3, 0.96)),
                          ("linear, orthogonal", (0.5, 0.96)))
    ],
    "clipping": lambda good: [
        row("adding T=50, SGD at 0.01", "clip none", NEVER, diverged=3 if good else 0),
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
                           ("LSTM, chrono (memory)", 0.02 if good else 0.9999))
    ],
    "long_lag": lambda good: [
        *(row(f"{v}, 20", "LSTM of 1997", FAST if good else NEVER) for v in ("2a", "2b", "2c")),
        row("2c, 20", "tanh RNN", NEVER if good else FAST),
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
          for arm, count in (("tanh", 5), ("σ", 0), ("2σ−1", 2), ("σ(4x)", 0), ("ReLU", 1))
          for count in [count if good else 4 - min(count, 4)]),
        *(row("adding T=50, lr 0.01", f"{start}, clip {clip}", NEVER, dead=dead if good else 1 - dead,
              diverged=(clip == "none") == good)
          for start in ("ReLU", "IRNN") for clip, dead in (("none", 0.9), ("norm", 0.4))),
    ],
    "cost": lambda good: [
        row("keyword T=20", "LSTM, chrono", FAST if good else SLOW),
        *(row("keyword T=20", f"tanh RNN, equal {b}", SLOW if good else FAST)
          for b in ("units", "parameters", "time")),
        *(row("keyword T=20", f"LSTM, chrono, {k} layers", SLOW if good else FAST) for k in (2, 4)),
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
        return Sweep(settings, grid=(1e-3, 1e-2), tuning_seeds=2, final_seeds=5, common=small, tuning_samples=6)

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
    whole = runner(study, tmp_path / "whole", said).rows()
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
        Runner(Tiny(), "quick", place, said.append, lambda job: Stopping()).rows()
    assert len(trained) == 3
    assert list(trained[-1].glob("checkpoints/*"))
    rows = runner(Tiny(), place, said).rows()
    assert rows == whole
    assert len(trained) == 3 + 9 - 2  # of 4 tuning and 5 final runs two had ended before

    # A third time everything is read.
    monkeypatch.setattr(run_module, "train_run", lambda *a: pytest.fail("trained again"))
    idle = Tiny()
    third = runner(idle, place, said)
    assert third.rows() == rows
    assert idle.looked == 0
    assert third.seconds() > 0
    assert "tuning: all 4 runs are there" in said


def test_a_result_is_written_and_read_and_its_page_says_no_more(tmp_path):
    study = studies()["adding"]
    rows = QUICK_TABLES["adding"](True)
    data = result(study, "quick", rows, 12.0)
    paths = write(study, data, tmp_path / "results")
    assert all(path.stat().st_size > 0 for path in paths)
    assert paths[2].stat().st_size < 60_000
    assert read("adding", "quick", tmp_path / "results") == json.loads(paths[0].read_text())
    assert [Row.from_data(r) for r in data["rows"]] == rows
    text = page(tmp_path / "results", tmp_path)
    assert "results/quick/adding.png" in text
    assert "**pass** (3 of 3)" in text
    assert text.count("Not run.") == len(studies()) - 1
    assert str(tmp_path) not in text
    (tmp_path / "results" / "reading").mkdir()
    (tmp_path / "results" / "reading" / "adding.md").write_text("*What it means.* A gate.\n")
    assert "\n\n*What it means.* A gate.\n\n" in page(tmp_path / "results", tmp_path)
    for other in studies().values():
        assert f"## {other.name}\n" in text


def test_the_overview_needs_three_studies_and_stands_on_the_page(tmp_path):
    (tmp_path / "standard").mkdir()
    for name in OVERVIEW_STUDIES:
        assert save_overview(tmp_path) is None, f"drawn without {name}"
        shutil.copy(COMMITTED / f"standard/{name}.json", tmp_path / "standard")
    assert "overview" not in page(tmp_path, tmp_path)
    assert save_overview(tmp_path).stat().st_size > 10_000
    assert "](overview.png)" in page(tmp_path, tmp_path)


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
    assert 0.1 < chrono.get_ydata()[0] < 1
    assert list(lines[1]["LSTM, chrono"].get_ydata()) == [
        tables["keyword"](f"T={T}", "LSTM, chrono").median("metric") for T in (50, 100, 200)
    ]
    drawn = [line for line in figure.axes[2].get_lines() if line.get_label() == "LSTM, PyTorch's start"]
    assert [line.get_fillstyle() for line in drawn] == ["full", "full", "none"]
    assert [float(line.get_ydata()[0]) for line in drawn] == [750, 1200, 4000]
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
