"""The project from Python: `rnnlstm.run("task=adding seeds=3")` trains; `load_runs`, `load_metrics` and `load_model`
read results back."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnlstm.config.errors import ConfigError, show
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.listener import Listener
from rnnlstm.jobs.process import own_server
from rnnlstm.jobs.train import train
from rnnlstm.record.folders import METRICS, flatten, read_configuration, seed_folder, seed_folders

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from rnnlstm.models import Network
    from rnnlstm.tasks import Task
    from rnnlstm.tasks.batch import Batch
    from rnnlstm.training.progress import Progress
    from rnnlstm.training.signals import Outcome

#: A run: its folder, or anything with the entry `folder`: a summary that `run` returned, a row of `load_runs`.
Run = str | os.PathLike[str] | Mapping[str, Any]


def run(
    overrides: str | Sequence[str] | Mapping[str, Any] = (), *, multirun: bool = False, progress: bool = True
) -> list[dict[str, Any]]:
    """Train as `python -m rnnlstm.train` does with these arguments.

    `overrides` are the words of a command line as one string or a list, or a dict of keys and values, which may be
    nested: `{"task": "adding", "optimizer": {"lr": 1e-3}, "eval.lengths": [200, 400]}`. `multirun`, or `-m` among the
    words, makes them a sweep or a search. As the command does, it resumes a run that was interrupted, and trains
    nothing again that has finished. `progress=False` prints no progress.

    The jobs of a sweep run in this process, so they know the classes that you registered in it. A job with a
    `job_timeout` runs in its own process. Results do not depend on what you have set in PyTorch, such as a default
    dtype or `torch.no_grad()`. Your settings, and Hydra's state, are the same afterwards.
    Returns the summaries of all replicas, as in `summary.json`, each with its `folder` and its `config`: the
    configuration's keys as on the command line, `config["optimizer.lr"]`.
    Raises: ConfigError for a bad configuration, before anything is written; the error of the first job that failed,
    after the others have run; KeyboardInterrupt if a signal stopped it.
    """
    from rnnlstm.training.device import own_settings

    collected = _Collector(progress)
    given = _words(overrides)
    words = [o for o in given if o not in ("-m", "--multirun")]
    with own_settings(), own_server():  # also while the configuration is checked: match=step_time trains
        train(words, multirun or len(words) != len(given), collected, apart=False)
    if collected.failures:
        raise collected.failures[0]
    if collected.stopped:
        raise KeyboardInterrupt
    return collected.summaries


def _words(overrides: str | Sequence[str] | Mapping[str, Any]) -> list[str]:
    """The overrides as the words of a command line. Raises: ConfigError."""
    if isinstance(overrides, str):
        try:
            return shlex.split(overrides)
        except ValueError as error:
            raise ConfigError(f"can't read {show(overrides)}: {error}") from None
    if isinstance(overrides, Mapping):
        pairs = [(key, _value_text(value)) for key, value in flatten(overrides)]
        pairs.sort(key=lambda pair: "." in pair[0])  # a choice (model=rnn) stands before the keys that it brings
        return [f"{key}={text}" for key, text in pairs]
    return list(overrides)


def _value_text(value: Any) -> str:
    """A value as it is written in an override; a text that Hydra would not read as one word gets quotes."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value_text, value))}]"
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if not isinstance(value, str | os.PathLike):
        return repr(value) if isinstance(value, float) else show(value)
    text = os.fspath(value)
    if re.fullmatch(r"[\w./:,+*()\[\]${}=-]+|'.*'|\".*\"", text):
        return text
    return '"' + text.replace('"', r"\"") + '"'


