"""What the tests share: few threads, and short ways to a composed plan and a finished run."""

from __future__ import annotations

import pytest
import torch

from rnnlstm.jobs.job import compose_jobs
from rnnlstm.training.loop import Outcome, train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support.training import SMALL

torch.set_num_threads(1)


@pytest.fixture
def train(tmp_path):
    """`train("task=copy", …)` trains a small network under `tmp_path` and returns the run's outcome."""

    def start(*overrides: str, progress: Progress | None = None) -> Outcome:
        arguments = [*SMALL, f"runs_root={tmp_path}", *overrides]
        (job,) = compose_jobs(arguments)
        return train_run(make_plan(job.config), job.folder, progress or Progress())

    return start
