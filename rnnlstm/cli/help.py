"""The list of keys in `--help`: first those one needs first, last those of single tasks and models."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from rnnlstm.config.errors import show
from rnnlstm.config.keys import choices_of_groups, first_comment, options_of, schema_fields

#: What most commands change; of a task or model, with the default choice's value and meaning.
FIRST: tuple[str, ...] = ("task", "model", "task.length", "model.hidden_size", "model.init", "optimizer.lr")
FIRST += ("clip.threshold", "train.steps", "train.batch_size", "seeds")
#: Choices of these groups have keys of their own.
WITH_KEYS = {"task": "keyword", "model": "lstm"}
WIDTH = 118


def keys() -> str:
    """Every key of the schema with its default, meaning and rule, every choice of the groups and what it is."""
    groups = choices_of_groups()
    general = {key: _line(f"{key}={_default(f)}", f"{f.metadata['help']}{_rule(f)}") for key, f in schema_fields()}
    lines = ["Keys you will need first (change them with key=value)", *(_first(key, general) for key in FIRST)]
    lines += ["\nFurther keys of every run", *(line for key, line in general.items() if key not in FIRST)]
    lines.append("\nGroups (choose one: task=adding)")
    for group, names in groups.items():
        if group in WITH_KEYS:
            lines.append(_line(group, f"{len(names)}, with their keys below: {', '.join(names)}"))
        elif group == "experiment":
            lines.append(_line(group, "a committed set of changes:"))
            lines += [_line(f"  {name}", first_comment(group, name).partition(": python")[0]) for name in names]
        else:
            lines.append(_line(group, ", ".join(names)))
    for group in WITH_KEYS:
        lines += _keys_of_choices(group, groups[group])
    lines.append("\nExit codes: 0 done, 1 a job failed, 2 bad configuration, 3 bad checkpoint, 73 folder in use,")
    lines.append("74 disk failed, 130/143 interrupted: the same command goes on.")
    return "\n".join(lines)


def words() -> list[str]:
    """What an override may begin with: `model=lstm` for every choice of a group, `clip.threshold=` for every key, and
    the values of a key that has only some."""
    groups = choices_of_groups()
    found = [f"{group}={name}" for group, names in groups.items() for name in names]
    for group in WITH_KEYS:
        found += [f"{group}.{key}=" for name in groups[group] for key, *_ in options_of(group, name)]
    for key, f in schema_fields():
        choices = ["true", "false"] if f.type == "bool" else f.metadata["choices"] or [""]
        found += [f"{key}={choice}" for choice in choices]
    return list(dict.fromkeys(found))


def _first(key: str, general: dict[str, str]) -> str:
    if key in general:
        return general[key]
    group, _, name = key.partition(".")
    choice = WITH_KEYS[group]
    if not name:
        return _line(f"{key}={choice}", f"{'what is to be learnt' if key == 'task' else 'the network'}; see below")
    value, meaning = next((value, meaning) for key, value, meaning in options_of(group, choice) if key == name)
    return _line(f"{key}={value}", f"{meaning} ({choice}'s)" if name == "init" else meaning)


def _keys_of_choices(group: str, names: Iterable[str]) -> Iterator[str]:
    """What all choices have, once; then each choice, what it is, and what it alone has."""
    options = {name: options_of(group, name) for name in names}
    defaults = [{key: value for key, value, _ in found} for found in options.values()]
    shared = [key for key, value in defaults[0].items() if all(other.get(key) == value for other in defaults)]
    yield f"\nKeys of the chosen {group}"
    for key in shared:
        meanings = {m for found in options.values() for name, _, m in found if name == key}
        some = "; not every one has all" if len(meanings) > 1 else ""
        yield _line(f"{group}.{key}={defaults[0][key]}", max(meanings, key=len) + some)
    for name, found in options.items():
        yield _line(f"{group}={name}", first_comment(group, name))
        yield from (_line(f"  {group}.{key}={value}", meaning) for key, value, meaning in found if key not in shared)


def _line(what: str, meaning: str) -> str:
    """`what` in a column, its meaning beside it, on as many lines as it takes."""
    first, *more = textwrap.wrap(meaning, WIDTH - 34, break_long_words=False) or [""]
    return "\n".join([f"  {what:<31} {first}".rstrip(), *(f"{'':34}{line}" for line in more)])


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