class _Collector(Listener):
    """Shows the progress of each job, and collects how the jobs ended."""

    def __init__(self, shown: bool) -> None:
        from rich.console import Console

        self.console = Console()
        # A script's output is its own.
        self.shown = shown and (self.console.is_terminal or self.console.is_jupyter)
        self.jobs, self.begun = 1, 0
        self.summaries: list[dict[str, Any]] = []
        self.failures: list[Exception] = []
        self.stopped = False

    def planned(self, jobs: int, search: bool) -> None:
        self.jobs = jobs

    def progress(self, job: Job) -> Progress:
        from rnnlstm.training.progress import progress_on

        self.begun += 1
        if not self.shown:
            return super().progress(job)
        return progress_on(self.console, job.config, f"[{self.begun}/{self.jobs}] " if self.jobs > 1 else "")

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Exception):
            self.failures.append(outcome)
            return
        self.stopped = self.stopped or outcome.stopped_by is not None
        config = command_keys({key: v for key, v in flatten(job.config.tree) if key not in ("seed", "seeds")})
        for summary in outcome.summaries:
            folder = str(outcome.folder / f"seed_{summary['seed']}")
            self.summaries.append({**summary, "folder": folder, "config": dict(config)})


def command_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A flat configuration with keys as on the command line: `model`, not `model.name`."""
    return {key.removesuffix(".name"): value for key, value in config.items()}


def load_runs(
    path: str | os.PathLike[str] | Sequence[str], where: str | Sequence[str] | Mapping[str, Any] | None = None
) -> pandas.DataFrame:
    """The runs below a folder, or several, as a table: a row for each seed.

    The columns are the configuration's keys as on the command line (`model`, `optimizer.lr`), the fields of
    summary.json, and `folder`. A run that lacks a key has NaN there. `where` takes some of the runs only:
    `"model=rnn,lstm"`, a list of such conditions, or `{"model": ["rnn", "lstm"]}`. Also reads runs that still train:
    see `status`. A seed of one configuration in two folders is one row.

    Raises: ConfigError if there is no such run, or pandas is not installed.
    """
    import logging

    from rnnlstm.reporting.selection import compare

    frame = _pandas().DataFrame
    places = [os.fspath(path)] if isinstance(path, str | os.PathLike) else [os.fspath(place) for place in path]
    found = compare(places, _conditions(where))
    for note in found.notes:
        logging.getLogger("rnnlstm").warning("%s", note)
    rows = []
    for run in (run for row in found.rows for run in row.members):
        config = command_keys(read_configuration(run.folder, whole=True))
        rows += [{**config, **seed, "folder": str(seed_folder(run.folder, seed["seed"]))} for seed in run.seeds]
    return frame(rows)


def _conditions(where: str | Sequence[str] | Mapping[str, Any] | None) -> list[str]:
    if where is None:
        return []
    if isinstance(where, str):
        return where.split()
    if isinstance(where, Mapping):
        several = {key: v if isinstance(v, list | tuple) else [v] for key, v in where.items()}
        return [f"{key}={','.join(map(_value_text, values))}" for key, values in several.items()]
    return list(where)


def load_metrics(run: Run, seed: int = 0) -> pandas.DataFrame:
    """A seed's metrics.jsonl as a table: a row for each line, the columns `step` and the tags, NaN where a line has
    no such tag. `run` is a run folder, one seed's folder, a row of `load_runs` or a summary of `run`.

    Raises: ConfigError if there is no such seed, or pandas is not installed.
    """
    from rnnlstm.record.reader import read_metrics

    frame = _pandas().DataFrame
    path = _seed_place(run, seed) / METRICS
    return frame([{"step": step, **values} for step, values in read_metrics(path)])


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ConfigError("tables need pandas: pip install pandas") from None
    return pandas


def _seed_place(run: Run, seed: int) -> Path:
    """The folder of a seed. Raises: ConfigError if there is none."""
    place = Path(run["folder"] if hasattr(run, "keys") else run).expanduser()  # type: ignore[index]
    try:
        seeds = seed_folders(place)
    except OSError:
        raise ConfigError(f"{show(place)}: no such folder") from None
    if not seeds and place.name.startswith("seed_"):
        return place
    for number, folder in seeds:
        if number == seed:
            return folder
    there = ", ".join(str(number) for number, _ in seeds[:8])
    raise ConfigError(f"{show(place)}: has no seed {seed}" + (f"; there are {there}" if there else " and is no run"))


def load_model(
    run: Run, seed: int = 0, *, weights: str = "last", plugins: Sequence[str] = (), overrides: Sequence[str] = ()
) -> TrainedModel:
    """The trained network of a run, as it was left, with its task and its configuration.

    `run` is a run folder, one seed's folder, a row of `load_runs` or a summary of `run`. `weights`: the `last`
    ones, or the `best`, those of the lowest held-out loss. `plugins` are modules with the run's own cell or task, if
    they are not imported yet. `overrides` change keys of its configuration.

    Raises: ConfigError if there is no such network, or an override doesn't fit it.
    """
    from rnnlstm.config.plugins import import_plugins
    from rnnlstm.training.weights import load_network

    if weights not in ("last", "best"):
        raise ConfigError(f"weights={show(weights)}: must be last or best")
    import_plugins(list(plugins))
    place = _seed_place(run, seed)
    found = load_network(str(place), overrides, weights)
    return TrainedModel(found.network(), found.plan.task, command_keys(dict(flatten(found.plan.config.tree))), place)


@dataclass(frozen=True)
class TrainedModel:
    """A trained network and what it was trained for. Called with inputs it returns outputs (T, B, O)."""

    network: Network  #: a torch.nn.Module: `embedding`, `recurrence`, `readout`
    task: Task
    config: dict[str, Any]  #: by key, as on the command line: `config["model.hidden_size"]`
    folder: Path  #: of its seed

    def __repr__(self) -> str:
        return f"<TrainedModel {self.config['model.name']} on {self.task.name}, {self.folder}>"

    def __call__(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.network(inputs)
        return outputs

    @cached_property
    def seed(self) -> int:
        return int(self.folder.name.removeprefix("seed_"))

    def evaluate(self, samples: int | None = None, stream: str = "eval", **options: Any) -> dict[str, float]:
        """Loss and metrics on held-out sequences. `options` change the task: `evaluate(length=200)`.

        With the defaults these are the sequences of training's own evaluations; `stream="test"` has others.
        Raises: ConfigError if the task has no such option, or the network does not fit it.
        """
        from rnnlstm.training.evaluation import evaluate

        task = self.task.vary(**options) if options else self.task
        return evaluate(self.network, task, self.seed, samples or self.config["eval.samples"], stream=stream)[0]

    def sample(self, batch_size: int = 64, step: int = 0, stream: str = "test", **options: Any) -> Batch:
        """Held-out sequences; `options` change the task."""
        task = self.task.vary(**options) if options else self.task
        return task.sample(self.seed, step, stream, batch_size)

    def encode(self, text: str) -> Batch:
        """A sentence of your own as a batch, for keyword recall: `"spicy chicken, please. we like fried rice"`. The
        first dish is the keyword; the question is added. Raises: ConfigError for a word that the task lacks."""
        return self.task.encode(text)

    def answer(self, text: str) -> dict[str, float]:
        """The network's answer to a sentence: the probability of each possible one, the likeliest first."""
        import torch

        batch = self.encode(text)
        with torch.no_grad():
            shares = self.network(batch.inputs)[-1, 0].softmax(-1)
        names = [self.task.answer(row.expand(len(batch.inputs), 1, -1), batch, 0) for row in torch.eye(len(shares))]
        return dict(sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: -pair[1]))

    def gates(self, batch: Batch) -> list[dict[str, Tensor]]:
        """The gates' activations on these sequences, by name, (T, B, H) in float64; a dict for each layer."""
        from rnnlstm.instruments.analysed_network import AnalysedNetwork

        return AnalysedNetwork.of(self.task, self.network, batch).path.gates

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """‖∂L/∂h_t‖ and, with a cell state, ‖∂L/∂c_t‖ at every step t, (L, T) in float64, by the state's name. The
        loss is that at each sequence's last scored position."""
        from rnnlstm.instruments.analysed_network import AnalysedNetwork
        from rnnlstm.recurrence import record_gradients

        analysed = AnalysedNetwork.of(self.task, self.network, batch)
        with record_gradients(analysed.network) as record:
            outputs = analysed.network(analysed.batch.inputs)
            self.task.loss(outputs, analysed.at_last).backward()
        return {state: record.of(state) for state in analysed.cell.state_names}
