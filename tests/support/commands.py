"""Commands in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def train(folder, *arguments, command="train"):
    line = [sys.executable, "-m", f"rnnlstm.{command}", *arguments]
    return subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
