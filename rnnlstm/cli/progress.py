"""What `rnnlstm.train` prints about its jobs, and the exit code that follows from how they ended."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from rnnlstm.cli.exits import DONE, JOB_FAILED, code_of, fail
from rnnlstm.cli.look import look
from rnnlstm.jobs.failures import failure_log, failure_reason
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.listener import Listener
from rnnlstm.training.progress import duration, progress_on
from rnnlstm.training.signals import stop_line

if TYPE_CHECKING:
    from rnnlstm.jobs.listener import Standing
    from rnnlstm.training.progress import Progress
    from rnnlstm.training.signals import Outcome

PRINT_EVERY = 10.0  # seconds, where a line can't be redrawn


class TerminalListener(Listener):
    """Prints a line when a job starts and one for each replica that ended. `code` is the exit code so far."""

    def __init__(self) -> None:
        self.code = DONE
        self.console = Console(highlight=False, soft_wrap=True)
        self._jobs, self._search = 1, False
        self._failed, self._stopped = 0, False
        self._sweep = SweepProgress(self.console)
        self._roots: list[str] = []
        self._summaries: list[dict[str, Any]] = []
        self._log_every = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._sweep.close(self._failed, summarise=kind in (None, KeyboardInterrupt) and not self._search)

    def planned(self, jobs: int, search: bool) -> None:
        self._jobs, self._search = jobs, search

    def note(self, line: str) -> None:
        self.console.print(line, markup=False)

    def started(self, number: int, job: Job) -> None:
        count = f"[{number + 1}/{self._jobs}] " if self._jobs > 1 else ""
        self.console.print(f"{count}{os.fspath(job.folder)}", markup=False)

    def progress(self, job: Job) -> Progress:
        return progress_on(self.console, job.config)

    def watching(self, standing: Standing) -> None:
        self._sweep.show(standing, self._failed)

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Exception):
            if self._jobs == 1 and not self._search:
                raise outcome  # the exit code tells what kind of failure it was
            self._failed += 1
            sys.stderr.write(failure_log(outcome))
            self.code = fail(f"{job.folder}: {failure_reason(outcome)}", JOB_FAILED)
            return
        self._roots.append(job.config.runs_root)
        self._summaries += outcome.summaries
        self._log_every = min(self._log_every or job.config.log.every, job.config.log.every)
        if not outcome.trained:
            self.console.print("  finished already; overwrite=true trains it again", markup=False)
        for summary in outcome.summaries:
            self.console.print(self._wrapped(f"  {summary_line(summary)}"), markup=False)
        if outcome.stopped_by is not None and not self._stopped:
            self._stopped = True
            self.code = code_of(outcome.stopped_by)
            print(stop_line(outcome.stopped_by), file=sys.stderr, flush=True)
            from rnnlstm.jobs.slurm import queue_again

            queue_again(outcome.stopped_by)

    def how_to_look(self) -> list[str]:
        """The last lines of the command: TensorBoard over the runs that were trained; none if there are none."""
        return look(self._roots, self._summaries, self._log_every) if self._summaries else []

    def _wrapped(self, text: str) -> str:
        """On a terminal, lines of its width, broken between words; elsewhere the text as it is."""
        if not self.console.is_terminal:
            return text
        return textwrap.fill(
            text, self.console.width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )


def summary_line(s: dict[str, Any]) -> str:
    """How a replica ended, in one line."""
    if s["status"] == "diverged":
        end = f"diverged: {s['reason']}"
    elif s["solved"]:
        end = f"solved at step {s['steps_to_solve']:,}"
    else:
        end = f"{s['status']}, not solved in {s['steps']:,} steps"
    parts = [f"seed {s['seed']}", end]
    if s["metric"] is not None:
        parts += [f"{s['metric_name']} {s['metric']:.4g}", f"loss {s['loss']:.4g} (baseline {s['baseline']:.4g})"]
    parts.append(f"clipped {s['clip_rate']:.0%}")
    if s["steps_per_second"]:
        parts.append(f"{s['steps_per_second']:.1f} steps/s")
    return "   ".join(parts)


class SweepProgress:
    """The state of a sweep on a launcher: redrawn in place on a terminal, elsewhere a line when a
    job starts, one every ten seconds, and one at the end.

    Prints nothing before `show` is called: jobs that run in turn have a progress line each.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last: Standing | None = None
        self._printed = time.monotonic()
        self._begun: set[int] = set()  # jobs whose start was printed

    def show(self, standing: Standing, failed: int) -> None:
        self._last = standing
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(Text(line(standing, failed)), refresh=True)
            return
        for number in sorted(set(standing.running) - self._begun):
            self._begun.add(number)
            self._console.print(
                f"[{number + 1}/{standing.total}] {standing.running[number].folder}: started", markup=False
            )
        if time.monotonic() - self._printed >= PRINT_EVERY:
            self._printed = time.monotonic()
            self._console.print(line(standing, failed), markup=False)

    def close(self, failed: int, summarise: bool = True) -> None:
        if self._live is not None:
            self._live.stop()
        if self._last is not None and summarise:
            self._console.print(line(self._last, failed), markup=False)


def line(standing: Standing, failed: int) -> str:
    """`12 of 40 jobs ended, 1 failed, 8 running, 3:20 left`."""
    parts = [f"{standing.ended:,} of {standing.total:,} jobs ended"]
    if failed:
        parts.append(f"{failed:,} failed")
    if standing.stopped:
        parts.append(f"{standing.stopped:,} stopped")
    if standing.not_begun:
        parts.append(f"{standing.not_begun:,} not begun")
    if standing.running:
        parts.append(f"{len(standing.running):,} running")
    parts += [f"{count:,} {state}" for state, count in sorted(standing.waiting.items()) if count]
    if standing.running and (seconds := standing.seconds_left) is not None:
        parts.append(f"{duration(seconds)} left")
    return ", ".join(parts)
