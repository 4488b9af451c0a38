"""The comparison as a command: selecting, grouping, counting, very many runs, and runs that are still going."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from PIL import Image
from rich.console import Console

from rnnlstm.compare import main
from rnnlstm.config.errors import ConfigError
from rnnlstm.record.files import write_json
from rnnlstm.reporting.runs import MOST_RECORDS, counts, find_runs, held, missing_seeds, reasons
from rnnlstm.reporting.selection import compare, find_key, group_by, pool, pooled_over, select
from rnnlstm.reporting.tables import SPARED, paragraphs, spread_out, table_console

from support.run_folders import make_run, multiply


@pytest.fixture
def sweep(tmp_path):
    """Three models by two learning rates, two seeds each."""
    for model in ("lstm", "rnn", "gru"):
        for lr in (0.003, 0.01):
            make_run(
                tmp_path / "runs" / f"{model}_{lr}",
                seeds=2,
                model__name=model,
                optimizer__lr=lr,
                optimizer__name="adam",
            )
    return str(tmp_path / "runs")


def models(runs):
    return sorted(f"{run.config['model.name']} {run.config['optimizer.lr']}" for run in runs)


def test_where_takes_short_names_several_values_and_numbers_as_numbers(sweep):
    runs = find_runs([sweep])
    assert models(select(runs, ["model=rnn,gru", "lr=1e-2"])) == ["gru 0.01", "rnn 0.01"]
    assert models(select(runs, ["optimizer.lr=3.0e-3", "model.name=lstm"])) == ["lstm 0.003"]
    assert len(select(runs, ["task=keyword", "hidden_size=8.0"])) == 6
    assert find_key("optimizer", runs) == "optimizer.name"
    for condition, message in {
        "modle=rnn": "unknown key modle; did you mean model?",
        "model": "can't read model: a condition is written key=value",
        "model=lru": "no run has model=lru: there is gru, lstm, rnn",
        "lr=1": "no run has lr=1: there is 0.003, 0.01",
        "model=rnn,lr=1e-2": "can't read model=rnn,lr=1e-2: lr=1e-2 is a second condition: write it apart",
        "name=x": "unknown key name",
    }.items():
        with pytest.raises(ConfigError) as error:
            select(runs, [condition])
        assert str(error.value).startswith(message)


def test_where_finds_lists_and_nothing(tmp_path):
    make_run(tmp_path / "a", eval__lengths=[200, 400], clip__name="none")
    make_run(tmp_path / "b", eval__lengths=[], clip__name="norm", model__max_lag=None)
    runs = find_runs([str(tmp_path)])
    assert [run.folder.name for run in select(runs, ["eval.lengths=[200, 400],[7]"])] == ["a"]
    assert [run.folder.name for run in select(runs, ["eval.lengths=[]"])] == ["b"]
    assert [run.folder.name for run in select(runs, ["clip=none"])] == ["a"]
    assert len(select(runs, ["max_lag=null"])) == 2  # one has no such key


def test_groups_are_sorted_and_say_what_they_pool(sweep, tmp_path, capsys):
    make_run(tmp_path / "runs" / "later", seeds=1, optimizer__lr=0.1, model__name="lstm", optimizer__name="adam")
    groups = group_by(find_runs([sweep]), ["lr"])
    assert [group.config["optimizer.lr"] for group in groups] == [0.003, 0.01, 0.1]
    assert [len(group.seeds) for group in groups] == [6, 6, 1]
    assert pooled_over(groups) == ["model.name"]
    assert main([sweep, "--by", "model,lr", "--csv", str(tmp_path / "t.csv")]) == 0
    assert "Pooled" not in capsys.readouterr().out
    assert main([sweep, "--by", "model", "--csv", str(tmp_path / "t.csv")]) == 0
    assert "Pooled over: optimizer.lr;" in capsys.readouterr().out
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["model"], r["configurations"], r["seeds"]) for r in rows] == [
        ("gru", "2", "4"), ("lstm", "3", "5"), ("rnn", "2", "4"),
    ]  # fmt: skip
    assert "optimizer.lr" not in rows[0]


@pytest.fixture
def rates(tmp_path):
    """An RNN and an LSTM at three rates, seeds 0 to 3. Which seeds solve, and when, says which rate is best."""
    solved = {("rnn", 0.001): (), ("rnn", 0.01): (0, 1), ("rnn", 0.1): (0, 1)}
    solved |= {("lstm", 0.001): (0, 1), ("lstm", 0.01): (0, 1, 2), ("lstm", 0.1): (3,)}
    for (model, lr), seeds in solved.items():
        late = 400 if (model, lr) == ("rnn", 0.01) else 50
        summaries = [{"steps_to_solve": late} if seed in seeds else {} for seed in range(4)]
        config = {"model__name": model, "optimizer__name": "adam", "optimizer__lr": lr, "train__steps": 500}
        make_run(tmp_path / "rates" / f"{model}_{lr}", seeds=4, solved=seeds, summaries=summaries, **config)
    return str(tmp_path / "rates")


def test_best_is_the_projects_rule_in_each_row_and_says_what_flatters(rates, tmp_path, capsys):
    found = compare([rates], best=["lr"])
    assert models(found.rows) == ["lstm 0.01", "rnn 0.1"]  # most seeds; of two equal ones the fewest updates
    assert found.best == ["optimizer.lr"]
    assert main([rates, "--best", "optimizer.lr", "--csv", str(tmp_path / "t.csv")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Best of 3 values of optimizer.lr in each row" in out
    assert "chosen and reported on the same 4 seeds, which is optimistic" in out
    assert "At the end of the values, beyond which a better one may lie: rnn" in out
    with (tmp_path / "t.csv").open() as file:
        assert [(r["model"], r["optimizer.lr"]) for r in csv.DictReader(file)] == [("lstm", "0.01"), ("rnn", "0.1")]
    assert models(compare([rates], best=["model,lr"]).rows) == ["lstm 0.01"]
    (row,) = compare([rates], by=["task"], best=["lr"]).rows  # both networks pooled, at one rate
    assert (row.config["optimizer.lr"], len(row.seeds)) == (0.01, 8)


def test_seeds_that_choose_are_not_reported(rates, capsys):
    found = compare([rates], best=["lr"], best_from=[3])
    assert models(found.rows) == ["lstm 0.1", "rnn 0.001"]  # no RNN's seed 3 solved it: equal, the smallest rate
    assert [[seed["seed"] for seed in run.seeds] for run in found.rows] == [[0, 1, 2]] * 2
    assert main([rates, "--best", "lr", "--best-from", "2-3"]) == 0
    assert "chosen on other seeds than the 2 of the table" in capsys.readouterr().out
    shutil.rmtree(f"{rates}/lstm_0.1/seed_0")
    for seed in (1, 2):
        shutil.rmtree(f"{rates}/lstm_0.1/seed_{seed}")
    found = compare([rates], best=["lr"], best_from=[3])
    assert models(found.rows) == ["rnn 0.001"]
    assert "without other seeds to report: model=lstm optimizer.lr=0.1" in found.notes[1]


def test_a_best_value_that_all_rows_share_is_still_a_column(sweep, capsys):
    assert main([sweep, "--best", "optimizer.lr"]) == 0
    header, *_ = [line for line in capsys.readouterr().out.splitlines() if "metric" in line]
    assert header.split()[:2] == ["model", "optimizer.lr"]


def test_best_of_a_choice_goes_with_the_keys_that_it_brings(tmp_path):
    make_run(tmp_path / "a", optimizer__name="adam", optimizer__lr=0.01)
    for momentum in (0.0, 0.9):
        solved = (0, 1) if momentum else (0,)
        sgd = {"optimizer__name": "sgd", "optimizer__lr": 0.01, "optimizer__momentum": momentum}
        make_run(tmp_path / f"b{momentum}", solved=solved, **sgd)
    (row,) = compare([str(tmp_path)], best=["optimizer"]).rows
    assert (row.config["optimizer.name"], row.config["optimizer.momentum"]) == ("sgd", 0.9)


def test_groups_of_several_tasks_have_no_metric_in_common(tmp_path):
    make_run(tmp_path / "runs/a")
    make_run(tmp_path / "runs/b", task__name="adding", summaries=[{"metric_name": "mse"}] * 3)
    assert (
        main([str(tmp_path), "--by", "model", "--csv", str(tmp_path / "t.csv"), "--figures", str(tmp_path / "f")])
        == 0
    )
    with (tmp_path / "t.csv").open() as file:
        (r,) = csv.DictReader(file)
    assert (r["task"], r["metric_name"], r["metric"], r["seeds"]) == ("", "", "", "6")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--where", "model=x"], "error: no run has model=x: there is gru, lstm, rnn"),
        (["--by", "modell"], "error: unknown key modell; did you mean model?"),
        (["--against", "model=lstm"], "error: --against model=lstm: 2 rows are that: lstm, lr=0.003; lstm, lr=0.01; "
         "name one, such as model=lstm optimizer.lr=0.003"),
        (["--best", "modell"], "error: unknown key modell; did you mean model?"),
        (["--best", "length"], "error: --best task.length: losses of different tasks don't compare; --by task.length "
         "makes a row of each"),
        (["--best-from", "1"], "error: --best-from names the seeds by which --best KEY chooses"),
        (["--best", "lr", "--best-from", "1-x"], "error: --best-from 1-x: must be seeds, such as 100-102 or 7,8"),
        (["--best", "lr", "--best-from", "9"], "error: --best-from: no run has any of these seeds"),
        (["--best", "lr", "--best-from", "0,1"], "error: --best-from: what it chose has no other seeds to report; "
         "train them: model=gru optimizer.lr=0.003, model=lstm optimizer.lr=0.003, model=rnn optimizer.lr=0.003"),
        (["--top", "0"], "error: --top 0: must be at least 1"),
        (["--top", "many"], "error: argument --top: invalid int value: 'many'; see --help"),
    ],
)  # fmt: skip
def test_mistakes_cost_one_line(sweep, capsys, arguments, line):
    assert main([sweep, *arguments]) == 2
    assert capsys.readouterr().err == line + "\n"


def test_few_rows_are_compared_unasked_and_many_only_if_asked(sweep, capsys):
    assert main([sweep]) == 0
    assert "better in" in capsys.readouterr().out
    multiply(find_runs([sweep])[0].folder, find_runs([sweep])[0].folder.parent / "more", 4)
    assert main([sweep]) == 0
    assert "better in" not in capsys.readouterr().out
    assert main([sweep, "--paired"]) == 0
    assert "better in" in capsys.readouterr().out


def test_every_state_is_counted_and_reasons_are_named(tmp_path, capsys):
    folder = make_run(
        tmp_path / "a", seeds=6,
        summaries=[
            {}, {"status": "diverged", "reason": "the loss is nan at step 17"}, {"status": "interrupted"},
            {"status": "failed", "reason": "RuntimeError: out\nof [red]memory"},
            {"status": "diverged", "reason": "the loss is nan at step 30"}, {"status": "running"},
        ],
    )  # fmt: skip
    (folder / "seed_7").mkdir()
    (folder / "seed_8").mkdir()
    (folder / "seed_8" / "summary.json").write_text('{"status": "do')
    (run,) = find_runs([str(tmp_path)])
    assert counts(run) == {
        "done": 1, "running": 1, "interrupted": 1, "stopped": 0, "diverged": 2, "failed": 1, "missing": 2,
    }  # fmt: skip
    assert reasons([run]) == [
        "2 diverged: the loss is nan at step 17, say (lstm)",
        "1 failed: RuntimeError: out of [red]memory (lstm)",
    ]
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "of [red]memory" in out
    assert "2 missing" in " ".join(out.split())


def test_a_hole_in_a_row_of_seeds_is_missing_and_far_apart_seeds_are_no_row(tmp_path):
    folder = make_run(tmp_path / "a", seeds=5)
    shutil.rmtree(folder / "seed_3")
    (run,) = find_runs([str(folder)])
    assert missing_seeds(run) == [3]
    for seed in (1, 2):
        shutil.rmtree(folder / f"seed_{seed}")
    (run,) = find_runs([str(folder)])  # 0 and 4
    assert missing_seeds(run) == []


def test_many_reasons_are_cut_short(tmp_path):
    words = "abcdefgh"
    make_run(tmp_path / "a", seeds=8, summaries=[{"status": "failed", "reason": word * 300} for word in words])
    lines = reasons(find_runs([str(tmp_path)]))
    assert len(lines) == 5
    assert lines[-1] == "and 4 further reasons"
    assert max(map(len, lines)) < 160


HOLDER = """
import sys, time
from pathlib import Path
from rnnlstm.record.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_running_is_told_from_stopped_and_the_lock_is_left_alone(tmp_path):
    folder = make_run(tmp_path / "a", seeds=2, status="running")
    assert held(folder) is None  # copied from somewhere, say
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert held(folder) is True
        assert counts(find_runs([str(folder)])[0])["running"] == 2
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert held(folder) is False
    (run,) = find_runs([str(folder)])
    assert (counts(run)["running"], counts(run)["stopped"]) == (0, 2)


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ("", None), ("[]", None), ('{"pid": "x", "host": "h"}', None), ('{"pid": 1e400, "host": "h"}', None),
        ({"pid": 1, "host": "elsewhere"}, None), ({"pid": -1}, None), ({"pid": 10**30}, False),
        ({"pid": os.getpid()}, False),  # a process that got the number later, and has nothing to do with the run
    ],
)  # fmt: skip
def test_locks_of_all_kinds(tmp_path, lock, expected):
    text = lock if isinstance(lock, str) else json.dumps({"host": socket.gethostname(), **lock})
    (tmp_path / ".lock").write_text(text)
    assert held(tmp_path) is expected


