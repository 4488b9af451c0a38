"""Shared by all tests: few threads, a short way to a finished run, and the marker `slow`.

What needs Hydra is imported where it is used: a machine with a GPU, lent for tests of recurrences, may lack it.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import os
import subprocess

import pytest
import torch

from rnnlstm.recurrence.fused.build import load_kernel
from rnnlstm.training.loop import Outcome, train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support.warm import Command

torch.set_num_threads(1)
os.environ.pop("COLUMNS", None)  # a worker of pytest-xdist has one, and tables would be as narrow

#: Markers of tests that start something, and are slow for that reason.
STARTS = {"server", "browser", "slurm", "ray"}


def pytest_collection_modifyitems(items):
    """Mark as slow what a server, a browser, Slurm or Ray takes part in. Runs before `-m` selects."""
    for item in items:
        if any(mark.name in STARTS for mark in item.iter_markers()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def kernel():
    """Compile the fused kernel, if it is not in the cache, before the tests that must not start a compiler."""
    for dtype in (torch.float32, torch.float64):
        load_kernel(dtype)


@pytest.fixture(autouse=True)
def only_slow_tests_start_processes(request, monkeypatch):
    """Fail a test that starts a process and is marked neither `slow` nor `long`."""
    if any(request.node.get_closest_marker(name) for name in ("slow", "long")):
        yield
        return
    started = []

    def noted(real):
        def call(self, *arguments, **options):
            started.append(arguments[0] if arguments else [type(self).__name__])
            return real(self, *arguments, **options)

        return call

    starts = ((subprocess.Popen, "__init__"), (Command, "__init__"), (multiprocessing.process.BaseProcess, "start"))
    for place, name in starts:
        monkeypatch.setattr(place, name, noted(getattr(place, name)))
    yield
    others = [command for command in started if list(command)[:1] != ["git"]]  # a run's record names its commit
    assert not others, f"starts a process: mark it with @pytest.mark.slow ({others[0]})"


@pytest.fixture(scope="module")
def shared_composer():
    """Let commands in the test's process use composers that are kept: a new one parses the YAML files again, 0.2 s.
    Not for tests that register a cell or a task, which the kept ones would not list."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("jobs.job", "jobs.search", "studies.runner"):
            patch.setattr(f"rnnlstm.{module}.Composer", kept_composer)
        yield


@functools.cache
def kept_composer(extra: str | None = None, also: tuple[str, ...] = ()):
    from rnnlstm.config.compose import Composer

    return Composer(extra, also)


@pytest.fixture
def train(tmp_path):
    """`train("task=copy", …)` trains a small network under `tmp_path` and returns the run's outcome."""
    from support.training import SMALL, compose

    def start(*overrides: str, progress: Progress | None = None) -> Outcome:
        job = compose(*SMALL, f"runs_root={tmp_path}", *overrides)
        return train_run(make_plan(job.config), job.folder, progress or Progress())

    return start
