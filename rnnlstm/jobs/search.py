"""A search from the command: its trials are ordinary jobs, trained in batches; their run folders hold the results.

`trials.json` in the search's own folder says only which values were tried. Losses are read from the runs themselves,
so that nothing can disagree with them, and a trial that failed is tried again by the same command.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import BusyError, ConfigError, DiskError, OptionError, printable
from rnnlstm.config.schema import OptunaOptions
from rnnlstm.jobs.job import Job, command_plugins, compose_job
from rnnlstm.jobs.launch import check_jobs, train_jobs
from rnnlstm.jobs.launchers.sweep import Ended
from rnnlstm.jobs.search_space import Space, read_space
from rnnlstm.record.files import locked, read_object, write_json
from rnnlstm.record.folders import identity
from rnnlstm.training.signals import Outcome

if TYPE_CHECKING:
    from rnnlstm.jobs.launchers.standing import Standing
    from rnnlstm.training.progress import Progress

LOG = logging.getLogger("rnnlstm")
HIDDEN = ".search"  #: the folder of all searches, under runs_root
TRIALS = "trials.json"


@dataclass(frozen=True)
class Trial:
    number: int  #: from 0
    values: dict[str, str]  #: of each key that is searched, as overrides have them
    job: Job

    @cached_property
    def loss(self) -> float:
        """Once it has been trained: the median over the job's seeds of the final loss. A seed that diverged, failed
        or never ended counts as infinite; of an even number of seeds, it is the mean of the two in the middle.
        """
        found = {s["seed"]: s["loss"] for s in self.job.summaries() if s.get("status") == "done"}
        losses = (found.get(seed) for seed in self.job.config.seed_numbers)
        return statistics.median(math.inf if loss is None or math.isnan(loss) else loss for loss in losses)


class Search:
    """A command's search, checked whole. `trials` are those that have ended so far."""

    def __init__(self, overrides: Sequence[str], config_dir: str | None = None) -> None:
        """Raises: ConfigError for a mistake at either end of any key's space; nothing has been written by then."""
        self._config_dir = config_dir
        with Composer(config_dir).active() as composer:
            self._plugins = command_plugins(composer, overrides)
            self.space = read_space(composer.checked(overrides, intervals=True))
            ends = [
                compose_job(composer, self.space.overrides(values), self._plugins) for values in self.space.ends()
            ]
        config = ends[0].config
        if not isinstance(config.search, OptunaOptions):
            raise OptionError("search", config.search.name, "is taken from the command line only")
        if config.resume == "never":
            raise OptionError("resume", config.resume, "a search goes on with the runs that are there")
        require_optuna()
        check_jobs(ends)
        self.options, self._overwrite = config.search, config.overwrite
        sought = {"space": repr(self.space.dimensions), "chosen by": config.search.seed}
        name = identity({"configuration": identity(config.tree), **sought})
        self.folder = Path(config.runs_root).expanduser() / HIDDEN / name
        self.trials: list[Trial] = []

    def run(
        self,
        started: Callable[[int, Job], None],
        ended: Ended,
        progress_for: Callable[[Job], Progress],
        apart: bool,
        watching: Callable[[Standing], None] = lambda _: None,
    ) -> None:
        """Train trial after trial; those that have been tried before come first. Arguments are those of `train_jobs`.

        Raises: ConfigError, BusyError, CheckpointError, DiskError.
        """
        self._train = _Training(started, ended, progress_for, apart, watching, self._overwrite)
        with self._alone():
            tried = [] if self._overwrite else self._recorded()
            batches = [tried[i : i + self.options.at_once] for i in range(0, len(tried), self.options.at_once)]
            for values in batches:
                if not self._try(values):
                    return
            while len(self.trials) < self.options.trials:
                history = [(trial.values, trial.loss) for trial in self.trials]
                count = min(self.options.at_once, self.options.trials - len(history))
                if not self._try(suggest(self.space, self.options, history, count)):
                    return
                self._record()

    def _try(self, batch: Sequence[dict[str, str]]) -> bool:
        """Whether to go on: the batch has been trained, and no signal has come."""
        with Composer(self._config_dir).active() as composer:
            first = len(self.trials)
            trials = [
                Trial(first + k, values, compose_job(composer, plain(self.space.overrides(values)), self._plugins))
                for k, values in enumerate(batch)
            ]
        if not self._train(trials):
            return False
        self.trials += trials
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process for a search. A search of which nothing has come leaves no folder."""
        holding = locked(self.folder)
        try:
            holding.__enter__()
        except OSError as error:
            raise DiskError(f"can't write to {self.folder}: {error.strerror or error}") from error
        try:
            yield
        finally:
            if not (self.folder / TRIALS).exists():
                shutil.rmtree(self.folder, ignore_errors=True)
                with suppress(OSError):
                    self.folder.parent.rmdir()
            holding.__exit__(None, None, None)

    def _record(self) -> None:
        try:
            write_json(self.folder / TRIALS, {"trials": [trial.values for trial in self.trials]})
        except OSError as error:
            raise DiskError(f"can't write to {self.folder}: {error.strerror or error}") from error

    def _recorded(self) -> list[dict[str, str]]:
        """Values that were tried already; none if the file is damaged: the same would be suggested again."""
        path = self.folder / TRIALS
        try:
            trials = read_object(path)["trials"]
            for values in trials:
                if values.keys() != self.space.dimensions.keys():
                    raise ValueError("its keys are others")
                for key, dimension in self.space.dimensions.items():
                    dimension.value(values[key])
            return list(trials[: self.options.trials])
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            LOG.warning("%s can't be read: %s; the search begins anew", path, printable(str(error)))
            return []


class _Training:
    """Trains trials, each run once; whether to go on. One that has finished is told of, not trained."""

    def __init__(
        self,
        started: Callable[[int, Job], None],
        ended: Ended,
        progress_for: Callable[[Job], Progress],
        apart: bool,
        watching: Callable[[Standing], None],
        overwrite: bool,
    ) -> None:
        self._started, self._ended, self._progress_for = started, ended, progress_for
        self._apart, self._watching, self._overwrite = apart, watching, overwrite
        self._trained: set[Path] = set()  # in this command

    def __call__(self, trials: Sequence[Trial]) -> bool:
        open: dict[Path, Trial] = {}
        for trial in trials:
            job = trial.job
            if job.folder not in self._trained and (self._overwrite or not job.finished()):
                open.setdefault(job.folder, trial)
        numbers = [trial.number for trial in open.values()]
        busy: list[BusyError] = []
        stopped = False

        def ended(k: int, job: Job, ending: Outcome | Exception) -> None:
            nonlocal stopped
            self._trained.add(job.folder)
            if isinstance(ending, BusyError):  # its loss is not known, and will be
                busy.append(ending)
                return
            stopped = stopped or (isinstance(ending, Outcome) and ending.stopped_by is not None)
            self._ended(numbers[k], job, ending)

        if open:
            jobs = [trial.job for trial in open.values()]
            train_jobs(
                jobs,
                lambda k, job: self._started(numbers[k], job),
                ended,
                self._progress_for,
                self._apart,
                self._watching,
                several=True,
            )
        if busy:
            raise busy[0]
        for trial in trials:
            if trial.number not in numbers and not stopped:
                self._started(trial.number, trial.job)
                self._ended(trial.number, trial.job, Outcome(trial.job.folder, trial.job.summaries(), trained=False))
        return not stopped


def wanted(overrides: Sequence[str]) -> bool:
    """Whether a command with -m asks for a search."""
    chosen = [text for text in overrides if text.partition("=")[0].strip() == "search"]
    return bool(chosen) and chosen[-1].partition("=")[2].strip() == "optuna"


def plain(overrides: Sequence[str]) -> list[str]:
    """Without the search's own keys: a trial is a job like any other."""
    return [text for text in overrides if text.partition("=")[0].strip().partition(".")[0] != "search"]


