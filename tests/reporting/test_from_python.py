"""Results read back in Python: `run`, `load_runs`, `load_metrics`, `load_model`."""

from __future__ import annotations

import builtins
import logging
import shutil

import pytest
import torch

import rnnlstm
from rnnlstm.api import _words
from rnnlstm.config.errors import ConfigError
from rnnlstm.gradflow import main as gradflow
from rnnlstm.record.folders import seed_folder
from rnnlstm.training.weights import load_network

from support.run_folders import make_run

SMALL = {"task.length": 12, "model": {"hidden_size": 4}, "train": {"batch_size": 4, "steps": 4}, "eval.samples": 16}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two LSTMs, seeds 0 and 1, and what `run` returned."""
    root = tmp_path_factory.mktemp("runs")
    given = {**SMALL, "runs_root": root, "seeds": 2, "eval.every": 2, "log.every": 1, "eval.lengths": [20]}
    return rnnlstm.run(given, progress=False)


def test_a_string_a_list_and_a_dict_are_the_same_command():
    words = ["model=rnn", "model.hidden_size=4", "eval.lengths=[20,40]", "name=null", "optimizer.lr=0.001"]
    assert _words("model=rnn 'model.hidden_size=4' eval.lengths=[20,40] name=null optimizer.lr=0.001") == words
    given = {"model.hidden_size": 4, "model": "rnn", "eval": {"lengths": [20, 40]}, "name": None}
    assert sorted(_words({**given, "optimizer.lr": torch.tensor(0.5).item() / 500})) == sorted(words)
    assert _words(given)[0] in ("model=rnn", "name=null")  # a choice comes before its keys
    assert _words({"runs_root": "a folder", "seeds": True}) == ['runs_root="a folder"', "seeds=true"]
    with pytest.raises(ConfigError, match="can't read model='rnn: No closing quotation"):
        _words("model='rnn")


def test_summaries_come_with_their_configuration_and_a_finished_run_is_not_trained_again(trained, capsys):
    assert [summary["seed"] for summary in trained] == [0, 1]
    config = trained[0]["config"]
    assert (config["model"], config["task.length"], config["eval.lengths"]) == ("lstm", 12, [20])
    again = rnnlstm.run({**SMALL, "runs_root": config["runs_root"], "seeds": 2, "eval.every": 2, "log.every": 1,
                         "eval.lengths": [20]}, progress=False)  # fmt: skip
    assert again == trained
    assert capsys.readouterr().out == ""


def test_a_trained_network_is_evaluated_elsewhere_and_looked_into(trained):
    model = rnnlstm.load_model(trained[1])
    assert (model.seed, model.task.name, model.config["model.hidden_size"]) == (1, "keyword", 4)
    scores = model.evaluate()
    assert scores["accuracy"] == trained[1]["metric"]
    assert scores["loss"] == pytest.approx(trained[1]["loss"], rel=1e-6)
    batch = model.sample(3, length=24)
    assert model(batch.inputs).shape == (24, 3, 8)
    assert set(model.evaluate(length=24)) >= {"loss", "accuracy"}
    (gates,) = model.gates(batch)
    assert gates["forget"].shape == (24, 3, 4)
    norms = model.gradients(batch)
    assert set(norms) == {"hidden", "cell"}
    assert norms["hidden"].shape == (1, 24)
    assert norms["hidden"][0, -1] > 0
    run = load_network(trained[1]["folder"]).network()
    for name, weight in model.network.named_parameters():
        assert torch.equal(weight, dict(run.named_parameters())[name])


def test_what_is_not_there_costs_one_line(trained, tmp_path):
    run = trained[0]["folder"].removesuffix("/seed_0")
    assert rnnlstm.load_model(run, seed=1).seed == 1
    for call, message in (
        (lambda: rnnlstm.load_model(run, seed=7), "has no seed 7; there are 0, 1"),
        (lambda: rnnlstm.load_model(tmp_path), "has no seed 0 and is no run"),
        (lambda: rnnlstm.load_model(tmp_path / "nowhere"), "no such folder"),
        (lambda: rnnlstm.load_model(run, overrides=["task.lenght=3"]), "did you mean task.length"),
        (lambda: rnnlstm.load_model(run).evaluate(size=3), "has no option size"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


def test_without_pandas_one_line_says_so(trained, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "pandas":
            raise ImportError
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (lambda: rnnlstm.load_runs("runs"), lambda: rnnlstm.load_metrics(trained[0])):
        with pytest.raises(ConfigError, match=r"^tables need pandas: pip install pandas$"):
            call()


def test_a_row_per_seed_has_configuration_summary_and_folder(tmp_path, caplog):
    pytest.importorskip("pandas")
    make_run(tmp_path / "a", seeds=2, solved=(1,), optimizer__name="adam", optimizer__lr=0.01)
    make_run(
        tmp_path / "b", seeds=3, model__name="rnn", model__nonlinearity="relu", eval__lengths=[100, 200], threads=2
    )
    found = rnnlstm.load_runs(tmp_path)
    assert found.loc[found.model == "rnn", "threads"].tolist() == [2] * 3  # housekeeping, too
    assert len(found) == 5
    assert list(found[found.model == "lstm"].sort_values("seed").solved) == [False, True]
    assert set(found.folder) == {
        str(seed_folder(tmp_path / "ab"[run], seed)) for run in (0, 1) for seed in range(2 + run)
    }
    assert found.loc[found.model == "rnn", "eval.lengths"].iloc[0] == [100, 200]
    assert found.loc[found.model == "rnn", "optimizer.lr"].isna().all()
    assert found.groupby("model").metric.median().to_dict() == {"lstm": 0.55, "rnn": 0.6}
    for where in ("model=rnn", ["model=rnn"], {"model": ["rnn"]}, {"model": "rnn", "eval.lengths": [[100, 200]]}):
        assert len(rnnlstm.load_runs([tmp_path], where)) == 3
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    with caplog.at_level(logging.WARNING, "rnnlstm"):
        assert len(rnnlstm.load_runs(tmp_path)) == 5
    assert "2 seeds are in another folder of the same configuration, too" in caplog.text


def test_metrics_are_lines_of_the_record(trained):
    pandas = pytest.importorskip("pandas")
    metrics = rnnlstm.load_metrics(trained[0])
    assert list(metrics.step) == [0, 1, 2, 3, 4]
    evaluated = metrics["eval/accuracy"].dropna()
    assert list(metrics.step[evaluated.index]) == [0, 2, 4]
    assert evaluated.iloc[-1] == trained[0]["metric"]
    row = pandas.DataFrame(trained).iloc[1]
    assert rnnlstm.load_metrics(row)["eval/accuracy"].iloc[-1] == trained[1]["metric"]


def test_a_sentence_of_ones_own_is_encoded_as_the_task_draws_them(trained):
    task = rnnlstm.make_task("keyword", length=12)
    drawn = task.sample(0, 0, batch_size=1)
    text = " ".join(task.words(drawn, 0)[:-1])
    batch = task.encode(text.title() + "!")
    assert task.words(batch, 0) == task.words(drawn, 0)
    assert torch.equal(batch.kinds, drawn.kinds)
    assert task.decode(batch, 0) == task.decode(drawn, 0)
    kinds = task.encode("Spicy chicken the cook waits fried rice").kinds[:, 0]
    assert kinds.tolist() == [0, 1, 1, 1, 2, 3]
    model = rnnlstm.load_model(trained[0])
    answer = model.answer(text)
    assert next(iter(answer)) == task.answer(model(drawn.inputs), drawn, 0)
    assert sum(answer.values()) == pytest.approx(1, abs=1e-6)
    assert model.gates(model.encode(text))[0]["forget"].shape == (12, 1, 4)
    for sentence, message in (
        ("spicy chiken", "has no word spicy; did you mean spicy chicken"),
        ("the cook laughs", "names no dish; there are braised ribs"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.answer(sentence)
    with pytest.raises(ConfigError, match="the adding task takes no sentence"):
        rnnlstm.make_task("adding").encode(text)


@pytest.mark.slow
def test_gradflow_looks_at_a_sentence_of_ones_own(trained, tmp_path, capsys):
    words = [f"weights={trained[0]['folder']}", "sentence=spicy chicken the cook waits fried rice", f"out={tmp_path}"]
    assert gradflow([*words]) == 0
    assert (tmp_path / "gates.png").exists()
    for bad, line in (
        ("sentence=nothing", "error: the keyword task has no word nothing"),
        ("show=influence", "error: sentence=spicy chicken the cook waits fried rice: is one sequence, for show=flow"),
    ):
        assert gradflow([*words, bad]) == 2
        assert capsys.readouterr().err.startswith(line)
