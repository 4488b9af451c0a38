"""Searches: a command tries values of some keys, and ranks them by the loss that they reach.

Each trial is an ordinary job with its own run folder. The file `trials.json` in the search's folder records only the
values that were tried: losses are read from the runs, so the two can't disagree, and the same command retries a trial
that failed.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import shutil
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnlstm.config.compose import Composer, listed, value_text
from rnnlstm.config.errors import BusyError, ConfigError, OptionError, printable, writing
from rnnlstm.config.schema import OptunaOptions
from rnnlstm.jobs.job import Job, Listener, command_plugins, compose_trials
from rnnlstm.jobs.launch import check_jobs, train_jobs
from rnnlstm.record.files import locked, read_object, write_json
from rnnlstm.record.folders import HOUSEKEEPING, identity
from rnnlstm.training.signals import Outcome, StopFlag

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from rnnlstm.jobs.job import Standing
    from rnnlstm.training.progress import Progress

LOG = logging.getLogger("rnnlstm")
HIDDEN = ".search"  #: the folder of all searches, under runs_root
TRIALS = "trials.json"
EXAMPLE = "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
SHOWN = 10  #: trials in the ranking


@dataclass(frozen=True)
class Interval:
    """`interval(low,high)`, ends included: integers with `int(…)`, logarithmic with `tag(log,…)`."""

    low: float
    high: float
    log: bool

    @property
    def ends(self) -> tuple[str, ...]:
        return repr(self.low), repr(self.high)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int):
            return IntDistribution(self.low, int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def text(self, value: Any) -> str:
        """Optuna's value as the text of an override; `value` is the inverse."""
        return repr(value)

    def value(self, text: str) -> Any:
        """Raises: ValueError for a value outside the space."""
        value = int(text) if isinstance(self.low, int) else float(text)
        if not self.low <= value <= self.high:
            raise ValueError(f"{text} is not within {self.low} … {self.high}")
        return value


@dataclass(frozen=True)
class Values:
    """The values of `choice(…)`, `glob(…)` or a list; with `range(…)`, their order matters."""

    texts: tuple[str, ...]
    ordered: bool

    @property
    def ends(self) -> tuple[str, ...]:
        return (self.texts[0], self.texts[-1]) if self.ordered else self.texts

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if self.ordered:
            return IntDistribution(0, len(self.texts) - 1)
        return CategoricalDistribution(self.texts)

    def text(self, value: Any) -> str:
        return self.texts[value] if self.ordered else str(value)

    def value(self, text: str) -> Any:
        """Raises: ValueError for a value outside the space."""
        place = self.texts.index(text)
        return place if self.ordered else text


@dataclass(frozen=True)
class Space:
    """The search space of a command. `words` are its overrides; one that has a space is there as its key alone."""

    words: tuple[str, ...]
    dimensions: Mapping[str, Interval | Values]

    def overrides(self, chosen: Mapping[str, str]) -> list[str]:
        """The overrides of the trial with these values."""
        return [f"{word}={chosen[word]}" if word in chosen else word for word in self.words]

    def ends(self) -> Iterator[dict[str, str]]:
        """Values to check beforehand: each key at each choice or at both ends, with the others at their first."""
        first = {key: space.ends[0] for key, space in self.dimensions.items()}
        yield first
        for key, space in self.dimensions.items():
            yield from ({**first, key: text} for text in dict.fromkeys(space.ends[1:]))


def read_space(overrides: Sequence[Any]) -> Space:
    """The search space of overrides that Hydra has parsed. Raises: ConfigError."""
    words, dimensions = [], {}
    for override in overrides:
        key = override.get_key_element()
        if key in dimensions:  # a later override would replace the chosen value
            raise OptionError(key, value_text(override), "has a space already")
        if not override.is_sweep_override():
            words.append(str(override.input_line))
            continue
        try:
            dimensions[key] = _dimension(override)
        except OptionError:
            raise
        except ConfigError as error:
            raise OptionError(key, value_text(override), str(error)) from None
        words.append(key)
    if not dimensions:
        raise ConfigError(f"search=optuna has nothing to choose: give a key a space, such as {EXAMPLE}")
    return Space(tuple(words), dimensions)


def _dimension(override: Any) -> Interval | Values:
    top = override.key_or_group.split(".")[0]
    if top in ("seed", "seeds"):
        raise ConfigError("every trial has the same seeds, over which its loss is the median")
    if top in HOUSEKEEPING:
        raise ConfigError("changes no result: there is nothing to search")
    space = override.value()
    tags = set(getattr(space, "tags", None) or ())
    if tags - {"log"}:
        raise ConfigError("the one tag that is known is log")
    if getattr(space, "shuffle", False):
        raise ConfigError("the order is for the search to choose; leave out shuffle")
    if not override.is_interval_sweep():
        if tags:
            raise ConfigError("only an interval can be logarithmic: tag(log,interval(…))")
        return Values(tuple(dict.fromkeys(listed(override))), ordered=override.is_range_sweep())
    low, high = space.start, space.end
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError("an interval needs a lower and a higher end, both finite")
    if tags and low <= 0:
        raise ConfigError("a logarithmic interval begins above 0")
    return Interval(low, high, log=bool(tags))


