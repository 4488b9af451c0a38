"""The trainer from Python: `rnnlstm.run(["task=adding", "seeds=3"])`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnnlstm.jobs.job import Job
from rnnlstm.jobs.listener import Listener
from rnnlstm.jobs.process import own_server
from rnnlstm.jobs.train import train

if TYPE_CHECKING:
    from rnnlstm.training.progress import Progress
    from rnnlstm.training.signals import Outcome


def run(overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Train as `python -m rnnlstm.train` does with these arguments; `-m` makes them a sweep or a search.

    The jobs of a sweep run in this process, so they know the classes that you registered in it. A job with a
    `job_timeout` runs in its own process. Results do not depend on what you have set in PyTorch, such as a default
    dtype or `torch.no_grad()`. Your settings, and Hydra's state, are the same afterwards.
    Returns the summaries of all replicas, as in `summary.json`, each with its `folder`.
    Raises: ConfigError for a bad configuration, before anything is written; the error of the first job that failed,
    after the others have run; KeyboardInterrupt if a signal stopped it.
    """
    from rnnlstm.training.device import own_settings

    collected = _Collector()
    words = [o for o in overrides if o not in ("-m", "--multirun")]
    with own_settings(), own_server():  # also while the configuration is checked: match=step_time trains
        train(words, len(words) != len(overrides), collected, apart=False)
    if collected.failures:
        raise collected.failures[0]
    if collected.stopped:
        raise KeyboardInterrupt
    return collected.summaries


class _Collector(Listener):
    """Shows the progress of each job, and collects how the jobs ended."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console()
        self.summaries: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self.stopped = False

    def progress(self, job: Job) -> Progress:
        from rnnlstm.training.progress import progress_on

        return progress_on(self.console, job.config)

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Exception):
            self.failures.append(outcome)
            return
        self.stopped = self.stopped or outcome.stopped_by is not None
        self.summaries += [{**s, "folder": str(outcome.folder / f"seed_{s['seed']}")} for s in outcome.summaries]
