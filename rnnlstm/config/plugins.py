"""A user's own cells and tasks: modules named on the command line, imported before the configuration is composed.

Importing runs code, so the names are taken from the command line alone, never from a file.
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
from rnnlstm.config.registry import REGISTRIES
from rnnlstm.config.safety import config_folder
from rnnlstm.config.schema import NetworkOptions


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules, and offer the cells and tasks they register as `model=…` and `task=…`.

    Raises: OptionError if a module can't be imported, or a class of its has options without defaults.
    """
    modules = list(modules)
    if not modules:
        return
    folder = str(Path.cwd())
    if folder not in sys.path:  # a console script doesn't look in the current folder by itself
        sys.path.insert(0, folder)
    for name in modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise OptionError("plugins", name, f"can't be imported: {type(error).__name__}: {error}") from error

    network = _defaults(NetworkOptions)
    for group, registry in REGISTRIES.items():
        for name in registry:
            if not (config_folder() / group / f"{name}.yaml").exists():
                options = _defaults(registry[name])
                Composer.offer(group, name, (network | options) if group == "model" else options)


def _defaults(cls: type) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        else:
            raise OptionError("plugins", cls.__qualname__, f"its option {field.name} needs a default")
    return values
