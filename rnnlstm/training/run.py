"""One run: a configuration's replicas trained to their end, from wherever an earlier attempt has come to."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import torch

from rnnlstm.exits import DiskError
from rnnlstm.record.endings import summaries
from rnnlstm.record.lock import locked
from rnnlstm.training.loop import Loop
from rnnlstm.training.outcome import Outcome
from rnnlstm.training.pending import pending
from rnnlstm.training.plan import Plan
from rnnlstm.training.progress import Progress


def train_run(plan: Plan, folder: Path, progress: Progress) -> Outcome:
    """Train, evaluate and record the replicas of `plan` in `folder`: those that have not finished there, from their
    last checkpoint on where there is one. `overwrite` begins anew.

    Raises: DiskError if the record can't be written; BusyError if another process has the folder; CheckpointError if
    there are checkpoints and none is good.
    """
    if plan.config.threads is not None:
        torch.set_num_threads(plan.config.threads)
    try:
        with locked(folder):
            todo = pending(folder, plan.config)
            stopped = None
            for work in todo:
                with ExitStack() as opened:
                    stopped = Loop(plan, work, folder, opened, progress).complete()
                if stopped is not None:
                    break
            return Outcome(folder, summaries(folder, plan.config.seed_numbers), stopped, trained=bool(todo))
    except OSError as error:
        raise DiskError(f"can't write results in {folder}: {error.strerror or error}") from error