# Which values to try next: Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), as a pure function.
#
# What is suggested depends on the trials before it and on a seed alone, and no sampler's state lives on from batch to
# batch. So a search that was interrupted goes on with the trials that it would have had.


def require_optuna() -> None:
    """Raises: ConfigError if it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("search=optuna needs pip install 'rnnlstm[optuna]'") from None


def suggest(
    space: Space, options: OptunaOptions, history: Sequence[tuple[Mapping[str, str], float]], count: int
) -> list[dict[str, str]]:
    """Values of the next `count` trials. `history` has the values of each earlier trial with its loss, which may be
    infinite; the lowest is the best.
    """
    import optuna
    from optuna.samplers import TPESampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: dimension.distribution() for key, dimension in space.dimensions.items()}
    study = optuna.create_study(direction="minimize")
    for values, loss in history:
        params = {key: dimension.value(values[key]) for key, dimension in space.dimensions.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=loss))
    found = []
    for number in range(len(history), len(history) + count):
        seed = int(np.random.SeedSequence((options.seed, number)).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # A constant liar takes trials that have no result yet for bad ones: trials of a batch keep apart.
            study.sampler = TPESampler(seed=seed, n_startup_trials=options.startup, constant_liar=True)
        params = study.ask(distributions).params
        found.append({key: dimension.text(params[key]) for key, dimension in space.dimensions.items()})
    return found


# What a search came to: its best trials, and the command that trains the best with seeds that had no part in it.

SHOWN = 10  # trials


def ranking(search: Search, config_dir: str | None = None) -> list[str]:
    """Lines of text; none if no trial has ended."""
    if not search.trials:
        return []
    found = sorted(((trial.loss, trial.number, trial) for trial in search.trials), key=lambda entry: entry[:2])
    seeds = search.trials[0].job.config.seed_numbers
    what = "final loss" if len(seeds) == 1 else f"median over {len(seeds)} seeds of the final loss"
    without = sum(math.isinf(loss) for loss, _, _ in found)
    lines = [f"Best of {len(found):,} trials by the {what}{f', {without:,} without one' if without else ''}"]
    rows = [["loss", "trial", "values", "run folder"]]
    for loss, number, trial in found[:SHOWN]:
        values = " ".join(f"{key}={_short(text)}" for key, text in trial.values.items())
        rows.append([f"{loss:.4g}", f"{number + 1}", values, os.fspath(trial.job.folder)])
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines += [f"  {a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows]
    loss, _, best = found[0]
    if math.isfinite(loss):
        words = plain(search.space.overrides(best.values))
        words = [word for word in words if word.partition("=")[0] not in ("seed", "seeds", "overwrite")]
        words += [f"seed={seeds.stop}", f"seeds={len(seeds)}"]
        where = ["--config-dir", config_dir] if config_dir else []
        lines.append("Train the best with seeds that had no part in choosing it:")
        lines.append(f"  {shlex.join(['python', '-m', 'rnnlstm.train', *where, *words])}")
    return lines


def _short(text: str) -> str:
    """A number in few digits; the run folder and the command have all of them."""
    try:
        return f"{float(text):.4g}" if "." in text or "e" in text else text
    except ValueError:
        return text
