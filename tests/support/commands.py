"""Commands in a process of their own."""

from __future__ import annotations

import os

from support.warm import run

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def train(folder, *arguments, command="train"):
    return run(f"rnnlstm.{command}", *arguments, cwd=folder, env=ENVIRONMENT)
