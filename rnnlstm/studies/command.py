"""The command's work: studies one after another, with what is being done, table and verdict on the terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rnnlstm.jobs.job import Job
from rnnlstm.studies.report import result, write
from rnnlstm.studies.rows import Row
from rnnlstm.studies.study import Study
from rnnlstm.studies.table import text_table
from rnnlstm.studies.training import Runner, StoppedError
from rnnlstm.training.progress import Progress, progress_on


def reproduce(chosen: Sequence[Study], size: str, runs: Path, out: Path) -> signal.Signals | None:
    """Run the studies; returns the signal that stopped them, if one did.

    Raises: ConfigError, JobError, BusyError, CheckpointError, DiskError.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 180

    def progress(job: Job) -> Progress:
        return progress_on(console, job.config)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    for study in chosen:
        say(f"== {study.name} ({size}): {study.title}")
        began = time.monotonic()
        runner = Runner(study, size, runs / study.name / size, say, progress)
        try:
            rows = runner.rows()
        except StoppedError as stopped:
            print(
                f"stopped by {stopped.signal.name}; what was reached is saved, the same command goes on",
                file=sys.stderr,
            )
            return stopped.signal
        trained = study.sweep(size) is not None
        seconds = runner.seconds() if trained else time.monotonic() - began
        data = result(study, size, rows, seconds)
        paths = write(study, data, out)
        _show(console, study, rows)
        for check in data["checks"]:
            say(f"{'pass' if check['passed'] else 'MISS'}  {check['text']}: {check['measured']}")
        say(f"{study.name} ({size}): {data['verdict'].upper()}, {seconds:.0f} s of training; {paths[1].parent}\n")
    return None


def _show(console: Console, study: Study, rows: Sequence[Row]) -> None:
    head, *lines = text_table(rows, study.columns)
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for line in lines:
        table.add_row(*line)
    console.print(table, markup=False)
