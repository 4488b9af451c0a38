"""A run folder from others is a closed box: nothing in it leads a command to write, cut or delete a file elsewhere,
or to wait for ever."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tracemalloc
from pathlib import Path

import pytest

from rnnlstm import compare, events
from rnnlstm.config.errors import CheckpointError, DiskError, OptionError
from rnnlstm.jobs.listener import _last_step
from rnnlstm.reporting.runs import held
from rnnlstm.training.plan import make_plan

from support.resuming import assert_same, start
from support.run_folders import make_run
from support.training import compose

pytestmark = pytest.mark.slow

SEEDS = ("seeds=2", "probe.every=2")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two seeds that was stopped at update 5."""
    return start(tmp_path_factory.mktemp("begun"), *SEEDS, stop_at=5).folder


def copy_of(begun: Path, root: Path) -> Path:
    """The same run below another `runs_root`."""
    folder = root / begun.parent.name / begun.name
    shutil.copytree(begun, folder)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = (".lock", "seed_0/metrics.jsonl", "seed_0/samples.jsonl", "seed_1/flow.jsonl", "seed_1/clip_events.jsonl")
FOLDERS = ("seed_0", "seed_1", "aggregate", "checkpoints")


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_link_in_a_run_folder_leads_no_command_out_of_it(name, begun, tmp_path, capsys, caplog):
    folder = copy_of(begun, tmp_path / "runs")
    outside = tmp_path / "outside" / Path(name).name
    outside.parent.mkdir()
    (folder / name).rename(outside)
    if outside.is_dir():
        (outside / "events.out.tfevents.1.notes.1").write_text("a user's")
    (folder / name).symlink_to(outside)
    before = contents(outside.parent)
    make_run(tmp_path / "runs" / "keyword_T50" / "other", seeds=1)

    code = events.main([str(tmp_path / "runs")])
    output = capsys.readouterr()
    refused = name == ".lock" or name in FOLDERS
    assert code == (74 if refused else 0)
    if refused:
        assert f"{folder}: events can't be written: {folder / name} is a link" in output.err
    assert "lines of 1 seed\n" in output.out  # the other run
    assert contents(outside.parent) == before

    for more in ((), ("overwrite=true",)):
        if more and name in FILES[1:]:
            continue  # the seeds' folders are made again
        with pytest.raises((DiskError, CheckpointError), match=r"is a link|is no file"):
            start(tmp_path / "runs", *SEEDS, *more)
        assert contents(outside.parent) == before

    caplog.clear()
    assert compare.main([str(tmp_path / "runs")]) == 0
    if name.startswith("seed") and name in FOLDERS:
        assert f"{folder / name}: is a link, and nothing in a run folder may be one" in caplog.text


@pytest.mark.parametrize("name", [".lock", "seed_0/metrics.jsonl", "seed_0", "checkpoints", "aggregate"])
def test_a_link_to_nothing_makes_nothing_elsewhere(name, begun, tmp_path):
    folder = tmp_path / "runs" / begun.parent.name / begun.name
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(tmp_path / "outside")
    for arguments in ((), ("overwrite=true",)):
        if name == "aggregate":  # a view: a warning
            start(tmp_path / "runs", *SEEDS, *arguments, "train.steps=30")
        elif name == "seed_0/metrics.jsonl":  # the seed starts again
            assert start(tmp_path / "runs", *SEEDS, *arguments).summaries[0]["status"] == "done"
        else:
            with pytest.raises(DiskError, match=r"is a link|File exists"):
                start(tmp_path / "runs", *SEEDS, "checkpoint.every=5", *arguments)
        events.main([str(tmp_path / "runs")])
        assert not (tmp_path / "outside").exists()


def test_a_file_with_a_second_name_elsewhere_is_not_written_into(begun, tmp_path):
    folder = copy_of(begun, tmp_path / "runs")
    for name in FILES:
        outside = tmp_path / "elsewhere"
        (folder / name).rename(outside)
        os.link(outside, folder / name)
        before = outside.read_bytes()
        with pytest.raises(DiskError, match=rf"{Path(name).name} has a second name elsewhere"):
            start(tmp_path / "runs", *SEEDS)
        assert outside.read_bytes() == before
        (folder / name).unlink()
        outside.rename(folder / name)


def test_folders_above_a_run_folder_and_the_run_folder_may_be_links(begun, tmp_path):
    whole = start(tmp_path / "whole", *SEEDS)
    disk = tmp_path / "disk"
    copy_of(begun, disk / "runs")
    (disk / "runs" / begun.parent.name / begun.name).rename(disk / "the run")
    (disk / "runs" / begun.parent.name / begun.name).symlink_to(disk / "the run")
    (tmp_path / "runs").symlink_to(disk / "runs")
    assert_same(start(tmp_path / "runs", *SEEDS), whole, [0, 1])
    assert events.main([str(tmp_path / "runs" / begun.parent.name / begun.name)]) == 0


def test_events_replace_events_and_no_other_file_with_such_a_name(tmp_path):
    run = make_run(tmp_path / "run", seeds=1)
    for name in ("my_tfevents.txt", "tfevents", "notes.out.tfevents.1.x.1"):
        (run / "seed_0" / name).write_text("a user's")
    for _ in range(2):
        assert events.main([str(tmp_path)]) == 0
    assert len(list((run / "seed_0").glob("events.out.tfevents.*"))) == 1
    assert len(list((run / "seed_0").glob("*tfevents*"))) == 4


LOCKS = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "deeply nested": lambda path: path.write_text("[" * 4000),
    "a list": lambda path: path.write_text("[1]"),
    "numbers": lambda path: path.write_text(json.dumps({"pid": 1e300, "host": socket.gethostname()})),
    "a number of thousands of digits": lambda path: path.write_text('{"pid": ' + "9" * 4080 + "}"),
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "200 MB": lambda path: (path.touch(), os.truncate(path, 200_000_000)),
}


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_stops_a_comparison_or_the_events_of_other_runs(name, tmp_path, capsys):
    for run in ("bad", "good"):
        make_run(tmp_path / run, seeds=1, status="running")
    LOCKS[name](tmp_path / "bad" / ".lock")
    tracemalloc.start()
    try:
        assert held(tmp_path / "bad") is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert compare.main([str(tmp_path)]) == 0
    assert events.main([str(tmp_path)]) == (74 if name in ("a pipe", "a folder", "a link") else 0)
    assert "good: 3 lines of 1 seed" in capsys.readouterr().out


def test_no_pipe_is_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert _last_step(pipe) == 0
    with pytest.raises(OptionError, match=r"filler=.*pipe: can't be read \(is no file\)"):
        make_plan(compose(f"task.filler={pipe}").config)
