"""What is left to do in a run folder: seeds that have finished, groups to go on with, seeds that are missing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import ConfigError, show
from rnnlstm.config.schema import Config
from rnnlstm.config.untrusted import read_yaml
from rnnlstm.record.folders import HOUSEKEEPING, LATER, flatten, seed_folder
from rnnlstm.record.summary import FAILURE_LOG, finished, write_configuration
from rnnlstm.training.checkpoint import drop_checkpoints, group_seeds, groups, load_newest

LOG = logging.getLogger("rnnlstm")


@dataclass(frozen=True)
class Work:
    """Seeds to train together: from `state` on, or from the start."""

    seeds: list[int]
    state: dict[str, Any] | None = None


def pending(folder: Path, config: Config) -> list[Work]:
    """What training `config` in `folder` still takes; nothing if all its seeds have finished.

    A group that was interrupted goes on as a whole, also where the command asks for some of its seeds only: alone
    they would round differently. Raises: CheckpointError if a group has checkpoints and none is good; ConfigError if
    the folder's configuration is another one.
    """
    wanted = list(config.seed_numbers)
    if config.overwrite:
        for group in groups(folder):
            if set(group_seeds(group)) & set(wanted):
                drop_checkpoints(folder, group)
        return [Work(wanted)]
    _require_same(folder, config)
    left = [seed for seed in wanted if not finished(folder, seed)]
    work = []
    for group in groups(folder):
        seeds = group_seeds(group)
        if set(seeds) & set(left):
            work.append(Work(seeds, load_newest(folder, group)))
            left = [seed for seed in left if seed not in seeds]
    begun = [seed for seed in left if seed_folder(folder, seed).exists()]
    if begun:
        LOG.warning("%s: seed %s was stopped before its first checkpoint and begins anew", folder, show(begun[0]))
    return [*work, Work(left)] if left else work


def prepare(folder: Path, config: Config, seeds: Sequence[int]) -> None:
    """Clear what earlier, unfinished attempts of these seeds left, and write the configuration without its seeds."""
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
        raise ConfigError(f"{folder / 'config.yaml'} can't be read; overwrite=true begins anew") from None
    theirs = {**LATER, **dict(flatten(tree))} if isinstance(tree, dict) else {}
    for key, value in flatten(config.tree):
        if key.partition(".")[0] not in HOUSEKEEPING and (key not in theirs or theirs[key] != value):
            rule = f"the run in {folder} has {show(theirs.get(key))}; overwrite=true begins anew"
            raise ConfigError(f"{key}={show(value)}: {rule}")
