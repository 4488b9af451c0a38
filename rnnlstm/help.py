"""The list of keys in `--help`, read from the schema and from the YAML files' own comments."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rnnlstm.options import show
from rnnlstm.plain_yaml import config_folder
from rnnlstm.schema import SECTIONS, TOP, VARIANTS, Config
from rnnlstm.sections import NetworkOptions


def keys() -> str:
    """Groups to choose from, then every key of the schema with its default, meaning and rule."""
    folder = config_folder()
    lines = ["Groups (choose one: task=adding)"]
    lines += [f"  {group:<28}{', '.join(names)}" for group, names in _groups().items()]
    lines.append("\nKeys of the chosen task and model (defaults and meanings; change with model.hidden_size=128)")
    for group in ("task", "model"):
        for path in sorted((folder / group).glob("*.yaml")):
            lines += [f"  {group}={path.stem}", *(f"    {group}.{entry}" for entry in _yaml_entries(path))]
    lines.append("\nKeys of every run")
    fields = [(key, f) for key, f in _fields()]
    lines += [f"  {f'{key}={_default(f)}':<28}{f.metadata['help']}{_rule(f)}" for key, f in fields]
    lines.append("\nExit codes: 0 done, 1 a job failed, 2 bad configuration, 3 bad checkpoint, 73 folder in use,")
    lines.append("74 disk failed, 130/143 interrupted: the same command goes on.")
    return "\n".join(lines)


def words() -> list[str]:
    """What an override may begin with: `model=lstm` for every choice of a group, `clip.threshold=` for every key, and
    the values of a key that has only some."""
    found = [f"{group}={name}" for group, names in _groups().items() for name in names]
    for group in ("task", "model"):
        for path in sorted((config_folder() / group).glob("*.yaml")):
            found += [f"{group}.{entry.partition('=')[0]}=" for entry in _yaml_entries(path)]
    for key, f in _fields():
        choices = ["true", "false"] if f.type == "bool" else f.metadata["choices"] or [""]
        found += [f"{key}={choice}" for choice in choices]
    return list(dict.fromkeys(found))


def _groups() -> dict[str, list[str]]:
    """Each group's choices."""
    folder = config_folder()
    groups = ("task", "model", "optimizer", "clip", "probe", "curriculum", "launcher", "search", "experiment")
    return {
        group: sorted(str(p.relative_to(folder / group).with_suffix("")) for p in (folder / group).rglob("*.yaml"))
        for group in groups
    }


def _fields() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    for section, cls in SECTIONS.items():
        variants = [cls, *VARIANTS.get(section, {}).values()]
        seen: set[str] = {"name"}
        for variant in variants:
            for f in dataclasses.fields(variant):
                if f.name not in seen:
                    seen.add(f.name)
                    yield f"{section}.{f.name}", f
    top = {f.name: f for f in dataclasses.fields(Config)}
    for name in TOP:
        yield name, top[name]


def _default(f: dataclasses.Field[Any]) -> str:
    value = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
    return f"{value:g}" if isinstance(value, float) else show(value)


def _rule(f: dataclasses.Field[Any]) -> str:
    rules = []
    if f.metadata["above"] is not None:
        rules.append(f"above {f.metadata['above']:,}")
    if f.metadata["at_least"] is not None:
        rules.append(f"at least {f.metadata['at_least']:,}")
    if f.metadata["below"] is not None:
        rules.append(f"below {f.metadata['below']:,}")
    if f.metadata["choices"]:
        rules.append(" or ".join(f.metadata["choices"]))
    return f" [{', '.join(rules)}]" if rules else ""


def _yaml_entries(path: Path) -> Iterator[str]:
    """`length=100     the whole text, in tokens` and so on: a group file's keys and comments."""
    known = {f.name: f.metadata["help"] for f in dataclasses.fields(NetworkOptions)}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, rest = line.partition(":")
        if not colon or key.startswith("#") or key == "name":
            continue
        value, _, comment = rest.partition("#")
        yield f"{f'{key}={value.strip()}':<24}{comment.strip() or known.get(key, '')}".rstrip()
