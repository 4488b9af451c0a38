"""Many seeds need many open files: as many as the system allows are asked for, and too many are refused at the
start."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys

import pytest

from rnnlstm.config.errors import OptionError
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.jobs.sweep import check_jobs
from rnnlstm.record.files import FILES_OF_A_SEED

from support.resuming import SMALL, start


@contextlib.contextmanager
def soft_limit(files):
    """So many more files may be open than now."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + files, limits[1]))  # noqa: PTH208
    try:
        yield
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == limits[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.slow
def test_seeds_train_whose_files_are_more_than_the_soft_limit(tmp_path):
    with soft_limit(20):
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert 8 * FILES_OF_A_SEED > 20
        outcome = start(tmp_path, "seeds=8", "train.steps=2", "probe=off")
        assert [summary["status"] for summary in outcome.summaries] == ["done"] * 8
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft  # the caller's is left as it was


def test_seeds_that_the_hard_limit_does_not_allow_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    jobs = compose_jobs([*SMALL, "seeds=40", f"runs_root={tmp_path / 'runs'}"])
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100, 100))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(OptionError, match=r"seeds=40: needs \d+ open files, and this system allows 100"):
        check_jobs(jobs)
    with pytest.raises(OptionError, match="seeds=40"):
        start(tmp_path / "runs", "seeds=40")
    assert not (tmp_path / "runs").exists()


def refuse(*_):
    raise ValueError


@pytest.mark.slow
def test_256_seeds_train_where_1024_files_are_usual(tmp_path):
    """As docs/scaling.md recommends; and where no more are allowed, the command says so."""
    small = [option for option in SMALL if not option.startswith("probe")]
    line = [sys.executable, "-m", "rnnlstm.train", *small, "seeds=256", "train.steps=1", "probe=off", "threads=1"]
    for name, limit, code in (("small", "-n 1024", 2), ("usual", "-Sn 1024", 0)):
        limited = ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *line, f"runs_root={tmp_path / name}"]
        done = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == code, done.stderr
        assert (tmp_path / name).exists() == (code == 0)
        if code:
            assert len(done.stderr.splitlines()) == 1
            assert "seeds=256: needs 1,3" in done.stderr
    assert len(list((tmp_path / "usual").glob("*/*/seed_*/weights.pt"))) == 256