@dataclass(frozen=True)
class Trial:
    number: int  #: from 0
    values: dict[str, str]  #: of each key that is searched, as overrides have them
    job: Job

    @cached_property
    def loss(self) -> float:
        """The median of the final loss over the job's seeds, after training.

        A seed that diverged, failed or did not end counts as infinite. For an even number of seeds, this is the mean
        of the two in the middle.
        """
        loss_of = {s["seed"]: s["loss"] for s in self.job.summaries() if s.get("status") == "done"}
        losses = (loss_of.get(seed) for seed in self.job.config.seed_numbers)
        return statistics.median(math.inf if loss is None or math.isnan(loss) else loss for loss in losses)


class Search:
    """The search of a command. `trials` are those that have ended so far."""

    def __init__(self, overrides: Sequence[str], config_dir: str | None = None) -> None:
        """Check the search. Raises: ConfigError for a mistake at either end of a key's space; nothing is written."""
        self._config_dir = config_dir
        with Composer(config_dir).active() as composer:
            self._plugins = command_plugins(composer, overrides)
            self.space = read_space(composer.checked(overrides, intervals=True))
            words = [self.space.overrides(values) for values in self.space.ends()]
            ends = compose_trials(composer, words, self._plugins, whole_space=True)
        config = ends[0].config
        if not isinstance(config.search, OptunaOptions):
            raise OptionError("search", config.search.name, "is taken from the command line only")
        if config.resume == "never":
            raise OptionError("resume", config.resume, "a search resumes with the runs that are there")
        require_optuna()
        check_jobs(ends)
        self.options, self._overwrite = config.search, config.overwrite
        sought = {"space": repr(self.space.dimensions), "chosen by": config.search.seed}
        name = identity({"configuration": identity(config.tree), **sought})
        self.folder = Path(config.runs_root).expanduser() / HIDDEN / name
        self.trials: list[Trial] = []
        self._trained: set[Path] = set()  # run folders, in this command

    def run(self, listener: Listener, apart: bool) -> None:
        """Train trial after trial, first those that an earlier command tried. `apart` as for `train_jobs`.

        Raises: ConfigError, BusyError, CheckpointError, DiskError, KeyboardInterrupt.
        """
        with StopFlag() as stop, self._alone():
            tried = [] if self._overwrite else self._recorded()
            batches = [tried[i : i + self.options.at_once] for i in range(0, len(tried), self.options.at_once)]
            for values in batches:
                if not self._try(values, listener, apart):
                    return
            while len(self.trials) < self.options.trials:
                if stop.signal is not None:  # it came between two batches
                    raise KeyboardInterrupt(stop.signal)
                history = [(trial.values, trial.loss) for trial in self.trials]
                count = min(self.options.at_once, self.options.trials - len(history))
                if not self._try(suggest(self.space, self.options, history, count), listener, apart):
                    return
                self._record()

    def _try(self, batch: Sequence[dict[str, str]], listener: Listener, apart: bool) -> bool:
        """Train a batch of trials. Returns False if a signal stopped it."""
        words = [without_search_keys(self.space.overrides(values)) for values in batch]
        with Composer(self._config_dir).active() as composer:
            jobs = compose_trials(composer, words, self._plugins)
        numbered = enumerate(zip(batch, jobs, strict=True), len(self.trials))
        trials = [Trial(number, values, job) for number, (values, job) in numbered]
        if not self._train(trials, listener, apart):
            return False
        self.trials += trials
        return True

    def _train(self, trials: Sequence[Trial], listener: Listener, apart: bool) -> bool:
        """Train the trials that have not finished, each run once, and report the others as finished."""
        waiting: dict[Path, Trial] = {}
        for trial in trials:
            job = trial.job
            if job.folder not in self._trained and (self._overwrite or not job.finished()):
                waiting.setdefault(job.folder, trial)
        self._trained |= waiting.keys()
        numbers = [trial.number for trial in waiting.values()]
        batch = _TrialListener(listener, numbers)
        if waiting:
            train_jobs([trial.job for trial in waiting.values()], batch, apart)
        if batch.busy is not None:
            raise batch.busy
        if batch.stopped:
            return False
        for trial in trials:
            if trial.number not in numbers:
                listener.started(trial.number, trial.job)
                listener.ended(
                    trial.number, trial.job, Outcome(trial.job.folder, trial.job.summaries(), trained=False)
                )
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the search's folder. Afterwards, remove a folder in which nothing was recorded."""
        holding = locked(self.folder)
        with writing(f"to {self.folder}"):
            holding.__enter__()
        try:
            yield
        finally:
            if not (self.folder / TRIALS).exists():
                shutil.rmtree(self.folder, ignore_errors=True)
                with suppress(OSError):
                    self.folder.parent.rmdir()
            holding.__exit__(None, None, None)

    def _record(self) -> None:
        with writing(f"to {self.folder}"):
            write_json(self.folder / TRIALS, {"trials": [trial.values for trial in self.trials]})

    def _recorded(self) -> list[dict[str, str]]:
        """The values that earlier commands tried. Empty if the file is damaged: they will be suggested again."""
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
            LOG.warning("%s can't be read: %s; the search starts again", path, printable(str(error)))
            return []


