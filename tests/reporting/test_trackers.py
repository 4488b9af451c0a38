"""Runs exported to trackers: to stand-ins that record every call, and to the real packages' local stores."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rnnlstm import export
from rnnlstm.reporting.runs import find_runs
from rnnlstm.reporting.trackers import exported_seeds

from support.commands import ENVIRONMENT

LINES = [
    {"step": 0, "eval/loss": 2.0},
    {"step": 1, "train/loss": 1.5, "grad/norm_before_clip": math.inf},
    {"step": 10, "eval/loss": 0.5, "grad_param/readout.bias": 0.25},
]
SUMMARY = {
    "status": "done", "reason": None, "seed": 0, "steps": 10, "solved": True, "steps_to_solve": 10,
    "metric_name": "mse", "metric": 0.75, "loss": 0.75, "baseline": 0.1667, "parameters": 100, "multiply_adds": 90,
    "state_size": 4, "bytes_kept": 16, "ms_per_update": 1.0, "clip_rate": 0.0, "median_norm_before_clip": 0.5,
    "steps_per_second": 1000.0, "backend": "fused",
}  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    """A run with two seeds, as the trainer leaves it."""
    folder = tmp_path / "runs" / "adding_T6" / "rnn_lr-0.01-0123abcd"
    for seed in (0, 1):
        place = folder / f"seed_{seed}"
        place.mkdir(parents=True)
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
        (place / "summary.json").write_text(json.dumps({**SUMMARY, "seed": seed}))
    (folder / "config.yaml").write_text("task:\n  name: adding\n  length: 6\nmodel:\n  name: rnn\nseeds: 2\n")
    return tmp_path / "runs"


class Calls:
    """A stand-in for a tracker's run, which keeps what it was given."""

    def __init__(self, **given):
        self.given, self.logged, self.summary, self.finished = given, [], {}, False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def begun(monkeypatch):
    """wandb and trackio, both replaced; the runs that were begun."""
    made = []

    def init(**given):
        made.append(Calls(**given))
        return made[-1]

    for name in ("wandb", "trackio"):
        module = SimpleNamespace(init=init, Settings=lambda **given: given)
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_seed_is_a_run_with_every_line_at_its_step(runs, begun, capsys, tracker):
    assert export.main([tracker, str(runs), "--project", "memory"]) == 0
    assert len(begun) == 2
    for seed, run in enumerate(begun):
        assert run.given["project"] == "memory"
        assert run.given["group"] == "rnn_lr-0.01-0123abcd"
        assert run.given["id" if tracker == "wandb" else "name"] == f"0123abcd-seed-{seed}"
        assert run.given["config"]["task.length"] == 6
        assert run.logged == [
            (0, {"eval/loss": 2.0}),
            (1, {"train/loss": 1.5}),
            (10, {"eval/loss": 0.5, "grad_param/readout.bias": 0.25}),
        ]
        assert run.finished
        told = run.summary if tracker == "wandb" else run.given["config"]
        assert told["metric" if tracker == "wandb" else "summary.metric"] == 0.75
    assert "[2/2] rnn_lr-0.01-0123abcd/seed_1: 3 lines" in capsys.readouterr().out


@pytest.mark.parametrize("tracker", export.TRACKERS)
def test_a_package_that_is_missing_is_one_line(runs, monkeypatch, capsys, tracker):
    monkeypatch.setitem(sys.modules, tracker, None)
    assert export.main([tracker, str(runs)]) == 2
    assert capsys.readouterr().err == f'error: {tracker} is not installed; pip install "rnnlstm[{tracker}]"\n'


def test_a_tracker_that_fails_is_one_line(runs, monkeypatch, capsys):
    def init(**given):
        raise RuntimeError("no API key\nlong advice")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))
    assert export.main(["wandb", str(runs)]) == 2
    assert capsys.readouterr().err == "error: wandb failed: no API key\n"


def test_two_configurations_have_other_identities(runs):
    other = runs / "adding_T6" / "rnn_lr-0.01-4567cdef"
    (runs / "adding_T6" / "rnn_lr-0.01-0123abcd").rename(other)
    assert [seed.identity for seed in exported_seeds(find_runs([str(runs)]))] == [
        "4567cdef-seed-0",
        "4567cdef-seed-1",
    ]


def exported(tracker, runs, place, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "rnnlstm.export", tracker, str(runs), "--project", "memory"],
        cwd=place, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wandbs_offline_folder_has_both_seeds(runs, tmp_path):
    pytest.importorskip("wandb", reason="wandb is an extra")
    exported("wandb", runs, tmp_path, WANDB_MODE="offline")
    for seed in (0, 1):
        (record,) = tmp_path.glob(f"wandb/offline-run-*-0123abcd-seed-{seed}/run-0123abcd-seed-{seed}.wandb")
        content = record.read_bytes()
        assert b"grad_param/readout.bias" in content
        assert b"task.length" in content


@pytest.mark.slow
def test_mlflows_store_has_each_value_at_its_step_once(runs, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra")
    store = {"MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlruns'}", "MLFLOW_ALLOW_FILE_STORE": "true"}
    assert "3 lines" in exported("mlflow", runs, tmp_path, **store)
    assert exported("mlflow", runs, tmp_path, **store).count("there already") == 2
    client = mlflow.MlflowClient(tracking_uri=store["MLFLOW_TRACKING_URI"])
    found = client.search_runs([client.get_experiment_by_name("memory").experiment_id])
    assert len(found) == 2
    run = next(run for run in found if run.info.run_name.endswith("seed_0"))
    assert run.data.params["task.length"] == "6"
    history = client.get_metric_history(run.info.run_id, "eval/loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(0, 2.0), (10, 0.5)]
    assert run.data.metrics["summary/metric"] == 0.75


@pytest.mark.slow
def test_trackios_database_has_each_line(runs, tmp_path):
    pytest.importorskip("trackio", reason="trackio is an extra")
    exported("trackio", runs, tmp_path, TRACKIO_DIR=str(tmp_path / "store"))
    (database,) = (tmp_path / "store").glob("memory*.db")
    rows = sqlite3.connect(database).execute("select run_name, step, metrics from metrics order by run_name, step")
    by_run = {}
    for name, step, metrics in rows:
        by_run.setdefault(name, []).append((step, json.loads(metrics)))
    assert set(by_run) == {"0123abcd-seed-0", "0123abcd-seed-1"}
    for lines in by_run.values():
        assert [step for step, _ in lines] == [0, 1, 10]
        assert lines[2][1]["grad_param/readout.bias"] == 0.25
