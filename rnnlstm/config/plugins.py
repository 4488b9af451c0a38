"""Imports a user's own cells and tasks, from modules that the command line names, before Hydra composes.

Importing runs code, so no file may name a module: `jobs/job.py` accepts `plugins` from the command line only.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import OptionError
from rnnlstm.config.options import REGISTRIES, default_of
from rnnlstm.config.schema import NetworkOptions
from rnnlstm.config.untrusted import config_folder


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules, and make the cells and tasks that they register choices of `model=…` and `task=…`.

    Raises: OptionError if a module can't be imported, or one of its classes has an option without a default.
    """
    modules = list(modules)
    if not modules:
        return
    folder = str(Path.cwd())
    if folder not in sys.path:  # a console script's path lacks the current folder
        sys.path.insert(0, folder)
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            rule = f"can't be imported: {type(error).__name__}: {error}"
            if name.endswith(".py"):
                rule = f"is a file; its module is called {name.removesuffix('.py')}"
            raise OptionError("plugins", name, rule) from error

    network = _defaults(NetworkOptions)
    for group, registry in REGISTRIES.items():
        for name in registry:
            if not (config_folder() / group / f"{name}.yaml").exists():
                options = _defaults(registry[name])
                Composer.offer(group, name, (network | options) if group == "model" else options)


def _defaults(cls: type) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        values[field.name] = default_of(field)
        if values[field.name] is dataclasses.MISSING:
            raise OptionError("plugins", cls.__qualname__, f"its option {field.name} needs a default")
    return values
