"""`python -m rnnlstm.gradflow` as it is typed: tables, figures, files; and one line for a mistake."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest
import torch
from rich.console import Console

from rnnlstm.gradflow import _settings, main, parse
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.dynamics import dynamics
from rnnlstm.instruments.measurement import measure
from rnnlstm.reporting.gradflow import dynamics_table, gradient_table, setting_labels
from rnnlstm.training.weights import load_network

from support.training import plan_for

pytestmark = pytest.mark.slow

SMALL = ["task.length=12", "model.hidden_size=8", "model.embedding_size=4"]
FIGURES = {
    "gradient.png",
    "weight_gradient.png",
    "jacobian.png",
    "lyapunov.png",
    "influence.png",
    "influence_by_distance.png",
}


def test_several_models_in_one_command(tmp_path, capsys):
    assert main(["model=rnn,lstm,gru", "model.num_layers=2", *SMALL, f"out={tmp_path / 'a'}", "sequences=3"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{model}, " in printed for model in ("rnn", "lstm", "gru"))
    assert "No room for" not in printed
    assert "∂h at the first: gradient left at the first step, as a share of that at the answer" in printed
    assert "Lyapunov: nats a step, below 0 vanishing" in printed
    written = [line.removeprefix("Written: ") for line in printed.splitlines() if line.startswith("Written: ")]
    assert sorted(written) == sorted(str(path) for path in (tmp_path / "a").iterdir())
    assert {path.name for path in (tmp_path / "a").iterdir()} == FIGURES | {"gates.png", "table.csv", "results.json"}
    rows = list(csv.DictReader((tmp_path / "a" / "table.csv").read_text().splitlines()))
    assert len(rows) == 6  # three models, two layers
    assert all(float(row["weight_gradient_error"]) < 1e-10 for row in rows)
    flow = json.loads((tmp_path / "a" / "results.json").read_text())["flow"]
    assert [entry["setting"] for entry in flow] == [row["setting"] for row in rows]
    assert all(len(entry["curves"]["gradient_hidden"]) == 12 for entry in flow)
    assert all(entry["curves"]["weight_gradient_share"][-1] == pytest.approx(1) for entry in flow)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("task", ["copy", "adding"])
def test_every_task_can_be_looked_at(task, tmp_path):
    assert (
        main([f"task={task}", "model=rnn,lstm_1997", "task.length=8", "model.hidden_size=5", f"out={tmp_path}"]) == 0
    )
    assert {path.name for path in tmp_path.glob("*.png")} == FIGURES | {"gates.png"}


def test_a_cell_without_gates_has_no_figure_of_them(tmp_path):
    assert main(["model=rnn", *SMALL, f"out={tmp_path}"]) == 0
    assert {path.name for path in tmp_path.glob("*.png")} == FIGURES


def test_a_trained_network_from_its_run_folder(train, tmp_path, capsys):
    outcome = train("train.steps=5", "seeds=2", "seed=3")
    out = f"out={tmp_path / 'flow'}"
    assert main([f"weights={outcome.folder},{outcome.folder / 'seed_4'}", "show=flow,surgery", out]) == 0
    printed = capsys.readouterr().out
    assert "trained" in printed
    assert "forget gate open (1)" in printed
    first = load_network(str(outcome.folder))
    assert first.seed == 3
    network = first.network()
    saved = torch.load(outcome.folder / "seed_3" / "weights.pt", weights_only=True)
    assert all(torch.equal(saved[name], w) for name, w in network.state_dict().items())
    longer = load_network(str(outcome.folder / "seed_4"), ["task.length=20", "surgery.open=[forget]"])
    assert (longer.seed, longer.plan.task.sequence_length, longer.plan.backend) == (4, 20, "reference")


def test_every_trained_network_below_a_folder(train, tmp_path, capsys):
    folders = [train("train.steps=2", f"model={model}").folder for model in ("rnn", "gru")]
    (folders[0].parent / "lstm-unfinished").mkdir()
    (folders[0].parent / "lstm-unfinished" / "config.yaml").write_text((folders[0] / "config.yaml").read_text())
    root = folders[0].parent
    assert folders[1].parent == root
    assert main([f"weights={root}", f"out={tmp_path / 'flow'}"]) == 0
    flow = json.loads((tmp_path / "flow" / "results.json").read_text())["flow"]
    assert sorted(entry["setting"].split()[0] for entry in flow) == ["gru", "rnn"]
    (tmp_path / "empty").mkdir()
    assert main([f"weights={tmp_path / 'empty'}"]) == 2
    assert "no runs in" in capsys.readouterr().err


def settings_of(*arguments):
    return setting_labels(_settings(parse(arguments)))


def test_a_label_says_which_seed_is_looked_at(train, tmp_path):
    run = train("train.steps=1", "seeds=2", "model=rnn").folder
    assert settings_of(f"weights={run}") == ["rnn (trained, seed 0)"]
    assert settings_of(f"weights={run}/seed_0,{run}/seed_1") == ["rnn (trained, seed 0)", "rnn (trained, seed 1)"]
    assert settings_of("model=rnn", "seed=3,4") == ["rnn (seed 3)", "rnn (seed 4)"]
    assert settings_of("seed=3", "--", "model=rnn", "--", "model=rnn", "threads=1", "--", "model=gru") == [
        "rnn",  # once
        "gru",
    ]


def test_task_and_length_are_in_the_label_where_they_differ(train, tmp_path):
    for options in (["task.length=12"], ["task.length=14"], ["task=adding"]):
        train("train.steps=1", "model=rnn", *options)
    assert settings_of(f"weights={tmp_path}") == [
        "rnn, adding, T = 12 (trained, seed 0)",
        "rnn, keyword, T = 12 (trained, seed 0)",
        "rnn, keyword, T = 14 (trained, seed 0)",
    ]
    assert settings_of(f"weights={tmp_path / 'keyword_T12'}") == ["rnn (trained, seed 0)"]
    assert settings_of("task.length=12,14", "model=rnn") == ["rnn, keyword, T = 12", "rnn, keyword, T = 14"]


def test_where_nothing_else_differs_the_folder_is_in_the_label(train, tmp_path):
    run = train("train.steps=1", "model=rnn").folder
    shutil.copytree(run, tmp_path / "copy")
    labels = settings_of(f"weights={run},{tmp_path / 'copy'}")
    assert labels == [f"rnn (trained, seed 0, {run})", f"rnn (trained, seed 0, {tmp_path / 'copy'})"]


@pytest.mark.parametrize("task", ["keyword", "adding"])
def test_what_is_remembered_beside_what_can_be_learned(task, tmp_path, capsys):
    small = [option for option in SMALL if task == "keyword" or "embedding" not in option]
    line = [f"task={task}", "model=rnn,lstm", *small, "show=influence", "sequences=24", f"out={tmp_path}"]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "answers change" in printed if task == "keyword" else "answer changes by" in printed
    assert {path.name for path in tmp_path.iterdir()} == {
        "counterfactual_influence.png", "influence.csv", "results.json",
    }  # fmt: skip
    rows = json.loads((tmp_path / "results.json").read_text())["influence"]
    assert {row["setting"] for row in rows} == {"rnn, init=default", "lstm, init=chrono"}
    assert len(list(csv.DictReader((tmp_path / "influence.csv").read_text().splitlines()))) == len(rows)
    if task == "keyword":
        (first,) = [row for row in rows if row["kind"] == "keyword" and row["setting"].startswith("rnn")]
        assert (first["places"], first["distance"]) == (24, 11)
        assert first["divergence"] > 0
    else:
        assert {row["way"] for row in rows} == {"number", "mark moved"}
        assert all(row["divergence"] is None for row in rows)


@pytest.mark.parametrize("task", ["keyword", "adding"])
def test_what_a_network_does_under_held_input(task, tmp_path, capsys):
    small = [option for option in SMALL if task == "keyword" or "embedding" not in option]
    line = [f"task={task}", "model=rnn,lstm,lru", *small, "show=dynamics", "sequences=12", f"out={tmp_path}"]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert printed.count("After 1,000 steps") == 3
    assert ("tell the class" in printed) == (task == "keyword")
    assert {path.name for path in tmp_path.iterdir()} == {"dynamics.png", "dynamics.csv", "results.json"}
    found = json.loads((tmp_path / "results.json").read_text())["dynamics"]
    assert [one["setting"].split(",")[0] for one in found] == ["rnn", "lstm", "lru"]
    rows = list(csv.DictReader((tmp_path / "dynamics.csv").read_text().splitlines()))
    assert len(rows) == sum(len(one["orbits"]) for one in found)
    (point,) = found[0]["orbits"]  # an untrained tanh RNN contracts
    assert (point["kind"], point["texts_end"], point["unstable_directions"]) == ("fixed point", 12, 0)
    assert found[0]["at_rest"] == 1
    if task == "keyword":
        assert found[0]["told_after_1000"] < 1  # wherever the text began


def test_the_table_of_dynamics_fits_a_narrow_terminal():
    orbit = {
        "kind": "cycle of 60", "texts_end": 256, "starts": 0, "unstable_directions": 10, "largest_eigenvalue": 1.25,
        "slow_directions": 128, "distance": 123.4, "answer": " → ".join(["sweet and sour pork"] * 60),
    }  # fmt: skip
    plan = plan_for(*SMALL, "model=lstm")
    found = dynamics(AnalysedNetwork.of(plan.task, plan.network(0), _sample(plan)), held=20)
    table, lines = dynamics_table("lstm", [orbit] * 12, found, 80)
    assert lines[0] == "2 more in dynamics.csv"
    assert max(map(len, lines)) <= 80
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    printed = console.file.getvalue().splitlines()
    assert max(map(len, printed)) <= 80
    assert sum("sweet and sour pork, … (1)" in line for line in printed) == 10


def test_map_and_activations(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rnnlstm.reporting.gradflow.GAINS", (0.9, 1.1))
    monkeypatch.setattr("rnnlstm.reporting.gradflow.LENGTHS", (4, 8))
    assert main(["show=activations,map", "model.hidden_size=6", f"out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "1.01^365 = 37.78: what becomes of a gradient of 1 by a factor of 1.01 a step, taken 365 times" in printed
    assert f"Written: {tmp_path / 'results.json'}" in printed
    assert {path.name for path in tmp_path.glob("*.png")} == {"activations.png", "gain_map.png"}
    assert json.loads((tmp_path / "results.json").read_text())["gain_map"]["gains"] == [0.9, 1.1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fast"], "unknown option --fast"),
        (
            ["show=flows"],
            "show=flows: must be one of flow, surgery, activations, map, influence, dynamics; did you mean flow?",
        ),
        (["sequences=0"], "sequences=0: must be a whole number from 1"),
        (
            ["show=map", "sequences=4"],
            "sequences=4: has no effect with show=map; it belongs to show=flow, influence and dynamics",
        ),
        (["weights=nowhere"], "weights=nowhere: no such folder"),
        (["model=lstn"], "did you mean lstm?"),
        (["seed=0,1,2,3,4,5,6,7,8"], "9 settings: at most 8"),
        (["model.hiden_size=3"], "did you mean model.hidden_size?"),
        (["weight=runs"], "weight=runs: unknown key; did you mean weights?"),
        (["sequence=4"], "did you mean sequences?"),
        (["show=dynamics", "model.num_layers=2"], "show=dynamics takes networks of one layer; this one has 2"),
        (["show=dynamics", "surgery.detach=true"], "needs derivatives that surgery.detach cuts off"),
        (["show=dynamics", "surgery.freeze=[forget]"], "needs derivatives that surgery.freeze cuts off"),
        (["lr=4"], "did you mean optimizer.lr?"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_on_disk(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_and_overrides_that_do_not_fit(train, capsys):
    folder = train("train.steps=1").folder
    for override, words in (
        ("task.lenght=3", "did you mean task.length?"),
        ("length=3", "did you mean task.length?"),
        ("sequence=4", "did you mean sequences?"),
        ("task=adding", "unknown key"),
        ("model.hidden_size=9", "don't fit"),
        ("nonsense", "key=value"),
        ("task.length=[", "can't be read"),
    ):
        assert main([f"weights={folder}", override]) == 2
        assert words in capsys.readouterr().err
    (folder / "seed_0" / "weights.pt").write_bytes(b"not weights")
    assert main([f"weights={folder}"]) == 2
    assert "can't be read" in capsys.readouterr().err


def test_where_nothing_can_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*SMALL, f"out={tmp_path / 'file'}"]) == 74
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_in_a_narrow_terminal_columns_are_left_out_and_numbers_are_whole():
    plan = plan_for(*SMALL, "model=lstm")
    found = measure(
        "lstm, init=chrono (trained, seed 0)", AnalysedNetwork.of(plan.task, plan.network(0), _sample(plan))
    )
    wide, _ = gradient_table(found)
    narrow, lines = gradient_table(found, 80)
    kept = [str(column.header) for column in narrow.columns]
    assert kept == ["setting", "half-life of ∂L/∂h", "of ∂L/∂c", "∂h at the first"]
    console = Console(width=80, file=io.StringIO())
    console.print(narrow)
    printed = console.file.getvalue()
    for column in wide.columns[1:]:
        if str(column.header) in kept:
            assert f" {next(iter(column.cells)).plain} " in printed
    assert printed.count("…") == 2  # those of the two intervals
    assert lines[0].startswith("No room for: ‖∂W‖, parameters, gates imply, ∂h 10 back, ")
    assert lines[0].endswith("; table.csv has them")
    assert not any("Lyapunov: " in line for line in lines)


def _sample(plan):
    return plan.task.sample(0, 0, "probe", 3)


def test_groups_of_settings(tmp_path):
    line = [*SMALL, f"out={tmp_path}", "--", "model=rnn", "model.nonlinearity=tanh,relu", "--", "model=lstm"]
    assert main(line) == 0
    flow = json.loads((tmp_path / "results.json").read_text())["flow"]
    assert [entry["setting"].split(",")[0] for entry in flow] == ["rnn", "rnn", "lstm"]
    assert main(["weights=a", "--", "model=rnn"]) == 2


def test_help_and_defaults(capsys):
    assert main(["--help"]) == 0
    assert "Examples" in capsys.readouterr().out
    assert parse([]).parts == ["flow"]


def test_the_full_probe_writes_its_tags_and_changes_no_training(train):
    lines = {}
    for probe in ("off", "full"):
        more = ("probe.every=2",) if probe != "off" else ()
        outcome = train(f"probe={probe}", "train.steps=4", "seeds=2", "model.num_layers=2", *more)
        weights = torch.load(outcome.folder / "seed_1" / "weights.pt", weights_only=True)
        text = (outcome.folder / "seed_1" / "metrics.jsonl").read_text().splitlines()
        lines[probe] = weights, [json.loads(line) for line in text]
    assert all(torch.equal(w, lines["full"][0][name]) for name, w in lines["off"][0].items())
    last = lines["full"][1][-1]
    assert last["weight_gradient/share_last_10/layer_0"] == pytest.approx(1, abs=0.5)
    assert {
        "lyapunov/largest/layer_1",
        "jacobian/bound_lag_1/layer_0",
        "influence/keyword",
        "unit/dead/layer_1",
    } <= set(last)
