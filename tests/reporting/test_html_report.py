"""The report as a page: whole, self-contained, accessible, escaped; made from real runs and from damaged ones."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import webbrowser

import numpy as np
import pytest

from rnnlstm.compare import main
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.environment import ENVIRONMENT
from rnnlstm.record.files import read_json, read_lines, write_json
from rnnlstm.reporting.charts import (
    MOST_GROUPS,
    MOST_POINTS,
    MOST_SHOWN,
    Axis,
    Chart,
    Line,
    number,
    round_ticks,
    step_line,
)  # fmt: skip
from rnnlstm.reporting.colours import STYLES
from rnnlstm.reporting.html import page as page_module
from rnnlstm.reporting.html.page import page
from rnnlstm.reporting.html.parts import HERE, Report, element, stylesheet, text
from rnnlstm.reporting.html.svg import plot
from rnnlstm.reporting.runs import Run, find_runs
from rnnlstm.reporting.selection import Comparison, compare
from rnnlstm.reporting.statistics import SolveTimes, solved_share
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support.commands import train as train_in_process
from support.html_reader import Reader
from support.run_folders import make_run
from support.training import SMALL

pytestmark = pytest.mark.slow

KEYS = [
    "in-short", "results", "learning", "solving", "seed-by-seed", "gradient", "gates", "clipping", "answers", "cost",
    "reproduce",
]  # fmt: skip
WITH_REACH = [*KEYS[:4], "reach", *KEYS[4:]]
EVIL = "<script>alert(1)</script>\"'&\u202e\x07"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """An RNN and an LSTM, two seeds each, six updates."""
    root = tmp_path_factory.mktemp("sweep")
    short = ("train.steps=6", "eval.every=2", "probe.every=2", "log.every=1", "seeds=2", "clip.threshold=0.05")
    for model in ("rnn", "lstm"):
        (job,) = compose_jobs([*SMALL, *short, f"model={model}", f"runs_root={root}"])
        train_run(make_plan(job.config), job.folder, Progress())
    return root


@pytest.fixture
def runs(sweep, tmp_path):
    """A copy that may be damaged."""
    shutil.copytree(sweep, tmp_path / "runs")
    return tmp_path / "runs"


def read(root, where=(), by=(), against=()) -> Reader:
    reader = Reader(page(compare([str(root)], where, by), against))
    assert reader.errors == []
    return reader


def check_whole(reader: Reader, keys=KEYS) -> None:
    """What holds of every report."""
    ids = reader.ids()
    assert len(ids) == len(set(ids))
    for e in reader.elements:
        assert e.tag not in ("script", "iframe", "object", "embed", "link", "form", "base")
        for name, value in e.attributes.items():
            assert not name.startswith("on"), f"<{e.tag} {name}>"
            if name in ("href", "src", "xlink:href", "action", "srcset"):
                assert value.startswith(("#", "data:image/png;base64,")), value
            if name in ("aria-labelledby", "aria-describedby"):
                assert set(value.split()) <= set(ids), f"<{e.tag}> is named by {value}"
        if e.attributes.get("href", "").startswith("#"):
            assert e.attributes["href"][1:] in ids
    assert [e.attributes["id"] for e in reader.all("section")] == keys
    levels = [int(e.tag[1]) for e in reader.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), "a level of headings is skipped"


def test_a_page_of_a_real_sweep(sweep):
    reader = read(sweep)
    check_whole(reader)
    policy = next(e.attributes["content"] for e in reader.all("meta") if "http-equiv" in e.attributes)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'none'")
    assert "url(" not in reader.all("style")[0].text
    assert "@import" not in reader.all("style")[0].text
    assert {"header", "nav", "main", "footer"} <= {e.tag for e in reader.elements}
    assert reader.all("a")[0].attributes["href"] == "#content"  # the skip link comes first
    assert reader.all("html")[0].attributes["lang"] == "en"
    shown = reader.all("main")[0].text
    for words in ("baseline: no input seen", "rnn", "lstm", "forget gate", "Right answer:", "threshold"):
        assert words in shown


def test_every_figure_is_named_and_every_table_can_be_read_aloud(sweep):
    reader = read(sweep)
    drawings = [e for e in reader.all("svg") if e.attributes.get("aria-hidden") != "true"]
    assert len(drawings) >= 12
    for drawing in drawings:
        assert drawing.attributes["role"] == "img"
        assert drawing.attributes["aria-labelledby"]
    assert len(reader.all("figure")) == len(reader.all("figcaption"))
    for figure in reader.all("figure"):
        assert "aria-labelledby" in figure.attributes
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all(e.attributes.get("scope") in ("row", "col") for e in reader.all("th"))
    regions = [e for e in reader.all("div") if e.attributes.get("class") == "scroll"]
    assert all(e.attributes["tabindex"] == "0" and e.attributes["aria-label"] for e in regions)
    verdicts = [e for e in reader.all("span") if e.attributes.get("class") == "remark"]
    assert verdicts
    assert all(re.match(r"\((right|wrong)", e.text) for e in verdicts), "right and wrong are words, too"


def test_its_numbers_are_those_of_the_record(sweep):
    reader = read(sweep)
    cells = [e.text for e in reader.all("td")]
    for run in find_runs([str(sweep)]):
        metric = sorted(float(f"{value:.3g}") for value in run.values("metric"))
        assert any(all(f"{value:.3g}" in cell for value in metric) for cell in cells if "accuracy" in cell)
        lines = [list(read_lines(run.folder / f"seed_{seed}" / "metrics.jsonl")) for seed in (0, 1)]
        losses = [[line["eval/loss"] for line in seed if "eval/loss" in line][-1] for seed in lines]
        assert number(float(np.median(losses))) in cells
        flow = run.flows["hidden"]
        last = [list(read_lines(run.folder / f"seed_{seed}" / "flow.jsonl"))[-1]["hidden"][0] for seed in (0, 1)]
        by_hand = np.median([np.log10(norms[11] / norms[0]) for norms in last])
        assert flow.last[11] == pytest.approx(by_hand)
        assert flow.by_step.shape == (4, 12)


def test_hostile_texts_stay_texts(runs):
    evil_run, other = sorted(runs.glob("keyword_T12/*"))
    config = (evil_run / "config.yaml").read_text()
    config = config.replace("name: null", f"name: {json.dumps(EVIL)}").replace(
        "init: chrono", f"init: {json.dumps(EVIL)}"
    )
    config = config.replace("filler: null", f"filler: {json.dumps(EVIL)}").replace(
        "name: keyword", f"name: {json.dumps(EVIL)}"
    )
    (evil_run / "config.yaml").write_text(config)
    for seed in (0, 1):
        place = evil_run / f"seed_{seed}"
        summary = read_json(place / "summary.json")
        write_json(place / "summary.json", {**summary, "metric_name": EVIL, "status": EVIL, "reason": EVIL})
        lines = (place / "metrics.jsonl").read_text().splitlines()
        names = {"eval/": EVIL, "baseline/": EVIL, "clip/largest/": EVIL, "gate_by_kind/forget_": EVIL}
        evil_tags = {tag + name: 0.5 for tag, name in names.items()} | {f"gate/{EVIL}_mean": 0.5}
        lines = [json.dumps({**json.loads(line), **evil_tags}) for line in lines]
        (place / "metrics.jsonl").write_text("\n".join(lines))
        flow = [json.dumps({**line, EVIL: line["hidden"]}) for line in read_lines(place / "flow.jsonl")]
        (place / "flow.jsonl").write_text("\n".join(flow))
        looks = [
            {"step": 6, "samples": [{"text": f"{EVIL} → {EVIL}", "answer": EVIL, "right": False}]},
            {"step": 7, "samples": [{"text": 3, "answer": None}, "x"]},
        ]
        (place / "samples.jsonl").write_text("\n".join(map(json.dumps, looks)))
    write_json(
        evil_run / ENVIRONMENT, {"trained": [{"seeds": [0, 1], "processor": EVIL, "began": EVIL, EVIL: EVIL}, 3]}
    )
    write_json(other / ENVIRONMENT, {"trained": "here"})
    written = page(compare([str(runs)]))
    assert "<script" not in written
    assert "\u202e" not in written
    assert "\x07" not in written
    assert written.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    reader = Reader(written)
    assert reader.errors == []
    check_whole(reader)


def test_a_plugin_task_with_hostile_texts(tmp_path):
    (tmp_path / "hostile.py").write_text(
        "import rnnlstm\n"
        "from rnnlstm.tasks.adding import Adding\n"
        "@rnnlstm.register_task('hostile')\n"
        "class Hostile(Adding):\n"
        "    def decode(self, batch, b): return '<script>alert(1)</script> → <b>'\n"
        "    def answer(self, outputs, batch, b): return '<img src=x onerror=alert(2)>'\n"
    )
    done = train_in_process(
        tmp_path, "plugins=[hostile]", "task=hostile", "train.steps=2", "eval.every=2", "probe.every=2",
        "eval.samples=10", "model.hidden_size=4", "task.length=10",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reader = read(tmp_path / "runs")
    check_whole(reader)
    assert "<script>alert(1)</script>" in reader.all("main")[0].text
    assert "<img src=x onerror=alert(2)>" in reader.all("main")[0].text
    assert "plugins=[hostile]" in reader.all("pre")[0].text


def test_one_run_and_runs_without_instruments(tmp_path, train):
    outcome = train("train.steps=2", "eval.every=1", "probe=off", "clip=none")
    reader = read(outcome.folder)
    check_whole(reader)
    shown = reader.all("main")[0].text
    assert "not recorded (probe=off" in shown
    assert "No gates were recorded" in shown
    assert "No decoded sequences" in shown


def test_what_is_remembered_stands_beside_what_can_be_learned(runs):
    reader = read(runs)
    (caption,) = [e for e in reader.all("figcaption") if e.attributes["id"] == "g1-influence-caption"]
    assert "what the network remembers" in caption.text
    names = [e.text for e in reader.all("title") if ": keyword, 10–99 back: " in e.text]
    assert len(names) == 4  # two networks, two charts
    for path in runs.rglob("metrics.jsonl"):  # a record of another's: odd names, numbers that can't be drawn
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[-1] |= {
            f"counterfactual/changed_{EVIL}_lag_10": 0.5,
            f"counterfactual/gradient_{EVIL}_lag_10": -1.0,
            "counterfactual/changed_x_lag_7": 1.0,
            "counterfactual/changed_x_lag_1": 1e308,
            "counterfactual/changed_y_lag_1": math.nan,
            "counterfactual/gradient_y_lag_1": math.inf,
        }
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    check_whole(read(runs))


@pytest.mark.parametrize("status", ["running", "diverged", "failed", "interrupted"])
def test_runs_that_are_not_done(tmp_path, status):
    make_run(tmp_path / "a", status=status)
    make_run(tmp_path / "b", model__name="rnn", solved={0, 1, 2})
    (tmp_path / "a" / "seed_1" / "metrics.jsonl").write_text('{"step": 1, "eval/lo')
    (tmp_path / "a" / "seed_2" / "metrics.jsonl").unlink()
    reader = read(tmp_path)
    check_whole(reader)
    assert f"3 {status}" in reader.all("main")[0].text
    assert ("still training" in reader.all("header")[0].text) == (status == "running")


def test_numbers_that_are_none(runs):
    for place in runs.glob("*/*/seed_*"):
        for name in ("metrics.jsonl", "flow.jsonl"):
            lines = list(read_lines(place / name))
            for k, line in enumerate(lines):
                for tag, value in line.items():
                    if tag != "step":
                        bad = [float("nan"), float("inf"), -float("inf"), "text", None, 10**400][k % 6]
                        line[tag] = (
                            [[bad if isinstance(bad, float) else 0.0] * 12] if isinstance(value, list) else bad
                        )
            lines += [
                {"step": "x"},
                {"step": 10**400, "eval/loss": 1.0},
                {"eval/loss": 1.0},
                {"step": 1, "hidden": 3},
            ]
            (place / name).write_text("\n".join(json.dumps(line) for line in lines))
        summary = read_json(place / "summary.json")
        write_json(place / "summary.json", {**summary, "loss": float("nan"), "ms_per_update": float("inf")})
    check_whole(read(runs))


def test_twenty_configurations_are_bounded_and_small(sweep, tmp_path):
    for k in range(20):
        source = sorted(sweep.glob("keyword_T12/*"))[k % 2]
        place = shutil.copytree(source, tmp_path / "many" / f"run{k}", ignore=shutil.ignore_patterns("*tfevents*"))
        config = (place / "config.yaml").read_text()
        (place / "config.yaml").write_text(config.replace("lr: 0.003", f"lr: {0.001 * (k + 1)}"))
    runs = find_runs([str(tmp_path / "many")])
    (group,) = Report.of(Comparison(runs)).groups
    assert len(group.shown) == MOST_SHOWN
    assert {shown.run.config["model.name"] for shown in group.shown} == {"rnn", "lstm"}
    written = page(Comparison(runs))
    assert len(written.encode()) < 2_000_000
    reader = Reader(written)
    assert f"{20 - MOST_SHOWN} more in the table alone" in reader.all("main")[0].text
    rows = [e for e in reader.all("tr") if "tbody" in e.inside]
    assert sum("accuracy" in row.text for row in rows) >= 20


def test_when_they_solve_it(tmp_path):
    make_run(
        tmp_path / "a", solved={0, 1}, summaries=({}, {}, {"status": "interrupted", "steps": 70}), eval__every=10
    )
    make_run(tmp_path / "b", model__name="rnn", summaries=({"status": "diverged", "reason": "loss is NaN"},))
    reader = read(tmp_path)
    check_whole(reader)
    shown = reader.tables()["keyword, T = 50: when they solve it"]
    assert [row[2:] for row in shown] == [["51 (50\u00a0…\u00a0> 70)", "70"], ["> 100", "100"]]
    (drawing,) = [e for e in reader.all("svg") if e.attributes.get("aria-labelledby", "").startswith("g1-solved")]
    assert "2 of 3 solved it, the first at update 50; share at the end 0.667" in drawing.text
    assert "followed up to update 70" in drawing.text
    assert "half of the seeds" in drawing.text


@pytest.mark.parametrize("third", ["stuck", "between"])
def test_what_is_said_in_short(tmp_path, third):
    """A network that is better than guessing without a gradient isn't said to have stayed at guessing."""
    losses = {"a": 0.1, "b": 2.0, "c": 2.0 if third == "stuck" else 1.2}
    for k, (name, loss) in enumerate(losses.items()):
        folder = make_run(
            tmp_path / name, model__name=("lstm", "gru", "rnn")[k], solved={0, 1, 2} if name == "a" else (),
            summaries=[{"loss": loss, "status": "done"}] * 3,
        )  # fmt: skip
        for seed in range(3):
            far = [1.0 if name == "a" else 10.0**-lag for lag in range(50)]
            (folder / f"seed_{seed}" / "flow.jsonl").write_text(json.dumps({"step": 9, "hidden": [far]}) + "\n")
    shown = read(tmp_path).all("main")[0].text
    assert "the gradient tells those that solve the task" in shown
    assert ("Between them stands rnn" in shown) == (third == "between")


