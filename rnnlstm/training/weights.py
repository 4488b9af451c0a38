"""A trained network, read back from its run folder."""

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
from rnnlstm.config.schema import GRADFLOW, Config, read_config, unknown_key
from rnnlstm.config.untrusted import check_run, read_text, read_yaml
from rnnlstm.models import Network
from rnnlstm.record.folders import LATER, WEIGHTS, find_run_folders, flatten
from rnnlstm.tasks import TASKS
from rnnlstm.training.plan import Plan, make_plan

LOG = logging.getLogger("rnnlstm")


@dataclass(frozen=True)
class Loaded:
    """What a run left of one seed's network."""

    plan: Plan
    seed: int
    weights: dict[str, Tensor]
    place: str  #: the folder, as it was named

    def network(self) -> Network:
        """The plan's network with these weights. Raises: ConfigError if they don't fit."""
        network = self.plan.network(self.seed)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError:
            raise ConfigError("the weights don't fit the network of this configuration") from None
        return network


def runs_at(place: str) -> list[str]:
    """Run folders with trained weights below a folder of runs; `place` itself if it is none."""
    check_run(place)
    folder = Path(place).expanduser()
    if not folder.is_dir() or (folder / "config.yaml").exists() or (folder / WEIGHTS).exists():
        return [place]
    return sorted(str(run) for run in find_run_folders([place]) if any(run.glob(f"seed_*/{WEIGHTS}"))) or [place]


class PluginError(ConfigError):
    """A run whose task or cell is a user's own, in a module that has not been imported."""

    def __init__(self, folder: str, what: str, plugins: object) -> None:
        self.hint = f"add plugins={show(plugins).replace(' ', '').replace(chr(39), '')}"
        self.folder = printable(folder)
        super().__init__(f"weights={self.folder}: its {what} comes from a plugin; {self.hint}")


def load_runs(place: str, overrides: Sequence[str] = ()) -> list[Loaded]:
    """Every trained network of a run folder, of one seed's folder or below a folder of runs. In the last, those that
    need a plugin are named in a warning and left out.

    Raises: ConfigError as `load_run`; PluginError if nothing else is there.
    """
    found, problems = [], []
    for folder in runs_at(place):
        try:
            found.append(load_run(folder, overrides))
        except PluginError as problem:
            problems.append(problem)
    if problems and not found:
        raise problems[0]
    for hint in dict.fromkeys(problem.hint for problem in problems):
        names = ", ".join(problem.folder for problem in problems if problem.hint == hint)
        LOG.warning("left out, as plugins are named on the command line only: %s; %s", names, hint)
    return found


def load_run(folder: str, overrides: Sequence[str] = ()) -> Loaded:
    """The trained network of a run folder (its first seed) or of one seed's folder in it.

    `overrides` change keys of the run's configuration: `surgery.open=[forget]`, `task.length=200`.
    Raises: ConfigError if there is no such run, or an override doesn't fit; PluginError.
    """
    for override in overrides:
        read_text(override.partition("=")[2])  # before any file is opened
    check_run(folder)
    place = Path(folder).expanduser()
    if (place / WEIGHTS).exists():
        place, seed_folder = place.parent, place
    else:
        found = sorted(place.glob(f"seed_*/{WEIGHTS}"), key=lambda path: int(path.parent.name.removeprefix("seed_")))
        if not found:
            rule = "is no run folder with trained weights" if place.exists() else "no such folder"
            raise OptionError("weights", folder, rule)
        seed_folder = found[0].parent
    try:
        seed = int(seed_folder.name.removeprefix("seed_"))
        tree = read_yaml(place / "config.yaml")
        weights = torch.load(seed_folder / WEIGHTS, weights_only=True, map_location="cpu")
        if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
            raise ValueError(f"{WEIGHTS} holds no weights by their names")
    except Exception as error:  # whatever the unpickler stumbles over
        raise OptionError("weights", folder, f"can't be read: {show(str(error))}") from None
    here = {"launcher": {"name": "serial"}, "search": {"name": "none"}}  # wherever it was trained, and why
    config = changed({**LATER, **tree, **here, "seed": seed, "seeds": 1}, overrides)
    for key, section, known in (("task", config.task, TASKS), ("cell", config.cell, CELLS)):
        if config.plugins and section["name"] not in known:
            raise PluginError(folder, key, config.plugins)
    return Loaded(make_plan(config), seed, weights, folder)


def changed(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    """The configuration with keys that it has already set to other values.

    Raises: ConfigError.
    """
    tree = copy.deepcopy(tree)
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
    return read_config(tree)