class _TrialListener(Listener):
    """Passes on what happens to the jobs of one batch, under the numbers of their trials."""

    def __init__(self, listener: Listener, numbers: Sequence[int]) -> None:
        self._listener, self._numbers = listener, numbers
        self.busy: BusyError | None = None
        self.stopped = False

    def started(self, number: int, job: Job) -> None:
        self._listener.started(self._numbers[number], job)

    def progress(self, job: Job) -> Progress:
        return self._listener.progress(job)

    def watching(self, standing: Standing) -> None:
        self._listener.watching(standing)

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, BusyError):  # another process trains it: its loss is not known yet
            self.busy = self.busy or outcome
            return
        self.stopped = self.stopped or (isinstance(outcome, Outcome) and outcome.stopped_by is not None)
        self._listener.ended(self._numbers[number], job, outcome)


def without_search_keys(overrides: Sequence[str]) -> list[str]:
    """The overrides of a trial as an ordinary job."""
    return [text for text in overrides if text.partition("=")[0].strip().partition(".")[0] != "search"]


def require_optuna() -> None:
    """Raises: ConfigError if it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("search=optuna needs pip install 'rnnlstm[optuna]'") from None


def suggest(
    space: Space, options: OptunaOptions, history: Sequence[tuple[Mapping[str, str], float]], count: int
) -> list[dict[str, str]]:
    """The values of the next `count` trials, by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

    `history` has the values and the loss of each earlier trial; a loss may be infinite, and the lowest is the best.
    The values depend on `history` and the search's seed alone, so a resumed search tries the same values as an
    unbroken one.
    """
    import optuna
    from optuna.samplers import TPESampler

    with ExitStack() as stack:
        stack.callback(optuna.logging.set_verbosity, optuna.logging.get_verbosity())
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions = {key: dimension.distribution() for key, dimension in space.dimensions.items()}
        study = optuna.create_study(direction="minimize")
        for values, loss in history:
            params = {key: dimension.value(values[key]) for key, dimension in space.dimensions.items()}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=loss))
        suggestions = []
        for number in range(len(history), len(history) + count):
            seed = int(np.random.SeedSequence((options.seed, number)).generate_state(1)[0])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                # A constant liar counts trials without a result as bad ones, which keeps the trials of a batch apart.
                study.sampler = TPESampler(seed=seed, n_startup_trials=options.startup, constant_liar=True)
            params = study.ask(distributions).params
            suggestions.append({key: dimension.text(params[key]) for key, dimension in space.dimensions.items()})
    return suggestions


def ranking(search: Search, config_dir: str | None = None) -> list[str]:
    """The best trials, and the command that trains the best one with new seeds, as lines of text.

    Empty if no trial has ended.
    """
    if not search.trials:
        return []
    ranked = sorted(((trial.loss, trial.number, trial) for trial in search.trials), key=lambda entry: entry[:2])
    seeds = search.trials[0].job.config.seed_numbers
    what = "final loss" if len(seeds) == 1 else f"median over {len(seeds)} seeds of the final loss"
    without = sum(math.isinf(loss) for loss, _, _ in ranked)
    lines = [f"Best of {len(ranked):,} trials by the {what}{f', {without:,} without one' if without else ''}"]
    rows = [["loss", "trial", "values", "run folder"]]
    for loss, number, trial in ranked[:SHOWN]:
        values = " ".join(f"{key}={_short(text)}" for key, text in trial.values.items())
        rows.append([f"{loss:.4g}", f"{number + 1}", values, os.fspath(trial.job.folder)])
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines += [f"  {a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows]
    loss, _, best = ranked[0]
    if math.isfinite(loss):
        words = without_search_keys(search.space.overrides(best.values))
        words = [word for word in words if word.partition("=")[0] not in ("seed", "seeds", "overwrite")]
        words += [f"seed={seeds.stop}", f"seeds={len(seeds)}"]
        where = ["--config-dir", config_dir] if config_dir else []
        lines.append("Train the best with seeds that had no part in choosing it:")
        lines.append(f"  {shlex.join(['python', '-m', 'rnnlstm.train', *where, *words])}")
    return lines


def _short(text: str) -> str:
    """A number in few digits; the run folder and the command show all of them."""
    try:
        return f"{float(text):.4g}" if "." in text or "e" in text else text
    except ValueError:
        return text
