"""The trainer from Python: `rnnlstm.run(["task=adding", "seeds=3"])`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnnlstm.jobs.job import Job, compose_jobs

if TYPE_CHECKING:
    from rnnlstm.training.signals import Outcome


def run(overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Train as `python -m rnnlstm.train` does with these arguments, `-m` for a sweep or a search among them.

    The jobs of a sweep share this process, in which classes of your own are registered; one with a `job_timeout` has
    its own. Returns the summaries of all replicas, as in `summary.json`, each with its `folder`.
    Raises: ConfigError for a bad configuration, before anything is written; the first job's own error if
    one failed, after the others have run; KeyboardInterrupt if it was stopped.
    """
    from rich.console import Console

    from rnnlstm.jobs.launch import train_jobs
    from rnnlstm.jobs.search import Search, wanted
    from rnnlstm.training.progress import Progress, progress_on

    console = Console()

    def progress(job: Job) -> Progress:
        return progress_on(console, job.config)

    sweep = [o for o in overrides if o not in ("-m", "--multirun")]
    summaries: list[dict[str, Any]] = []
    failures: list[Exception] = []
    stopped = False

    def ended(number: int, job: Job, outcome: Outcome | Exception) -> None:
        nonlocal stopped
        if isinstance(outcome, Exception):
            failures.append(outcome)
            return
        stopped = stopped or outcome.stopped_by is not None
        summaries.extend({**s, "folder": str(outcome.folder / f"seed_{s['seed']}")} for s in outcome.summaries)

    multirun = len(sweep) != len(overrides)
    if multirun and wanted(sweep):
        Search(sweep).run(lambda *_: None, ended, progress, apart=False)
    else:
        jobs = compose_jobs(sweep, multirun)
        train_jobs(jobs, lambda *_: None, ended, progress, apart=False)
    if failures:
        raise failures[0]
    if stopped:
        raise KeyboardInterrupt
    return summaries
