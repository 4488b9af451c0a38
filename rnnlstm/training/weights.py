"""Trained networks, read back from their run folders."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnlstm.cells import CELLS
from rnnlstm.config.errors import ConfigError, OptionError, printable, show
from rnnlstm.config.schema import FROM_WEIGHTS, GRADFLOW, Config, read_config, unknown_key
from rnnlstm.config.untrusted import check_run, check_weights, read_regular, read_text, read_yaml
from rnnlstm.models import Network
from rnnlstm.record.environment import changed_plugins
from rnnlstm.record.files import read_json
from rnnlstm.record.folders import BEST_WEIGHTS, SUMMARY, WEIGHTS, completed, find_run_folders, flatten, seed_folder
from rnnlstm.tasks import TASKS
from rnnlstm.training.idle_keys import refuse_idle_changes
from rnnlstm.training.plan import Plan, make_plan

LOG = logging.getLogger("rnnlstm")


@dataclass(frozen=True)
class TrainedNetwork:
    """One seed's network: its plan, and the weights that its run left."""

    plan: Plan
    seed: int
    weights: dict[str, Tensor]
    place: str  #: the folder, as the user named it

    def network(self) -> Network:
        """The plan's network with these weights. Raises: ConfigError if they don't fit, or are not finite."""
        network = self.plan.network(self.seed)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError:
            raise ConfigError("the weights don't fit the network of this configuration") from None
        for name, values in network.named_parameters():
            if not values.isfinite().all():
                raise OptionError("weights", self.place, f"{name} holds values that are not finite")
        return network


def runs_at(place: str) -> list[str]:
    """The run folders with trained weights below a folder of runs; `place` itself if it is a run."""
    check_run(place)
    folder = Path(place).expanduser()
    if not folder.is_dir() or (folder / "config.yaml").exists() or (folder / WEIGHTS).exists():
        return [place]
    return sorted(str(run) for run in find_run_folders([place]) if any(run.glob(f"seed_*/{WEIGHTS}"))) or [place]


class PluginError(ConfigError):
    """The run's task or cell is in a plugin that has not been imported."""

    def __init__(self, folder: str, what: str, plugins: object) -> None:
        self.hint = f"add plugins={show(plugins).replace(' ', '').replace(chr(39), '')}"
        self.folder = printable(folder)
        super().__init__(f"weights={self.folder}: its {what} comes from a plugin; {self.hint}")


def load_networks(place: str, overrides: Sequence[str] = ()) -> list[TrainedNetwork]:
    """Every trained network of a run folder, of one seed's folder or below a folder of runs.

    Below a folder of runs, those that need a plugin are left out, with a warning. Raises: ConfigError as
    `load_network`; PluginError if all need one.
    """
    networks, problems = [], []
    for folder in runs_at(place):
        try:
            networks.append(load_network(folder, overrides))
        except PluginError as problem:
            problems.append(problem)
    if problems and not networks:
        raise problems[0]
    for hint in dict.fromkeys(problem.hint for problem in problems):
        names = ", ".join(problem.folder for problem in problems if problem.hint == hint)
        LOG.warning("left out, as plugins are named on the command line only: %s; %s", names, hint)
    return networks


def load_network(folder: str, overrides: Sequence[str] = (), which: str = "last") -> TrainedNetwork:
    """The trained network of a run folder (its first seed) or of one seed's folder in it.

    `which`: its `last` weights, or the `best`, those of the lowest held-out loss. `overrides` change keys of the
    run's configuration: `surgery.open=[forget]`, `task.length=200`.
    Raises: ConfigError if there is no such run, or an override doesn't fit; PluginError.
    """
    for override in overrides:
        read_text(override.partition("=")[2])  # before any file is opened
    check_run(folder)
    place = Path(folder).expanduser()
    if (place / WEIGHTS).exists():
        place, of_seed = place.parent, place
    else:
        folders = sorted(
            place.glob(f"seed_*/{WEIGHTS}"), key=lambda path: int(path.parent.name.removeprefix("seed_"))
        )
        if not folders:
            rule = "is no run folder with trained weights" if place.exists() else "no such folder"
            raise OptionError("weights", folder, rule)
        of_seed = folders[0].parent
    try:
        seed = int(of_seed.name.removeprefix("seed_"))
        tree = read_yaml(place / "config.yaml")
        weights = _read_weights(of_seed / (BEST_WEIGHTS if which == "best" else WEIGHTS))
    except Exception as error:  # the unpickler raises many kinds
        raise OptionError("weights", folder, f"can't be read: {show(str(error))}") from None
    here = {"launcher": {"name": "serial"}, "search": {"name": "none"}}  # it is not trained here
    config = with_changes({**completed(tree), **here, "seed": seed, "seeds": 1}, overrides)
    for key, section, known in (("task", config.task, TASKS), ("cell", config.cell, CELLS)):
        if config.plugins and section["name"] not in known:
            raise PluginError(folder, key, config.plugins)
    for name in changed_plugins(place, config.plugins):
        LOG.warning(
            "%s: %s has changed since this run was trained; its weights are used by the code as it is now",
            printable(folder), name,
        )  # fmt: skip
    return TrainedNetwork(make_plan(config), seed, weights, folder)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Raises: many kinds of exception."""
    check_weights(path)
    with read_regular(path) as file:
        weights = torch.load(file, weights_only=True, map_location="cpu")
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise ValueError(f"{path.name} holds no weights by their names")
    return weights


def starting_weights(plan: Plan, seeds: Sequence[int]) -> list[dict[str, Tensor]] | None:
    """The weights that each seed's training starts from, of the run in `from_run`; None without `from_weights`.

    A seed starts from the weights of the same seed there, or of the one whose folder was named.
    Raises: ConfigError if there are none, the seed has not finished, or they don't fit the network.
    """
    config = plan.config
    if config.from_weights is None:
        return None
    match = FROM_WEIGHTS.fullmatch(config.from_weights)
    assert match is not None
    which, one = match.groups()
    place = Path(str(config.from_run)).expanduser()
    found: dict[Path, dict[str, Tensor]] = {}
    for seed in seeds:
        folder = place if one else seed_folder(place, seed)
        if folder not in found:
            name = str(folder)
            if not folder.is_dir():
                raise OptionError("from", name, f"no such folder; from={place}/seed_N starts every seed from one")
            if (read_json(folder / SUMMARY) or {}).get("status") != "done":
                raise OptionError("from", name, "has not finished training, so its weights may still change")
            try:
                weights = _read_weights(folder / (BEST_WEIGHTS if which == "best" else WEIGHTS))
            except Exception as error:  # the unpickler raises many kinds
                raise OptionError("from", name, f"its weights can't be read: {show(str(error))}") from None
            TrainedNetwork(plan, seed, weights, name).network()
            found[folder] = weights
    return [found[place if one else seed_folder(place, seed)] for seed in seeds]


def with_changes(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    """The configuration with other values for keys that it has.

    Raises: ConfigError, also for a key that has no effect with the others.
    """
    before, tree = tree, copy.deepcopy(tree)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"can't read {show(override)}: an override is written key=value, no spaces around =")
        *above, name = key.split(".")
        section: Any = tree
        for step in above:
            section = section.get(step) if isinstance(section, dict) else None
        if not isinstance(section, dict) or name not in section or isinstance(section[name], dict):
            raise unknown_key(key, text, (), [*GRADFLOW, *(known for known, _ in flatten(tree))])
        section[name] = read_text(text)
    config = read_config(tree)
    refuse_idle_changes(tree, before)
    return config
