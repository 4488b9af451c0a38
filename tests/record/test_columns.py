"""Columns of the HParams table: what tells runs apart is ticked, in every run's events."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from rnnlstm.events import main
from rnnlstm.record.columns import off_default, ticked


def columns(run):
    events = EventAccumulator(str(run / "aggregate")).Reload()
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    infos = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.hparam_infos
    return {info.name: info.differs for info in infos}


def test_a_key_that_a_sweep_varies_is_ticked_in_all_its_runs(train):
    options = ("train.steps=2", "train.batch_size=64", "model.hidden_size=64", "eval.samples=1024", "probe=off")
    runs = [
        train(*options, f"model.zoneout={z}", f"clip.threshold={c}").folder for z, c in ((0, 1), (0.1, 1), (0, 2))
    ]
    shown = [{key for key, differs in columns(run).items() if differs} for run in runs]
    assert shown[0] == shown[1] == shown[2]
    assert {"model.zoneout", "clip.threshold", "task.length"} <= shown[0]
    assert len(shown[0]) == 5, "as many as the page ticks"
    assert {"model.nonlinearity", "optimizer.lr", "model.zoneout"} & columns(runs[0]).keys() == {
        "optimizer.lr", "model.zoneout",
    }  # fmt: skip
    before = [columns(run) for run in runs]
    assert main([str(runs[0])]) == 0
    assert [columns(run) for run in runs] == before


def test_keys_that_others_determine_are_not_needed_to_tell_runs_apart():
    def run(name, init, lr, threshold, decoys=0.05):
        return {
            "task.name": "keyword", "task.decoys": decoys, "model.name": name, "model.init": init,
            "optimizer.lr": lr, "clip.threshold": threshold, "train.batch_size": 64, "seed": 3, "runs_root": "x",
        }  # fmt: skip

    runs = [run("rnn", "default", 1e-3, 1.0), run("lstm", "chrono", 1e-3, 1.0), run("lstm", "chrono", 1e-2, 0.5)]
    assert ticked(runs[0], runs)[:2] == ["model.name", "optimizer.lr"]
    assert {"model.init", "clip.threshold"} <= set(ticked(runs[0], runs))
    assert "seed" not in ticked(runs[0], runs)
    assert ticked(runs[0], runs[:1])[:1] == ["optimizer.lr"], "alone: what differs from the defaults"
    assert off_default(run("lstm", "chrono", 3e-3, 1.0, 0.2)) == ["task.decoys"]
    assert off_default(run("a_plugins_cell", "own", 3e-3, 1.0)) == []
