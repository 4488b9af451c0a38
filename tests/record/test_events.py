"""TensorBoard's events as a view of the record: written again they are what training wrote, and broken they break
nothing else."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from rnnlstm.events import main
from rnnlstm.record.files import locked, read_lines
from rnnlstm.record.tensorboard import BESIDE, TensorBoardView

from support.resuming import start
from support.training import SMALL

pytestmark = pytest.mark.slow

SIZES = {"scalars": 0, "images": 0, "tensors": 0}


def shown(folder):
    """Everything that TensorBoard would show of a folder, but for the times of day."""
    events = EventAccumulator(str(folder), size_guidance=SIZES).Reload()
    tags = events.Tags()
    found = {("scalar", tag): [(e.step, repr(e.value)) for e in events.Scalars(tag)] for tag in tags["scalars"]}
    for tag in tags["images"]:
        pictures = events.Images(tag)
        found["image", tag] = [(e.step, e.width, e.height, e.encoded_image_string) for e in pictures]
    for tag in tags["tensors"]:
        found["tensor", tag] = [(e.step, list(e.tensor_proto.string_val)) for e in events.Tensors(tag)]
    for kind, tag in list(found):
        metadata = events.SummaryMetadata(tag)
        content = metadata.plugin_data.content
        if metadata.plugin_data.plugin_name == "hparams":
            data = plugin_data_pb2.HParamsPluginData.FromString(content)
            data.experiment.time_created_secs = 0
            data.session_start_info.start_time_secs = data.session_end_info.end_time_secs = 0
            content = str(data)
        found[kind, tag].append((metadata.plugin_data.plugin_name, metadata.summary_description, content))
    return found


def views(run):
    return {place.name: shown(place) for place in sorted(run.iterdir()) if list(place.glob("*tfevents*"))}


def event_files(run):
    return sorted(run.rglob("*tfevents*"))


LAYERED = ("seeds=2", "model.num_layers=2", "clip.threshold=0.45", "eval.lengths=[20]")


@pytest.fixture
def run(train):
    return train("train.steps=15", "log.every=1", "eval.every=5", "probe.every=3", *LAYERED).folder


def damage_delete(files):
    for path in files:
        path.unlink()


def damage_cut(files):
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def damage_rubbish(files):
    for path in files:
        path.write_bytes(b"\0rubbish\n" * 1000)


def damage_twice(files):
    for path in files:
        shutil.copy(path, path.with_name(path.name + ".copy"))


def damage_nothing(files):
    pass


def damage_links(files):
    for path in files:
        path.unlink()
        path.symlink_to(path.name)


def damage_pipes(files):
    for path in files:
        path.unlink()
        os.mkfifo(path)


DAMAGES = (damage_nothing, damage_delete, damage_cut, damage_rubbish, damage_twice, damage_links, damage_pipes)


def test_written_again_they_are_what_training_wrote_whatever_became_of_them(run, capsys):
    before = views(run)
    assert set(before) == {"aggregate", "seed_0", "seed_1"}
    assert {kind for kind, _ in before["seed_0"]} == {"scalar", "image", "tensor"}
    assert ("tensor", "_hparams_/session_end_info") in before["seed_0"]
    others = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and "tfevents" not in p.name}
    for damage in DAMAGES:
        damage(event_files(run))
        assert main([str(run.parents[1])]) == 0
        output = capsys.readouterr()
        assert f"[1/1] {run}: " in output.out, damage
        assert " lines of 2 seeds" in output.out
        assert output.err == ""
        assert views(run) == before, damage
        assert len(event_files(run)) == 3, damage
    shutil.rmtree(run / "aggregate")
    assert main([str(run)]) == 0
    assert views(run) == before
    assert not list(run.rglob(BESIDE))
    assert {p: p.read_bytes() for p in others if p.name != ".lock"} == {
        p: data for p, data in others.items() if p.name != ".lock"
    }


@pytest.mark.parametrize("options", [("task=adding", "probe=off"), ("task=copy", "curriculum=uniform")])
def test_also_of_a_run_that_was_interrupted_and_of_one_that_went_on(options, tmp_path):
    for stop in (13, None):
        folder = start(tmp_path, *options, "seeds=2", stop_at=stop).folder
        before = views(folder)
        damage_delete(event_files(folder))
        assert main([str(tmp_path)]) == 0
        assert views(folder) == before, stop


def test_a_command_that_is_interrupted_leaves_the_old_view_or_the_new_one(run, monkeypatch):
    before = views(run)
    files = event_files(run)
    write = RecordWriter.write
    for stop in range(1, 80, 3):
        count = 0

        def stopping(self, data, stop=stop):
            nonlocal count
            count += 1
            if count == stop:
                raise KeyboardInterrupt
            write(self, data)

        monkeypatch.setattr(RecordWriter, "write", stopping)
        assert main([str(run)]) == (130 if stop <= count else 0)
        assert views(run) == before, stop
        assert len(event_files(run)) == 3
        assert not list(run.rglob(BESIDE))
    monkeypatch.undo()
    (run / "seed_0" / BESIDE).write_text("left by a kill")
    assert main([str(run)]) == 0
    assert views(run) == before
    assert len(event_files(run)) == len(files)
    assert not list(run.rglob(BESIDE))


def test_a_run_in_use_is_left_alone_and_the_others_are_written(train, tmp_path, capsys):
    busy, other = (train("train.steps=2", f"model={model}").folder for model in ("rnn", "gru"))
    damage_delete(event_files(tmp_path))
    with locked(busy):
        assert main([str(tmp_path)]) == 73
    output = capsys.readouterr()
    assert output.err.startswith(f"error: {busy} is in use by process {os.getpid()}")
    assert len(output.err.splitlines()) == 1
    assert f"{other}: 3 lines of 1 seed\n" in output.out
    assert event_files(busy) == []
    assert len(event_files(other)) == 2


def test_what_can_not_be_written_is_named_and_the_others_are_written(train, tmp_path, capsys):
    broken, other = (train("train.steps=2", f"model={model}").folder for model in ("rnn", "gru"))
    damage_delete(event_files(tmp_path))
    shutil.rmtree(broken / "aggregate")
    (broken / "aggregate").write_text("in the way")
    assert main([str(tmp_path)]) == 74
    assert capsys.readouterr().err == f"error: {broken / 'aggregate'}: events can't be written: File exists\n"
    assert len(event_files(other)) == 2


@pytest.mark.parametrize(("arguments", "words"), [
    (["absent"], "absent: no such folder"),
    (["file"], "file: is not a folder"),
    (["empty"], "no runs in empty"),
    (["empty\0"], "no such folder"),
    (["~nobody_at_all"], "~nobody_at_all: Could not determine"),
    (["x" * 300], "File name too long"),
    ([], "the following arguments are required: RUNS"),
    (["--fast", "runs"], "unrecognized arguments: --fast"),
])  # fmt: skip
def test_a_mistake_costs_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert len(error.splitlines()) == 1
    assert len(list(tmp_path.rglob("*"))) == 2


# A broken view is not a broken run.

STEPS = ("train.steps=20", "log.every=1", "eval.every=5", "probe.every=2", "seeds=2", "train.stop_when_solved=false")


def warnings_in(text):
    return [line for line in text.splitlines() if "no TensorBoard events from here on" in line]


def last_step(run, seed):
    return list(read_lines(run / f"seed_{seed}" / "metrics.jsonl"))[-1]["step"]


def test_a_broken_view_warns_once_and_again_for_the_next_run(tmp_path, caplog):
    (tmp_path / "run" / "seed_0").mkdir(parents=True)
    (tmp_path / "run" / "aggregate").write_text("")
    for count in (1, 2):
        first, second = (TensorBoardView(tmp_path / "run" / "aggregate") for _ in range(2))
        for view in (first, second):
            view.scalars(1, {"train/loss": 1.0})
            view.publish()
            view.close()
        assert len(warnings_in(caplog.text)) == count
        del first, second, view
    assert f"{tmp_path / 'run'}: no TensorBoard events from here on (aggregate: File exists)" in caplog.text
    with pytest.raises(FileExistsError):
        TensorBoardView(tmp_path / "run" / "aggregate", strict=True)


def test_a_file_in_the_aggregates_place(train, caplog):
    folder = train(*STEPS, "name=place").folder
    shutil.rmtree(folder)
    folder.mkdir()
    link = folder / "aggregate"
    link.symlink_to("/dev/null/nowhere")  # stays when a run begins, and no folder can be made there
    assert train(*STEPS, "name=place").summaries[0]["status"] == "done"
    assert len(warnings_in(caplog.text)) == 1
    assert last_step(folder, 0) == last_step(folder, 1) == 20
    assert len(event_files(folder)) == 2


def test_going_on_with_a_file_in_the_aggregates_place(tmp_path, caplog):
    folder = start(tmp_path, "seeds=2", stop_at=13).folder
    shutil.rmtree(folder / "aggregate")
    (folder / "aggregate").write_text("in the way")
    assert {s["status"] for s in start(tmp_path, "seeds=2").summaries} == {"done"}
    assert len(warnings_in(caplog.text)) == 1
    assert (folder / "aggregate").read_text() == "in the way"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_an_aggregate_that_may_not_be_written(tmp_path, caplog):
    folder = start(tmp_path, "seeds=2", stop_at=13).folder
    (folder / "aggregate").chmod(0o500)
    try:
        assert {s["status"] for s in start(tmp_path, "seeds=2").summaries} == {"done"}
    finally:
        (folder / "aggregate").chmod(0o700)
    assert len(warnings_in(caplog.text)) == 1


@pytest.mark.parametrize("after", [0, 1, 7, 40])
def test_a_disk_that_fills_up_costs_one_warning(after, train, monkeypatch, caplog):
    write = RecordWriter.write
    count = 0

    def filling(self, data):
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", filling)
    outcome = train(*STEPS)
    assert {s["status"] for s in outcome.summaries} == {"done"}
    assert len(warnings_in(caplog.text)) == 1
    assert "No space left on device" in caplog.text
    assert last_step(outcome.folder, 0) == last_step(outcome.folder, 1) == 20
    monkeypatch.undo()
    assert main([str(outcome.folder)]) == 0
    whole = train(*STEPS, "overwrite=true").folder
    anew = views(whole)
    assert main([str(whole)]) == 0
    assert views(whole) == anew


def test_a_real_limit_on_the_size_of_files(tmp_path):
    """As a full disk: pictures make the events larger than the record."""
    command = [sys.executable, "-m", "rnnlstm.train", *SMALL, *STEPS, "probe.every=1", f"runs_root={tmp_path}"]
    limit = 80_000  # bytes

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, preexec_fn=limited)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(warnings_in(done.stderr)) == 1
    assert "File too large" in done.stderr
    (folder,) = tmp_path.glob("*/*")
    assert max(path.stat().st_size for path in event_files(folder)) == limit
    for seed in (0, 1):
        assert last_step(folder, seed) == 20
        assert json.loads((folder / f"seed_{seed}" / "summary.json").read_text())["status"] == "done"
        assert 0 < (folder / f"seed_{seed}" / "metrics.jsonl").stat().st_size < limit
        assert (folder / f"seed_{seed}" / "weights.pt").exists()
