"""From overrides to jobs: composes and checks every configuration of a command, and names its run folder."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rnnlstm.config.compose import MOST_JOBS, Composer, Tree, value_text
from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.config.plugins import import_plugins
from rnnlstm.config.schema import GRADFLOW, TOP, Config, options_of, read_config
from rnnlstm.jobs.from_run import with_run
from rnnlstm.record.environment import changed_plugins
from rnnlstm.record.folders import run_folder, seed_folder
from rnnlstm.record.summary import finished, summaries


@dataclass(frozen=True)
class Job:
    """A run to train: its configuration, its run folder, and the command that asks for it, as it was typed."""

    config: Config
    folder: Path
    command: str = ""

    def finished(self) -> bool:
        """Whether every seed has finished. Raises: CheckpointError if a damaged summary leaves that open."""
        return all(finished(self.folder, seed) for seed in self.config.seed_numbers)

    def summaries(self) -> list[dict[str, Any]]:
        """The summaries of its seeds, as far as they exist."""
        return summaries(self.folder, self.config.seed_numbers)


def compose_jobs(
    overrides: Sequence[str],
    sweep: bool = False,
    config_dir: str | None = None,
    to_train: bool = True,
    at_most: int = MOST_JOBS,
    *,
    groups: Sequence[Sequence[str]] = ((),),
) -> list[Job]:
    """Compose every job of a command and check its keys.

    With `to_train`, also check that each job can have its run folder. Without it, the command is `gradflow`, and its
    own keys are suggested for a mistyped one. Each of `groups` adds its overrides, for jobs of its own.
    Raises: ConfigError for a mistake in any job; nothing has been written.
    """
    trees: list[Tree] = []
    with Composer(config_dir, also=() if to_train else GRADFLOW).active() as composer:
        for group in groups:
            words = [*overrides, *group]
            plugins = command_plugins(composer, words)
            words = with_run(composer, words, plugins)
            assignments = composer.sweep(words, at_most) if sweep else [words]
            trees += [_composed(composer, assignment, plugins) for assignment in assignments]
        jobs = [_job(composer, tree) for tree in _without_idle_keys(composer, trees)]
    if to_train:
        for job in jobs:
            if job.config.search.name != "none":
                rule = "a search is started on the command line, with -m search=optuna"
                raise OptionError("search", job.config.search.name, rule)
        _refuse_clashes(jobs)
        for job in jobs:
            if job.config.launcher != jobs[0].config.launcher:
                raise OptionError(
                    "launcher", job.config.launcher.name, "a sweep has one launcher, the same for all jobs"
                )
    return jobs


def split_groups(words: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The overrides before the first `--`, for every job, and the groups after each `--`, which are on top of those:
    `task=adding -- model=rnn model.nonlinearity=tanh,relu -- model=lstm`."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts[0], parts[1:]


def compose_job(composer: Composer, overrides: Sequence[str], plugins: Sequence[str]) -> Job:
    """Compose one job, within the composer's context and after the command's `plugins` were imported.

    Idle keys stay: whether they are refused depends on the command's other jobs. Raises: ConfigError.
    """
    return _job(composer, _composed(composer, overrides, plugins))


def compose_trials(
    composer: Composer,
    assignments: Sequence[Sequence[str]],
    plugins: Sequence[str],
    fractions: Collection[str] = (),
    whole_space: bool = False,
) -> list[Job]:
    """A job for each trial of a search, idle keys at their defaults.

    `fractions`: keys that are chosen from an interval of fractions, in which a whole number is a coincidence.
    `whole_space`: each key takes all its choices in these trials. Raises: ConfigError, then also for an idle key that
    acts in none of them.
    """
    from rnnlstm.training.idle_keys import trials_without_idle_keys

    trees = [_composed(composer, assignment, plugins, fractions) for assignment in assignments]
    defaults = [composer.defaults_of(tree) for tree in trees]
    return [_job(composer, tree) for tree in trials_without_idle_keys(trees, defaults, whole_space)]


def compose_tree(overrides: Sequence[str], config_dir: str | None = None) -> Tree:
    """Compose one configuration, for printing. Raises: ConfigError."""
    with Composer(config_dir).active() as composer:
        plugins = command_plugins(composer, overrides)
        words = with_run(composer, overrides, plugins)
        (tree,) = _without_idle_keys(composer, [_composed(composer, words, plugins)])
    return tree


def _composed(
    composer: Composer, overrides: Sequence[str], plugins: Sequence[str], fractions: Collection[str] = ()
) -> Tree:
    """A job's configuration, checked."""
    tree = with_whole_numbers(composer.compose(overrides), fractions)
    config = read_config(tree)
    if config.plugins != plugins:
        raise OptionError("plugins", config.plugins, "is taken from the command line only")
    return tree


