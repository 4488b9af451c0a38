"""The disk fails: a run ends with 74 and one line, what was good stays good, and it goes on once there is room."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from rnnlstm.config.errors import DiskError
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.files import LineWriter, read_lines
from rnnlstm.training.loop import Outcome, train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support import warm
from support.resuming import SMALL, assert_same

OVERRIDES = (*SMALL, "model=lstm", "seeds=2", "checkpoint.every=6", "threads=1")


class FailingDisk:
    """Counts what is asked of the disk; call number `at`, and all that follow, fail."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int | None, error: int = errno.ENOSPC) -> None:
        self.calls, self.at, self.error = 0, at, error
        for place, name in ((os, "fsync"), (Path, "replace"), (Path, "mkdir"), (LineWriter, "write")):
            patch.setattr(place, name, self._failing(getattr(place, name)))

    def _failing(self, real):
        def call(*arguments, **options):
            self.calls += 1
            if self.at is not None and self.calls >= self.at:
                raise OSError(self.error, os.strerror(self.error))
            return real(*arguments, **options)

        return call


@pytest.mark.slow
def test_wherever_the_disk_fails_the_run_goes_on_from_its_last_good_state(tmp_path):
    (whole,) = compose_jobs([*OVERRIDES, f"runs_root={tmp_path / 'whole'}"])
    plan = make_plan(whole.config)
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, None)
        unbroken = train_run(plan, whole.folder, Progress())
    draw = random.Random(0)
    for number, at in enumerate(sorted(draw.sample(range(1, disk.calls), 10))):
        broken = tmp_path / f"broken{number}" / whole.folder.name
        with pytest.MonkeyPatch.context() as patch:
            FailingDisk(patch, at, draw.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS]))
            with pytest.raises(DiskError, match=r"can't write results in .*: [A-Z][a-z]"):
                train_run(plan, broken, Progress())
        assert not list(broken.rglob("*.tmp"))
        assert_same(train_run(plan, broken, Progress()), unbroken, [0, 1])


def run(*overrides, limit=None):
    """Train in a process whose files may not be larger than `limit` bytes: what a full disk looks like to it."""
    done = warm.run("rnnlstm.train", *OVERRIDES, *overrides, file_size=limit)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The outcome of 120 updates on a disk that doesn't fail."""
    (job,) = compose_jobs([*OVERRIDES, "train.steps=120", f"runs_root={tmp_path_factory.mktemp('whole')}"])
    return train_run(make_plan(job.config), job.folder, Progress())


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3_000, 12_000, 30_000])  # the configuration's, a checkpoint's, a record's size
def test_a_full_disk_ends_a_run_with_74_and_the_same_command_goes_on(limit, tmp_path, unbroken):
    steps = "train.steps=120"
    code, errors = run(steps, f"runs_root={tmp_path / 'broken'}", limit=limit)
    assert code == 74, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: can't write results in ")
    assert errors.rstrip().endswith(": File too large")
    assert not list(tmp_path.rglob("*.tmp"))
    code, errors = run(steps, f"runs_root={tmp_path / 'broken'}")
    assert code == 0, errors
    assert_same(Outcome(*tmp_path.glob("broken/*/*"), []), unbroken, [0, 1])


@pytest.fixture
def mounted():
    """Mount a small disk of its own on a folder; gone after the test."""
    with contextlib.ExitStack() as stack:

        def mount(place, options):
            place.mkdir(parents=True)
            program = shutil.which("mount")
            line = [str(program), "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
            if not program or subprocess.run(line, capture_output=True, check=False).returncode:
                pytest.skip("mounting a disk is not allowed here")
            stack.callback(subprocess.run, ["umount", str(place)], check=True)
            return place

        yield mount


@pytest.mark.slow
def test_a_disk_that_fills_up_and_gets_larger(mounted, tmp_path):
    small_disk = mounted(tmp_path / "disk", "size=600k")
    steps = "train.steps=400"
    assert run(steps, f"runs_root={tmp_path / 'whole'}") == (0, "")
    code, errors = run(steps, f"runs_root={small_disk}")
    assert code == 74, errors
    assert errors.splitlines()[-1].endswith(": No space left on device")
    assert len(list(small_disk.rglob("*.pt"))) >= 2
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    code, errors = run(steps, f"runs_root={small_disk}")
    assert code == 0, errors
    assert "starts again" not in errors
    assert_same(*(Outcome(*place.glob("*/*"), []) for place in (small_disk, tmp_path / "whole")), [0, 1])


@pytest.mark.slow
def test_a_read_only_tensorboard_folder_costs_one_warning(mounted, tmp_path):
    (job,) = compose_jobs([*OVERRIDES, f"runs_root={tmp_path}"])
    mounted(job.folder / "aggregate", "ro,size=4k")
    code, errors = run(f"runs_root={tmp_path}")
    assert code == 0, errors
    (warning,) = errors.splitlines()
    assert "no TensorBoard events from here on (aggregate: Read-only file system)" in warning
    for seed in (0, 1):
        assert list(job.folder.glob(f"seed_{seed}/events.out.tfevents.*"))
        assert list(read_lines(job.folder / f"seed_{seed}" / "metrics.jsonl"))[-1]["step"] == 30