def test_how_far_they_reach(tmp_path):
    for length, solved in {20: {0, 1, 2}, 50: {0, 1}, 80: set()}.items():
        make_run(tmp_path / f"lstm{length}", task__length=length, solved=solved, summaries=[{"status": "done"}] * 3)
        make_run(
            tmp_path / f"rnn{length}", task__length=length, model__name="rnn", summaries=[{"status": "done"}] * 3
        )
    reader = read(tmp_path)
    check_whole(reader, WITH_REACH)
    lstm, rnn = reader.tables()["Solved, by length: keyword"]
    assert lstm[:2] == ["lstm", "50"]
    assert [cell.partition(" (")[0] for cell in lstm[2:]] == ["3 of 3", "2 of 3", "0 of 3"]
    assert rnn[:2] == ["rnn", "not even 20"]
    (drawing,) = [e for e in reader.all("svg") if e.attributes.get("aria-labelledby", "").startswith("t1-reach")]
    assert "lstm: 50; rnn: not even 20" in drawing.text
    assert "lstm: 2 of 3" in drawing.text


def test_a_kind_of_figure_is_explained_once(tmp_path):
    for length in (20, 50):
        make_run(tmp_path / f"run{length}", task__length=length)
    reader = read(tmp_path)
    captions = [e.text for e in reader.all("figcaption")]
    assert len([words for words in captions if "A line climbs by a step" in words]) == 1
    assert len([words for words in captions if "as in the first of these figures" in words]) >= 1
    check_whole(reader, WITH_REACH)  # and what it points to is there


