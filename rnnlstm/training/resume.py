"""Resuming: which seeds of a run folder still have to be trained, from which state, and the trainer that takes it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnlstm.config.errors import CheckpointError, ConfigError, show
from rnnlstm.config.schema import Config
from rnnlstm.config.untrusted import read_regular, read_yaml
from rnnlstm.record.environment import ENVIRONMENT, changed_plugins
from rnnlstm.record.files import read_json, write_whole
from rnnlstm.record.folders import (
    CONFIG,
    HOUSEKEEPING,
    SUMMARY,
    WEIGHTS,
    completed,
    flatten,
    plain_numbers,
    seed_folder,
)
from rnnlstm.record.summary import FAILURE_LOG, finished, write_configuration
from rnnlstm.training.checkpoint import (
    BranchState,
    RunState,
    drop_branches,
    drop_checkpoints,
    group_seeds,
    groups,
    load_branch,
    load_newest,
)
from rnnlstm.training.device import describe
from rnnlstm.training.step import Trainer

LOG = logging.getLogger("rnnlstm")


@dataclass(frozen=True)
class SeedGroup:
    """Seeds to train in lockstep, from `state` or, without one, from the start."""

    seeds: list[int]
    state: RunState | BranchState | None = None


def seeds_left(config: Config, folder: Path) -> int:
    """How many seeds of `config` are to be trained in `folder`, at most."""
    left = [seed for seed in config.seed_numbers if not (seed_folder(folder, seed) / WEIGHTS).exists()]
    return config.seeds if config.overwrite else len(left)


def groups_to_train(folder: Path, config: Config) -> list[SeedGroup]:
    """The seeds of `config` that have not finished in `folder`, in groups; none if all have.

    An interrupted group resumes as a whole, even if the command asks for some of its seeds only: alone they would
    round differently.

    Raises: CheckpointError if a group has checkpoints and none is good, or they are gone; ConfigError if the folder's
    configuration is another one.
    """
    wanted = list(config.seed_numbers)
    if config.overwrite:
        for group in groups(folder):
            if set(group_seeds(group)) & set(wanted):
                drop_checkpoints(folder, group)
        return [SeedGroup(wanted, _continued(folder, config, wanted))]
    _require_same(folder, config)
    left = [seed for seed in wanted if not finished(folder, seed)]
    resumed = []
    for group in groups(folder):
        seeds = group_seeds(group)
        if set(seeds) & set(left):
            resumed.append(SeedGroup(seeds, load_newest(folder, group, config.train.steps)))
            left = [seed for seed in left if seed not in seeds]
    if left == wanted and not any(seed_folder(folder, seed).exists() for seed in wanted):
        return [SeedGroup(wanted, _continued(folder, config, wanted))]
    begun = [seed for seed in left if seed_folder(folder, seed).exists()]
    for seed in begun:
        if step := (read_json(seed_folder(folder, seed) / SUMMARY) or {}).get("checkpoint"):
            gone = f"the checkpoint of seed {seed} after update {show(step)} is gone"
            raise CheckpointError(f"{folder}: {gone}; overwrite=true starts again")
    if begun:
        LOG.warning("%s: seed %s was stopped before its first checkpoint and starts again", folder, show(begun[0]))
    return [*resumed, SeedGroup(left)] if left else resumed


#: Keys that a longer run may change and still be the same up to where the shorter one stopped.
LONGER = ("train.steps", "train.stop_when_solved")


def _continued(folder: Path, config: Config, seeds: Sequence[int]) -> BranchState | None:
    """The state of the run in `from_run`, its record copied into `folder`, if this run is the same but longer.

    None if it is another run, so that its configuration is all that is taken, or if its state isn't there, which a
    warning says: training from the start comes to the same.
    """
    if config.from_run is None or config.from_weights is not None:
        return None
    source = Path(config.from_run).expanduser()
    source = source if (source / CONFIG).exists() else source.parent
    theirs = dict(flatten(completed(read_yaml(source / CONFIG))))
    ours = {key: value for key, value in flatten(config.tree) if key.partition(".")[0] not in HOUSEKEEPING}
    changed = {key for key, value in ours.items() if plain_numbers(theirs.get(key)) != plain_numbers(value)}
    longer = config.train.steps > theirs["train.steps"]
    stops = config.train.stop_when_solved and not theirs["train.stop_when_solved"]
    if not longer or stops or not changed <= set(LONGER) or source.resolve() == folder.resolve():
        return None
    if plugins := changed_plugins(source, config.plugins):
        raise ConfigError(f"plugins={plugins[0]}: has changed since {source} was trained, which can't go on with it")
    state = load_branch(source, seeds, config.train.steps)
    if state is None:
        LOG.warning("%s: has no state of these seeds together to continue from; training starts again", source)
        return None
    prepare_folder(folder, config, seeds)
    for seed, replica in zip(seeds, state["replicas"], strict=True):
        seed_folder(folder, seed).mkdir()
        for name, length in replica["lengths"].items():
            with read_regular(seed_folder(source, seed) / name) as file:
                write_whole(seed_folder(folder, seed) / name, file.read(length))
    if (source / ENVIRONMENT).exists():
        with read_regular(source / ENVIRONMENT) as file:
            write_whole(folder / ENVIRONMENT, file.read())
    LOG.warning("note: continues %s after update %s", source, f"{state['step']:,}")
    return state


def prepare_folder(folder: Path, config: Config, seeds: Sequence[int]) -> None:
    """Remove what unfinished attempts of these seeds left, and write the configuration without its seeds."""
    for seed in seeds:
        if seed_folder(folder, seed).exists():
            shutil.rmtree(seed_folder(folder, seed))
    drop_branches(folder, seeds)
    shutil.rmtree(folder / "aggregate", ignore_errors=True)
    (folder / FAILURE_LOG).unlink(missing_ok=True)
    write_configuration(folder, config.tree)


def _require_same(folder: Path, config: Config) -> None:
    """The folder's name holds a hash of its configuration, so another one has been put there by hand."""
    if not (folder / "config.yaml").exists():
        write_configuration(folder, config.tree)
        return
    try:
        tree = read_yaml(folder / "config.yaml")
    except (OSError, ValueError):
        raise ConfigError(f"{folder / 'config.yaml'} can't be read; overwrite=true starts again") from None
    theirs = dict(flatten(completed(tree))) if isinstance(tree, dict) else {}
    for key, value in flatten(config.tree):
        if key.partition(".")[0] not in HOUSEKEEPING and (key not in theirs or theirs[key] != value):
            rule = f"the run in {folder} has {show(theirs.get(key))}; overwrite=true starts again"
            raise ConfigError(f"{key}={show(value)}: {rule}")


def load_trainer(trainer: Trainer, state: RunState) -> None:
    """Load a checkpoint's weights and optimiser; a warning names what was different where it was computed.

    Raises: CheckpointError if the state is of another network, curriculum or optimiser.
    """
    try:
        trainer.load_state(state["trainer"])
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"the checkpoint does not fit this run: {reason}") from None
    then, now = state["machine"], describe(trainer.plan.device)
    changed = {key: (then.get(key), now.get(key)) for key in {**then, **now} if then.get(key) != now.get(key)}
    if changed:
        what = ", ".join(f"{show(key)} {show(before)} → {show(after)}" for key, (before, after) in changed.items())
        LOG.warning("resuming under other conditions (%s): the last bits of results may differ", what)