def test_very_many_runs_are_cut_short_in_the_table_and_whole_in_the_csv(tmp_path, capsys):
    folder = make_run(tmp_path / "one", seeds=1)
    multiply(folder, tmp_path / "many", 150)
    pictures = tmp_path / "pictures"
    table = tmp_path / "t.csv"
    assert main([str(tmp_path / "many"), "--csv", str(table), "--figures", str(pictures), "--top", "7"]) == 0
    out = capsys.readouterr().out
    assert "143 more rows: --top 150 shows them, --csv writes all" in out
    assert len(out.splitlines()) < 20
    assert len(table.read_text().splitlines()) == 151
    for name in ("learning_curves.png", "survival.png"):
        with Image.open(pictures / name) as picture:
            assert picture.width < 2000


def test_what_is_shown_of_very_many_is_spread_over_the_tasks(tmp_path):
    for length in (10, 20, 30):
        for size in range(4):
            make_run(tmp_path / f"{length}_{size}", seeds=1, task__length=length, model__hidden_size=size)
    runs = find_runs([str(tmp_path)])
    assert [run.config["task.length"] for run in spread_out(runs, 5)] == [10, 10, 20, 20, 30]
    assert spread_out(runs, 100) == runs


@pytest.mark.slow
def test_pictures_of_very_many_lengths_stay_small(tmp_path):
    for length in range(30):
        make_run(tmp_path / "runs" / f"{length}", seeds=1, task__length=length)
    assert main([str(tmp_path / "runs"), "--figures", str(tmp_path)]) == 0
    with Image.open(tmp_path / "survival.png") as picture:
        assert picture.width < 6000


