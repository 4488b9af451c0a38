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
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnlstm.config.compose import Composer, listed, value_text
from rnnlstm.config.errors import BusyError, ConfigError, OptionError, printable, writing
from rnnlstm.config.schema import OptunaOptions, SlurmOptions
from rnnlstm.jobs.job import Job, command_plugins, compose_trials
from rnnlstm.jobs.listener import Listener
from rnnlstm.jobs.sweep import check_jobs, train_jobs
from rnnlstm.record.files import locked, read_object, write_json
from rnnlstm.record.folders import HOUSEKEEPING, identity
from rnnlstm.training.signals import Outcome, StopFlag

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from rnnlstm.jobs.listener import Standing
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

    @property
    def fractions(self) -> set[str]:
        """The keys that are chosen from an interval of fractions."""
        return {k for k, s in self.dimensions.items() if isinstance(s, Interval) and isinstance(s.low, float)}

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
    """The search of a command. `trials` are those that have ended, in the order in which they did."""

    def __init__(self, overrides: Sequence[str], config_dir: str | None = None) -> None:
        """Check the search. Raises: ConfigError for a mistake at either end of a key's space; nothing is written."""
        self._config_dir = config_dir
        self.command = ""  #: as it was typed, for the run folders
        with Composer(config_dir).active() as composer:
            self._plugins = command_plugins(composer, overrides)
            self.space = read_space(composer.checked(overrides, intervals=True))
            words = [self.space.overrides(values) for values in self.space.ends()]
            fractions = self.space.fractions
            #: Those at the ends of the space.
            self.jobs = compose_trials(composer, words, self._plugins, fractions, whole_space=True)
        config = self.jobs[0].config
        if not isinstance(config.search, OptunaOptions):
            raise OptionError("search", config.search.name, "is taken from the command line only")
        if config.resume == "never":
            raise OptionError("resume", config.resume, "a search resumes with the runs that are there")
        if isinstance(config.launcher, SlurmOptions) and not config.launcher.wait:
            raise OptionError("launcher.wait", False, "a search has to wait for results, to choose the next trials")
        require_optuna()
        check_jobs(self.jobs)
        self.options, self._overwrite = config.search, config.overwrite
        sought = {"space": repr(self.space.dimensions), "chosen by": config.search.seed}
        name = identity({"configuration": identity(config.tree), **sought})
        self.folder = Path(config.runs_root).expanduser() / HIDDEN / name
        self.trials: list[Trial] = []
        self._asked: list[Trial] = []
        self._recorded: list[dict[str, str]] = []  # the values that earlier commands tried
        self._trained: dict[Path, list[Trial]] = {}  # the trials of this command, by run folder

    def run(self, listener: Listener, apart: bool) -> None:
        """Train the trials, first those that an earlier command tried, `at_once` beside each other: whenever one has
        ended, the next is chosen from all results so far. `apart` as for `train_jobs`.

        Raises: ConfigError, BusyError, CheckpointError, DiskError, KeyboardInterrupt.
        """
        with StopFlag(), self._alone():
            self._recorded = [] if self._overwrite else self._read()
            told = _TrialListener(self, listener)
            if jobs := self._next(told):
                train_jobs(
                    jobs, told, apart, more=lambda: self._next(told), most=self.options.trials, name=self.folder.name
                )
            if told.busy is not None:
                raise told.busy

    def _next(self, told: _TrialListener) -> list[Job]:
        """The jobs of the trials that may begin now. A trial whose run is there, or is some other trial's of this
        command, is no job: it ends with that one."""
        jobs = []
        while len(self._asked) < self.options.trials and told.busy is None and not told.stopped:
            ended = {trial.number for trial in self.trials}
            running = [trial for trial in self._asked if trial.number not in ended]
            if len(running) >= self.options.at_once:
                break
            number = len(self._asked)
            if number < len(self._recorded):
                values = self._recorded[number]
            else:
                history = [(trial.values, trial.loss) for trial in self.trials]
                values = suggest(self.space, self.options, history, [trial.values for trial in running])
            trial = Trial(number, values, self._job(values))
            self._asked.append(trial)
            self._record()
            same = self._trained.setdefault(trial.job.folder, [])
            same.append(trial)
            if same[0].number in ended or (len(same) == 1 and not self._overwrite and trial.job.finished()):
                told.finished(trial)
            elif len(same) == 1:
                jobs.append(trial.job)
                told.order.append(trial)
        return jobs

    def _job(self, values: Mapping[str, str]) -> Job:
        with Composer(self._config_dir).active() as composer:
            words = without_search_keys(self.space.overrides(values))
            (job,) = compose_trials(composer, [words], self._plugins, self.space.fractions)
            return replace(job, command=self.command)

    def ended(self, trial: Trial) -> list[Trial]:
        """Take the result of a trial, and return the others that have the same run."""
        self.trials += self._trained[trial.job.folder]
        self._record()
        return self._trained[trial.job.folder][1:]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the search's folder. Afterwards, remove a folder in which nothing was recorded."""
        holding = locked(self.folder)
        with writing(f"to {self.folder}"):
            holding.__enter__()
        try:
            yield
        finally:
            if not self.trials and not self._recorded:
                shutil.rmtree(self.folder, ignore_errors=True)
                with suppress(OSError):
                    self.folder.parent.rmdir()
            holding.__exit__(None, None, None)

    def _record(self) -> None:
        """The values of every trial, and the order in which their results were used to choose others."""
        values = [trial.values for trial in self._asked] + self._recorded[len(self._asked) :]
        with writing(f"to {self.folder}"):
            write_json(self.folder / TRIALS, {"trials": values, "ended": [trial.number for trial in self.trials]})

    def _read(self) -> list[dict[str, str]]:
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
    """Passes on what happens to jobs, under the numbers of their trials. `order`: the trial of each job."""

    def __init__(self, search: Search, listener: Listener) -> None:
        self._search, self._listener = search, listener
        self.order: list[Trial] = []
        self.busy: BusyError | None = None
        self.stopped = False

    def started(self, number: int, job: Job) -> None:
        self._listener.started(self.order[number].number, job)

    def progress(self, job: Job) -> Progress:
        return self._listener.progress(job)

    def note(self, line: str) -> None:
        self._listener.note(line)

    def watching(self, standing: Standing) -> None:
        self._listener.watching(standing)

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, BusyError):  # another process trains it: its loss is not known yet
            self.busy = self.busy or outcome
            return
        self._listener.ended(self.order[number].number, job, outcome)
        if isinstance(outcome, Outcome) and outcome.stopped_by is not None:
            self.stopped = True
            return
        for other in self._search.ended(self.order[number]):
            self._tell(other)

    def finished(self, trial: Trial) -> None:
        """A trial whose run is there already."""
        self._search.trials.append(trial)
        self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        self._listener.started(trial.number, trial.job)
        outcome = Outcome(trial.job.folder, trial.job.summaries(), trained=False)
        self._listener.ended(trial.number, trial.job, outcome)


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
    space: Space,
    options: OptunaOptions,
    history: Sequence[tuple[Mapping[str, str], float]],
    running: Sequence[Mapping[str, str]] = (),
) -> dict[str, str]:
    """The values of the next trial, by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

    `history` has the values and the loss of each trial that has ended; a loss may be infinite, and the lowest is the
    best. `running` are the values of those that have not. What is suggested depends on these and the search's seed
    alone, so a resumed search tries the same values as an unbroken one.
    """
    import optuna
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState, create_trial

    with ExitStack() as stack:
        stack.callback(optuna.logging.set_verbosity, optuna.logging.get_verbosity())
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        distributions = {key: dimension.distribution() for key, dimension in space.dimensions.items()}
        seed = int(np.random.SeedSequence((options.seed, len(history) + len(running))).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # A constant liar counts trials without a result as bad ones, which keeps those of one time apart.
            sampler = TPESampler(seed=seed, n_startup_trials=options.startup, constant_liar=True)
        study = optuna.create_study(direction="minimize", sampler=sampler)
        ended = [(values, {"value": loss}) for values, loss in history]
        for values, result in (*ended, *((values, {"state": TrialState.RUNNING}) for values in running)):
            params = {key: dimension.value(values[key]) for key, dimension in space.dimensions.items()}
            study.add_trial(create_trial(params=params, distributions=distributions, **result))  # type: ignore[arg-type]
        params = study.ask(distributions).params
        return {key: dimension.text(params[key]) for key, dimension in space.dimensions.items()}


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
