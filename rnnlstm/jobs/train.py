"""Trains what a command line asks for: the one place that chooses between a job, a sweep and a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rnnlstm.config.errors import ConfigError
from rnnlstm.config.schema import SlurmOptions
from rnnlstm.jobs.job import Job, compose_jobs, split_groups
from rnnlstm.jobs.listener import Listener
from rnnlstm.jobs.search import Search, ranking
from rnnlstm.jobs.sweep import check_jobs, train_jobs


def train(
    overrides: Sequence[str],
    multirun: bool,
    listener: Listener,
    apart: bool,
    config_dir: str | None = None,
    command: str | None = None,
) -> list[str]:
    """Train what a command line of `rnnlstm.train` asks for: one job, a sweep, or a search. A signal stops it early.

    Groups of settings after `--` make it a sweep. `apart`: each job of a sweep or search has its own process, where
    it can crash alone.
    `command` is what was typed, for the run folders; None: `rnnlstm.run(…)`.
    Returns the ranking of a search as lines of text; nothing for jobs. Raises: ConfigError before anything is trained
    or written; DiskError; KeyboardInterrupt; what `listener` raises.
    """
    asked = _compose(overrides, multirun, config_dir)
    command = f"rnnlstm.run({['-m'] * multirun + [*overrides]})" if command is None else command
    if isinstance(asked, Search):
        search, search.command = asked, command
        if _cancelled(search.jobs, listener, search.folder.name):
            return []
        listener.planned(search.options.trials, search=True)
        search.run(listener, apart)
        return ranking(search, config_dir)
    jobs = [replace(job, command=command) for job in asked]
    if _cancelled(jobs, listener):
        return []
    listener.planned(len(jobs), search=False)
    train_jobs(jobs, listener, apart=apart and len(jobs) > 1)
    return []


def dry_run(overrides: Sequence[str], multirun: bool, config_dir: str | None = None) -> Search | list[Job]:
    """What `train` would train: checked as `train` checks it, and nothing is written. Raises: ConfigError."""
    asked = _compose(overrides, multirun, config_dir)
    if not isinstance(asked, Search):
        check_jobs(asked)
    return asked


def _compose(overrides: Sequence[str], multirun: bool, config_dir: str | None) -> Search | list[Job]:
    common, groups = split_groups(overrides)
    if (multirun or groups) and _asks_for_search(overrides):
        if groups:
            raise ConfigError("search=optuna has one space, and takes no groups of settings after --")
        if any(word.startswith("from=") for word in overrides):
            raise ConfigError("from=RUN is for jobs and sweeps: a search composes each trial by itself")
        return Search(overrides, config_dir)
    return compose_jobs(common, multirun or bool(groups), config_dir, groups=groups or ((),))


def _asks_for_search(overrides: Sequence[str]) -> bool:
    chosen = [text for text in overrides if text.partition("=")[0].strip() == "search"]
    return bool(chosen) and chosen[-1].partition("=")[2].strip() == "optuna"


def _cancelled(jobs: Sequence[Job], listener: Listener, name: str = "") -> bool:
    """Whether the command is to end what an earlier one has submitted, which is then done."""
    options = jobs[0].config.launcher
    if not isinstance(options, SlurmOptions) or not options.cancel:
        return False
    from rnnlstm.jobs.slurm import cancel

    listener.note(cancel(jobs, name))
    return True
