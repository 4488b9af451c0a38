"""Writes configs/task and configs/model: each class's options with their defaults and help. `scripts/readme` runs it.

The classes hold the options but import torch, which `--help` and a bad configuration should not wait for. The first
line of a file says what the task or cell is; it is written by hand and kept.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from rnnlstm.cells import CELLS
from rnnlstm.cli.help import help_and_rule
from rnnlstm.config.options import Registry, default_of
from rnnlstm.config.schema import NetworkOptions
from rnnlstm.config.untrusted import config_folder
from rnnlstm.tasks import TASKS

#: The keys of every network that come before those of its cell.
SIZES = 3


def text_of(registry: Registry[type], name: str, first_line: str) -> str:
    """The YAML file of one task or model."""
    fields = dataclasses.fields(registry[name])
    if registry is CELLS:
        network = dataclasses.fields(NetworkOptions)
        fields = (*network[:SIZES], *fields, *network[SIZES:])
    lines = [
        first_line,
        f"# scripts/readme writes what follows, from the class {registry[name].__name__}.",
        f"name: {name}",
    ]
    for field in fields:
        value = yaml.safe_dump({field.name: default_of(field)}).strip()
        lines.append(f"{value}  # {help_and_rule(field)}")
    return "\n".join(lines) + "\n"


def texts() -> dict[Path, str]:
    """The text of each file, by its path."""
    by_path = {}
    for group, registry in (("task", TASKS), ("model", CELLS)):
        for name in registry:
            path = config_folder() / group / f"{name}.yaml"
            by_path[path] = text_of(registry, name, path.read_text(encoding="utf-8").splitlines()[0])
    return by_path


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")
