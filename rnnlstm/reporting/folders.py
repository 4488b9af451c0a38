"""Folders of runs and seeds, listed while others make and remove them (pathlib's globs stumble over that)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

CONFIG = "config.yaml"


def run_folders(root: Path) -> Iterator[Path]:
    """Every folder below `root` with a configuration in it, by name; the folders of seeds are not looked through."""
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("seed_"))
        if CONFIG in files:
            yield Path(place)


def seed_folders(run_folder: Path) -> dict[int, Path]:
    """The folders of a run's seeds, by seed."""
    try:
        names = [path.name for path in run_folder.iterdir()]
    except OSError:
        return {}
    found = {
        int(match[1]): run_folder / name
        for name in names
        if (match := re.fullmatch(r"seed_(0|[1-9][0-9]{0,18})", name))
    }
    return dict(sorted(found.items()))
