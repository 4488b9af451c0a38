"""What commands write where a user says: regular files in one step, pipes and devices as they are, and a full disk in
one line."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import subprocess
import sys
import threading

import pytest

from rnnlstm import compare
from rnnlstm.cli.exits import guarded
from rnnlstm.config.errors import DiskError
from rnnlstm.record.files import write_output
from rnnlstm.reporting.tables import csv_text, write_csv

from support.run_folders import make_run


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "runs" / "one", model__hidden_size=8)
    make_run(tmp_path / "runs" / "two", model__hidden_size=9)
    return tmp_path / "runs"


@contextlib.contextmanager
def reader(pipe):
    """A program that reads a pipe to its end."""
    read = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    thread.start()
    yield read
    thread.join(10)


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_pipe_is_written_into_and_stays_a_pipe(option, runs, tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert compare.main([str(runs), option, str(pipe)]) == 74
    assert f"can't write {pipe}: no program reads from it" in capsys.readouterr().err
    with reader(pipe) as read:
        assert compare.main([str(runs), option, str(pipe)]) == 0
    assert read[0].startswith((b"task,length", b"<!DOCTYPE html>"))
    assert pipe.is_fifo()


@pytest.mark.slow
def test_a_picture_goes_through_a_pipe_in_the_folder(runs, tmp_path):
    (tmp_path / "pictures").mkdir()
    pipe = tmp_path / "pictures" / "survival.png"
    os.mkfifo(pipe)
    with reader(pipe) as read:
        assert compare.main([str(runs), "--figures", str(pipe.parent)]) == 0
    assert read[0].startswith(b"\x89PNG")
    assert pipe.is_fifo()


def test_devices_and_links_stay_what_they_are(tmp_path):
    write_output(tmp_path / "new", b"1")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    write_output(tmp_path / "link", b"2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").read_bytes() == b"2"
    (tmp_path / "null").symlink_to("/dev/null")
    write_output(tmp_path / "null", b"3")
    assert (tmp_path / "null").is_char_device()
    with pytest.raises(IsADirectoryError):
        write_output(tmp_path, b"4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new", "null"]


def compared(runs, *arguments, **options):
    line = [sys.executable, "-m", "rnnlstm.compare", str(runs), *arguments]
    return subprocess.run(line, check=False, text=True, stderr=subprocess.PIPE, timeout=60, **options)


@pytest.mark.slow
def test_the_standard_output_takes_the_table_and_the_csv(runs, tmp_path):
    with (tmp_path / "out").open("w") as out:
        assert compared(runs, "--csv", "/dev/stdout", stdout=out).returncode == 0
    text = (tmp_path / "out").read_text()
    assert text.index("Equal in all") < text.index("task,length,model") < text.index("Written: /dev/stdout")


@pytest.mark.slow
def test_a_full_disk_beneath_the_output_is_one_line(runs):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = compared(runs, stdout=full)
    assert done.returncode == 74
    assert done.stderr == "error: can't write to standard output: No space left on device\n"


def test_an_error_that_is_not_the_disks_keeps_its_traceback():
    def command():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x")

    with pytest.raises(PermissionError):
        guarded(command)


@pytest.mark.parametrize("option", ["--csv", "--figures", "--html"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(option, runs, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    old = folder / "learning_curves.png"
    old.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    assert compare.main([str(runs), option, str(folder if option == "--figures" else old)]) == 74
    assert capsys.readouterr().err.endswith(": No space left on device\n")
    assert [path.name for path in folder.iterdir()] == [old.name]
    assert old.read_text() == "old"


def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FORMULAS = ("=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|'x'", "\tx", "\rx", "-x", "+x")
HARMLESS = ("a=1", "-1.5", "+2", "-1e-3", "1-2", "lstm", "−3")


def test_a_text_of_others_is_no_formula_in_a_spreadsheet(tmp_path):
    (line,) = csv.reader(io.StringIO(csv_text([[*FORMULAS, *HARMLESS, -1.5, None]])))
    assert line == [*(f"'{text}" for text in FORMULAS), *HARMLESS, "-1.5", ""]
    for number, text in enumerate(FORMULAS):
        make_run(tmp_path / "runs" / str(number), seeds=1, note=text, **{f"{text.strip()}x": number})
    from rnnlstm.reporting.selection import compare as compare_runs

    comparison = compare_runs([str(tmp_path / "runs")], [], [])
    write_csv(comparison.rows, str(tmp_path / "table.csv"))
    table = io.StringIO((tmp_path / "table.csv").read_bytes().decode(), newline="")
    cells = [cell for line in csv.reader(table) for cell in line]
    assert {f"'{text}" for text in FORMULAS} <= set(cells)
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+c", "-x", "+x"))]
    with pytest.raises(DiskError):
        write_csv(comparison.rows, str(tmp_path))