def test_runs_that_change_under_its_hands(tmp_path):
    """Summaries are replaced, folders come and go, lines are torn, while it reads again and again."""
    steady = make_run(tmp_path / "steady", seeds=2)
    stop = threading.Event()

    def disturb():
        k = 0
        while not stop.is_set():
            k += 1
            write_json(
                steady / "seed_1" / "summary.json",
                {"status": "running", "seed": 1, "steps": k, "metric_name": "accuracy"},
            )
            folder = make_run(tmp_path / f"passing_{k % 3}", seeds=2, status="running")
            (folder / "seed_0" / "metrics.jsonl").write_text('{"step": 0, "eval/acc')
            shutil.rmtree(folder)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for k in range(12):
            assert (
                main([str(tmp_path), "--paired", "--by", *(["model"] if k % 2 else ["init"]), "--csv", os.devnull])
                == 0
            )
            assert len(compare([str(tmp_path)]).rows) >= 1
        assert main([str(tmp_path), "--figures", str(tmp_path / "pictures")]) == 0
    finally:
        stop.set()
        thread.join()


def test_a_narrow_terminal_goes_without_costs_and_says_so(sweep):
    found = compare([sweep])
    for width, count in ((60, 6), (200, 0)):
        (table, *texts) = paragraphs(found, top=40, paired=False, against=(), width=width)
        assert sum(str(column.header) in SPARED for column in table.columns) == 6 - count
        assert any("No room for: bytes kept, multiply-adds" in str(text) for text in texts) is bool(count)


