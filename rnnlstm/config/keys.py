"""Every key and choice there is, read from the schema and from the YAML files' own comments."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnnlstm.config.safety import config_folder
from rnnlstm.config.schema import SECTIONS, TOP, VARIANTS, Config, NetworkOptions

#: Keys that `rnnlstm.gradflow` takes besides the trainer's.
GRADFLOW = ("weights", "show", "out", "sequences")
#: Values of its `show`.
PARTS = ("flow", "surgery", "activations", "map")


def choices_of_groups() -> dict[str, list[str]]:
    """Each group's choices."""
    folder = config_folder()
    groups = ("task", "model", "optimizer", "clip", "probe", "curriculum", "launcher", "search", "experiment")
    return {
        group: sorted(str(p.relative_to(folder / group).with_suffix("")) for p in (folder / group).rglob("*.yaml"))
        for group in groups
    }


def schema_fields() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Keys that are the same for every task and model, each with its field."""
    for section, cls in SECTIONS.items():
        seen: set[str] = {"name"}
        for variant in [cls, *VARIANTS.get(section, {}).values()]:
            for f in dataclasses.fields(variant):
                if f.name not in seen:
                    seen.add(f.name)
                    yield f"{section}.{f.name}", f
    top = {f.name: f for f in dataclasses.fields(Config)}
    for name in TOP:
        yield name, top[name]


def options_of(group: str, choice: str) -> list[tuple[str, str, str]]:
    """Key, default and meaning of each option in a choice's YAML file: `length`, `100`, `the whole text`."""
    known = {f.name: f.metadata["help"] for f in dataclasses.fields(NetworkOptions)}
    found = []
    for line in _yaml_file(group, choice).read_text(encoding="utf-8").splitlines():
        key, colon, rest = line.partition(":")
        if colon and not key.startswith("#") and key != "name":
            value, _, comment = rest.partition("#")
            found.append((key, value.strip(), comment.strip() or known.get(key, "")))
    return found


def first_comment(group: str, choice: str) -> str:
    """What a choice's YAML file says of it, in its first line of comment."""
    lines = _yaml_file(group, choice).read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]
    return comments[0] if comments else ""


@functools.cache
def every_key() -> tuple[str, ...]:
    """Groups and whole keys, those of each task and model among them."""
    groups = choices_of_groups()
    found = [*groups, *(key for key, _ in schema_fields())]
    found += [f"{g}.{key}" for g in ("task", "model") for choice in groups[g] for key, *_ in options_of(g, choice)]
    return tuple(dict.fromkeys(found))


def _yaml_file(group: str, choice: str) -> Path:
    return config_folder() / group / f"{choice}.yaml"