def with_whole_numbers(tree: Tree, fractions: Collection[str] = ()) -> Tree:
    """`tree` with 10000 for 1e4, a float to Hydra and YAML, in each key but `fractions` that takes no other numbers;
    and `inf` as a text where that is a choice: JSON has no such number."""
    new = {key: value for key, value in tree.items() if key not in TOP}
    top = {key: value for key, value in tree.items() if key in TOP}
    for section, values in (*new.items(), ("", top)):
        if not isinstance(values, Mapping):
            continue
        found = {key for key, value in values.items() if _may_be_whole(value)}
        found -= {key for key in found if f"{section}.{key}".strip(".") in fractions}
        changed = dict(values)
        for field in _fields_of(section, values.get("name"), found):
            if field.name in found and "int" in str(field.type) and "float" not in str(field.type):
                changed[field.name] = _whole(values[field.name], field.metadata.get("choices") or ())
        if section:
            new[section] = changed
        else:
            new |= changed
    return {key: new[key] for key in tree}


def _fields_of(section: str, choice: Any, found: set[str]) -> Sequence[Any]:
    """The fields of these keys. The classes of tasks and cells import torch, so only a key whose type its default
    does not show is looked up there."""
    from rnnlstm.training.idle_keys import fields_of

    if not section:
        return [field for field in fields(Config) if field.name in found]
    if section in ("task", "model"):
        found = found - _fractional(section, str(choice))
    return fields_of(section, choice, found) if found else ()


@functools.cache
def _fractional(group: str, choice: str) -> frozenset[str]:
    """The keys of a task or model whose default is written as a fraction; none of a class of the user's own."""
    try:
        return frozenset(key for key, default, _ in options_of(group, choice) if "." in default)
    except OSError:
        return frozenset()


def _may_be_whole(value: Any) -> bool:
    return any(isinstance(entry, float) for entry in (value if isinstance(value, list) else [value]))


def _whole(value: Any, choices: Collection[Any]) -> Any:
    if isinstance(value, list):
        return [_whole(entry, choices) for entry in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:  # above, floats leave numbers out
        return int(value)
    return "inf" if value == math.inf and "inf" in choices else value


def _without_idle_keys(composer: Composer, trees: Sequence[Tree]) -> list[Tree]:
    from rnnlstm.training.idle_keys import without_idle_keys

    return without_idle_keys(trees, [composer.defaults_of(tree) for tree in trees])


def _job(composer: Composer, tree: Tree) -> Job:
    config = read_config(tree)
    if config.match != "none":
        tree, config = _matched(tree, config)
    folder = run_folder(tree, composer.defaults_of(tree))
    place = None if config.from_run is None else Path(config.from_run).expanduser().resolve()
    if place is not None and folder.resolve() in (place, place.parent):
        tree = {**tree, "from_run": None}  # the run itself, with more seeds perhaps
        config = read_config(tree)
    if config.plugins and not config.overwrite and (changed := changed_plugins(folder, config.plugins)):
        rule = f"has changed since {folder} was begun; overwrite=true trains it again, name=… beside it"
        raise OptionError("plugins", changed[0], rule)
    return Job(config, folder)


def take_plugins(overrides: Sequence[str]) -> list[str]:
    """Import the modules that `plugins=[…]` names, and return the other overrides. Raises: ConfigError."""
    named = [override for override in overrides if override.partition("=")[0] == "plugins"]
    if named:
        with Composer().active() as composer:
            command_plugins(composer, named)
    return [override for override in overrides if override not in named]


def _matched(tree: Tree, config: Config) -> tuple[Tree, Config]:
    """The configuration with the hidden size that `match` computes."""
    from rnnlstm.training.match import matched_hidden_size

    tree = {**tree, "model": {**tree["model"], "hidden_size": matched_hidden_size(config)}}
    return tree, read_config(tree)


def command_plugins(composer: Composer, overrides: Sequence[str]) -> list[str]:
    """Import the modules that the command line names in `plugins`, and return their names. Raises: ConfigError."""
    words = [word for word in overrides if not word.startswith("from=")]  # a path may hold what Hydra refuses
    named = [override for override in composer.parse(words) if override.key_or_group == "plugins"]
    modules: Any = named[-1].value() if named else []
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        module = value_text(named[-1]).removesuffix(".py")
        example = module if module.isidentifier() else "my_module"
        raise OptionError("plugins", value_text(named[-1]), f"must be a list of modules: [{example}]")
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise OptionError("plugins", name, "is no module's name")
    import_plugins(modules)
    return modules


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    """No two jobs may write to one folder. With resume=never, no job may write to the folder of an earlier run."""
    taken: set[Path] = set()
    for job in jobs:
        try:
            _refuse_clash(job, taken)
        except OSError as error:  # too long, or somewhere that we may not look
            raise OptionError("runs_root", job.config.runs_root, f"can't be used: {error.strerror}") from None


def _refuse_clash(job: Job, taken: set[Path]) -> None:
    for seed in job.config.seed_numbers:
        folder = seed_folder(job.folder, seed)
        if folder in taken:
            raise ConfigError(f"two jobs of the sweep are the same run: {folder}")
        taken.add(folder)
        if folder.exists() and job.config.resume == "never" and not job.config.overwrite:
            raise ConfigError(
                f"{folder} holds results already; resume=auto resumes the run, overwrite=true replaces it"
            )
    for place in (job.folder, *job.folder.parents):
        if place.exists():
            if not place.is_dir():
                raise OptionError("runs_root", job.config.runs_root, f"{place} is not a folder")
            break