def test_a_line_of_steps_holds_each_value_until_the_next():
    times = SolveTimes.of([10, 20, 30], [True, True, False])
    (group,) = Report.of(Comparison([Run(HERE, {}, [])])).groups
    line = step_line(group.shown[0], times, solved_share(times, 40), True)
    assert line.x.tolist() == [0, 10, 10, 20, 20, 30, 30]
    assert line.y == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert np.isnan(line.low[:2]).all()
    assert (line.low[2:] < line.y[2:]).all()
    many = SolveTimes.of(np.arange(1, 1001), np.ones(1000, dtype=bool))
    line = step_line(group.shown[0], many, solved_share(many, 1000), False)
    assert len(line.x) <= MOST_POINTS
    assert (np.diff(line.y)[::2] == 0).all()
    assert line.low is None


def test_seed_by_seed(tmp_path, capsys):
    common = {"train__batch_size": 64, "eval__samples": 100, "seeds": 6}
    make_run(tmp_path / "a", solved={0, 1, 2, 3, 4, 5}, metrics=[1.0] * 6, **common)
    make_run(tmp_path / "b", model__name="rnn", metrics=[0.5, 0.4, 0.5, 0.6, 0.5, 0.5], **common)
    reader = read(tmp_path)
    check_whole(reader)
    (row,) = reader.tables()["keyword, T = 50: differences from lstm"]
    assert row[0] == "rnn"
    assert row[1].startswith("−0.5 [−0.")
    assert row[2] == "0 of 6, p = 0.031"
    assert row[4] == "0 of 6, p = 0.031"
    ids = reader.ids()
    assert "g1-forest-metric-title" in ids
    assert "g1-forest-steps-title" in ids
    assert "the lowest loss" in reader.all("main")[0].text
    other = read(tmp_path, against=["model=rnn"])
    (row,) = other.tables()["keyword, T = 50: differences from rnn"]
    assert row[1].startswith("+0.5 [+0.")
    assert "--against model=rnn" in other.all("main")[0].text
    assert main([str(tmp_path), "--html", str(tmp_path / "r.html"), "--against", "model=gru"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_networks_without_data_in_common_are_not_paired(tmp_path):
    make_run(tmp_path / "a", train__batch_size=64)
    make_run(tmp_path / "b", train__batch_size=32)
    assert "No two configurations have two seeds" in read(tmp_path).all("main")[0].text


def test_what_became_of_seeds_that_are_not_done(tmp_path):
    fates = ({"status": "diverged", "reason": "the loss is <b>NaN</b>"}, {"status": "failed", "reason": "no memory"})
    folder = make_run(tmp_path / "a", seeds=7, summaries=fates)
    (folder / "seed_4" / "summary.json").unlink()
    write_json(folder / "seed_5" / "summary.json", {**read_json(folder / "seed_5/summary.json"), "status": "running"})
    write_json(folder / ".lock", {"pid": 2**22 + 1, "host": socket.gethostname()})
    make_run(tmp_path / "b", model__name="rnn")
    reader = read(tmp_path)
    check_whole(reader)
    told = [e.text for e in reader.all("li")]
    for state in ("stopped", "diverged", "failed", "missing"):
        assert any(words.startswith(f"1 {state}: ") for words in told), state
    assert "1 diverged: the loss is <b>NaN</b> (lstm)" in told
    assert "1 failed: no memory (lstm)" in told
    cell = reader.tables()["keyword, T = 50"][0][5].replace("\u00a0", " ")
    assert cell == "3 done, 1 stopped, 1 diverged, 1 failed, 1 missing"
    assert "still training" not in reader.all("header")[0].text
    assert not any("1 diverged" in e.text for e in read(tmp_path / "b").all("li"))


def test_a_page_on_a_selection_says_so(tmp_path):
    for k, (model, lr) in enumerate([("rnn", 0.1), ("rnn", 0.2), ("lstm", 0.1), ("lstm", 0.2)]):
        make_run(tmp_path / f"run{k}", model__name=model, optimizer__lr=lr, task__length=50 + k % 2)
    reader = read(tmp_path, where=["model=rnn,lstm", "length=50"])
    check_whole(reader)
    head = reader.all("header")[0].text
    assert "Only runs with model=rnn,lstm and length=50." in head
    assert "2 configurations, 6 trained networks" in head
    assert "runs --where model=rnn,lstm --where length=50 --html report.html" in reader.all("main")[0].text
    pooled = read(tmp_path, by=["model"])
    check_whole(pooled)
    assert "2 groups by model.name" in pooled.all("header")[0].text
    assert "4 configurations, 12 trained networks" in pooled.all("header")[0].text
    rows = pooled.tables()["keyword"]
    assert [row[0] for row in rows] == ["lstm", "rnn"]
    assert [row[5] for row in rows] == ["6\u00a0done", "6\u00a0done"]
    (told,) = re.findall(r"pooled over ([^.]*\.[^.]*\.[a-z]*)", pooled.all("main")[0].text)
    assert set(told.split(", ")) == {"task.length", "optimizer.lr"}


def test_records_without_a_verdict_show_the_answer_alone(runs):
    for path in runs.rglob("samples.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            for sample in line["samples"]:
                del sample["right"]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reader = read(runs)
    check_whole(reader)
    assert "Right answer:" in reader.all("main")[0].text
    assert not [e for e in reader.all("span") if e.attributes.get("class") in ("right", "wrong", "remark")]


def test_it_is_written_whole_or_not_at_all(sweep, tmp_path, monkeypatch, capsys):
    target = tmp_path / "report.html"
    target.write_text("old")

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module, "write_output", full)
    assert main([str(sweep), "--html", str(target)]) == 74
    assert "No space left" in capsys.readouterr().err
    assert target.read_text() == "old"
    monkeypatch.undo()
    for place in (tmp_path / "nowhere" / "report.html", tmp_path):
        assert main([str(sweep), "--html", str(place)]) == 74
        assert "Traceback" not in capsys.readouterr().err
    assert main([str(sweep), "--html", str(target)]) == 0
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert list(tmp_path.glob(".*tmp")) == []


def test_open_shows_it(sweep, tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    target = tmp_path / "a report.html"
    assert main([str(sweep), "--html", str(target), "--open"]) == 0
    assert opened == [target.as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert main([str(sweep), "--html", str(target), "--open"]) == 0
    assert "No browser was found" in capsys.readouterr().out
    assert main([str(sweep), "--open"]) == 2
    assert "--open shows the report that --html FILE writes" in capsys.readouterr().err


def test_a_line_is_thinned_and_has_gaps(tmp_path):
    x = np.arange(1000.0)
    y = np.where((x > 400) & (x < 600), np.nan, x)
    drawn = str(plot("k", Chart("t", "d", Axis("x"), Axis("y"), [Line("l", 0, x, y)])))
    (path,) = re.findall(r' d="([^"]*)"', drawn)
    assert path.count("M") == 2
    assert 100 < path.count("L") < MOST_POINTS
    assert "nan" not in drawn
    assert round_ticks(0, 10) == [(k, str(k)) for k in (0, 2, 4, 6, 8, 10)]
    assert [words for _, words in round_ticks(-6, 0, log=True)] == ["10⁻⁶", "10⁻⁴", "0.01", "1"]


def test_markup_escapes_what_is_put_in():
    made = element("p", EVIL, element("b", "x"), title=EVIL, stroke_width=1.26)
    assert str(made).count("&lt;script&gt;") == 2
    assert 'stroke-width="1.3"' in made
    assert "<b>x</b>" in made
    assert str(text("a\u202eb\x00")) == "a\\u202eb\\x00"


def test_colours_stand_out_in_both_themes():
    def luminance(colour: str) -> float:
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    blocks = re.findall(r":root \{(.*?)\}", stylesheet(), re.DOTALL)
    assert len(blocks) == 3  # light, dark, print
    for block in blocks:
        colours = dict(
            re.findall(
                r"--([\w-]+): (#[0-9a-f]{6});", block.replace("#fff;", "#ffffff;").replace("#000;", "#000000;")
            )
        )
        paper = luminance(colours["paper"])

        def contrast(name, paper=paper, colours=colours):
            lighter, darker = sorted((luminance(colours[name]), paper), reverse=True)
            return (lighter + 0.05) / (darker + 0.05)

        contrasts = {f"c{k}": contrast(f"c{k}") for k in range(len(STYLES))}
        assert min(contrasts.values()) >= 3, contrasts
        texts = [name for name in ("ink", "muted", "accent", "right", "wrong") if name in colours]
        assert all(contrast(name) >= 4.5 for name in texts), {name: contrast(name) for name in texts}


def test_it_needs_neither_torch_nor_matplotlib(sweep, tmp_path):
    code = (
        "import sys, rnnlstm.compare as m\n"
        f"code = m.main([{str(sweep)!r}, '--html', {str(tmp_path / 'r.html')!r}])\n"
        "heavy = {'torch', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_many_tasks_are_bounded_too(tmp_path):
    for length in range(MOST_GROUPS + 2):
        make_run(tmp_path / f"run{length}", task__length=10 + length)
    reader = read(tmp_path)
    check_whole(reader, WITH_REACH)
    assert len([e for e in reader.ids() if e.endswith("-learning")]) == MOST_GROUPS
    assert "2 further tasks or lengths without figures" in reader.all("main")[0].text
