"""Resuming: which seeds of a run folder still have to be trained, from which state, and the trainer that takes it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rnnlstm.config.errors import CheckpointError, ConfigError, show
from rnnlstm.config.schema import Config
from rnnlstm.config.untrusted import read_yaml
from rnnlstm.record.files import read_json
from rnnlstm.record.folders import HOUSEKEEPING, SUMMARY, WEIGHTS, completed, flatten, seed_folder
from rnnlstm.record.summary import FAILURE_LOG, finished, write_configuration
from rnnlstm.training.checkpoint import RunState, drop_checkpoints, group_seeds, groups, load_newest
from rnnlstm.training.device import describe
from rnnlstm.training.step import Trainer

LOG = logging.getLogger("rnnlstm")


@dataclass(frozen=True)
class SeedGroup:
    """Seeds to train in lockstep, from `state` or, without one, from the start."""

    seeds: list[int]
    state: RunState | None = None


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
        return [SeedGroup(wanted)]
    _require_same(folder, config)
    left = [seed for seed in wanted if not finished(folder, seed)]
    resumed = []
    for group in groups(folder):
        seeds = group_seeds(group)
        if set(seeds) & set(left):
            resumed.append(SeedGroup(seeds, load_newest(folder, group, config.train.steps)))
            left = [seed for seed in left if seed not in seeds]
    begun = [seed for seed in left if seed_folder(folder, seed).exists()]
    for seed in begun:
        if step := (read_json(seed_folder(folder, seed) / SUMMARY) or {}).get("checkpoint"):
            gone = f"the checkpoint of seed {seed} after update {show(step)} is gone"
            raise CheckpointError(f"{folder}: {gone}; overwrite=true starts again")
    if begun:
        LOG.warning("%s: seed %s was stopped before its first checkpoint and starts again", folder, show(begun[0]))
    return [*resumed, SeedGroup(left)] if left else resumed


def prepare_folder(folder: Path, config: Config, seeds: Sequence[int]) -> None:
    """Remove what unfinished attempts of these seeds left, and write the configuration without its seeds."""
    for seed in seeds:
        if seed_folder(folder, seed).exists():
            shutil.rmtree(seed_folder(folder, seed))
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