def printed(found, width):
    """The table as lines of a terminal."""
    (table, *_) = paragraphs(found, top=40, paired=False, against=(), width=width)
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


def test_eighty_columns_keep_every_swept_key_what_a_sweep_is_about_and_whole_words(tmp_path):
    places = [tmp_path / name for name in ("clip", "many")]
    for threshold in (0.1, 10.0):
        make_run(places[0] / f"{threshold}", clip__name="norm", clip__threshold=threshold)
        for nonlinearity in ("tanh", "steep_sigmoid"):
            for every in (10, 20):
                config = {"model__nonlinearity": nonlinearity, "log__every": every, "curriculum__start": every}
                make_run(places[1] / f"{threshold}_{nonlinearity}_{every}", clip__threshold=threshold, **config)
    lines = printed(compare([str(places[0])]), 80)
    assert {"clip.threshold", "metric", "clipped", "median"} <= set(" ".join(lines[:4]).split())
    lines = printed(compare([str(places[0])], best=["clip.threshold"]), 80)
    assert {"clip.threshold", "clipped"} <= set(" ".join(lines[:4]).split())
    lines = printed(compare([str(places[1])]), 80)
    assert max(map(len, lines)) <= 80
    words = {word.strip(",") for word in " ".join(lines).split()}
    assert {"nonlinearity=steep_sigmoid", "threshold=10.0", "every=20", "start=20"} <= words
    assert {"accuracy", "clipped", "10%"} <= words


def test_a_groups_curve_reads_no_more_than_some_of_very_many_seeds(sweep):
    (group,) = group_by(find_runs([sweep]), ["task"])
    folders = {folder for folder, _ in group.records}
    assert len(folders) == 12
    many = pool(list(group.members) * 50)
    assert len(many.records) == MOST_RECORDS
    assert {folder for folder, _ in many.records} == folders


def test_a_configuration_of_other_kinds_of_values_is_a_row_all_the_same(tmp_path):
    make_run(tmp_path / "a", seeds=1)
    make_run(tmp_path / "b", seeds=1, task__length="long", model__name=[1, {"x": 10**400}], eval__every="often")
    make_run(tmp_path / "c", seeds=1, task__name=None, task__length=-1.5)
    make_run(tmp_path / "d", seeds=1, summaries=[{"loss": float("nan"), "steps": None}])
    assert main([str(tmp_path), "--paired", "--by", "length", "hidden_size", "--csv", os.devnull]) == 0
    assert main([str(tmp_path), "--figures", str(tmp_path / "pictures")]) == 0


def test_a_file_has_room_for_wide_tables_unless_columns_says_how_much(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert table_console(300).width == 300
    monkeypatch.setenv("COLUMNS", "80")
    assert table_console(300).width == 80
