"""Run folders below a place, and what their configuration says, for whoever reads runs back."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rnnlstm.options import ConfigError, printable, show
from rnnlstm.plain_yaml import read_yaml
from rnnlstm.record.naming import CONFIG, HOUSEKEEPING, LATER, SEED_FOLDER, flatten, seed_folders

LOG = logging.getLogger("rnnlstm")


def find_run_folders(places: Iterable[str]) -> dict[Path, dict[str, Any]]:
    """Every run folder at or below `places`, with its configuration, flat: `model.init` → `chrono`.

    One whose configuration is damaged is named in a warning. Raises: ConfigError if a place isn't there, or no run is
    found in any.
    """
    places = list(places)
    found: dict[Path, tuple[Path, dict[str, Any]]] = {}
    problems = []
    for place in places:
        try:
            root = Path(place).expanduser()
            if not root.is_dir():
                raise ConfigError(f"{show(place)}: {'is not a folder' if root.exists() else 'no such folder'}")
        except (OSError, ValueError, RuntimeError) as error:  # too long, or ~ of nobody
            raise (error if isinstance(error, ConfigError) else ConfigError(f"{show(place)}: {error}")) from None
        for folder in _candidates(root):
            if folder.resolve() in found:
                continue
            try:
                found[folder.resolve()] = (folder, read_configuration(folder))
            except (ValueError, OSError) as error:
                rule = error.strerror if isinstance(error, OSError) else str(error)
                if _has_seeds(folder):  # else it is some other config.yaml
                    problems.append(printable(f"{folder / CONFIG}: can't be read: {rule}"))
    if not found:
        nothing = f"no runs in {', '.join(show(place) for place in places)}"
        raise ConfigError("; ".join([nothing, *(problems[:3] or ["train some first: python -m rnnlstm.train"])]))
    for problem in problems:
        LOG.warning("%s; the run is left out", problem)
    return dict(found.values())


def read_configuration(folder: Path) -> dict[str, Any]:
    """A run's configuration, flat, with the keys of later versions.

    Raises: ValueError, which says what is wrong with it; OSError.
    """
    tree = read_yaml(folder / CONFIG)
    if not isinstance(tree, dict):
        raise ValueError("is empty" if tree is None else "holds no keys")
    config = {key: value for key, value in flatten(tree) if key not in HOUSEKEEPING or key == "name"}
    for key, value in config.items():
        if not key.isprintable():
            raise ValueError(f"{show(key)}: no key of a configuration")
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError(f"{key}={show(value)}: too large")
    for key in ("task.name", "model.name"):
        if not isinstance(config.get(key), str) or not config[key]:
            raise ValueError(f"{key}={show(config.get(key))}: must be a name")
        config[key] = printable(config[key])
    length = config.get("task.length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or abs(length) >= 2**63):
        raise ValueError(f"task.length={show(length)}: must be a whole number")
    return config | LATER | config  # keys that it is too old to have come last


def _candidates(root: Path) -> Iterator[Path]:
    """Folders that may be runs: they hold a config.yaml, or seeds. What is below one is its own."""
    for place, folders, files in os.walk(root):
        if CONFIG in files or any(SEED_FOLDER.fullmatch(name) for name in folders):
            yield Path(place)
        folders[:] = sorted(name for name in folders if not SEED_FOLDER.fullmatch(name))


def _has_seeds(folder: Path) -> bool:
    try:
        return bool(seed_folders(folder))
    except OSError:
        return False
