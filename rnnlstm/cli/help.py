"""The list of keys in `--help`, and Tab completion. Both come from the schema and from the YAML of tasks and models.

The list starts with the keys that one needs first and ends with those of single tasks and models.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import show
from rnnlstm.config.options import REGISTRIES, condition_words, default_of
from rnnlstm.config.schema import (
    PARTS,
    choices_in,
    choices_of_groups,
    choices_of_sections,
    first_comment,
    options_of,
    schema_fields,
)
from rnnlstm.config.untrusted import own_folder

#: The keys that most commands change.
FIRST: tuple[str, ...] = ("task", "model", "task.length", "model.hidden_size", "model.init", "optimizer.lr")
FIRST += ("clip.threshold", "train.steps", "train.batch_size", "seeds")
#: Groups whose choices have keys of their own, with the default choice: `keys` shows its values.
WITH_KEYS = {"task": "keyword", "model": "lstm"}
#: Widest and narrowest list, in characters, and the column of what a key means.
WIDEST, NARROWEST, COLUMN = 118, 72, 34


def keys(config_dir: str | None = None) -> str:
    """Every key with its default, help and rule, and every choice of the groups with what it is. First what is the
    user's own: choices in the folder `config_dir`, and cells and tasks of plugins that have been imported.

    Raises: ConfigError if the folder can't be read.
    """
    groups = choices_of_groups()
    general = {key: _line(f"{key}={_default(f)}", help_and_rule(f)) for key, f in schema_fields()}
    lines = ["Keys you will need first (change them with key=value)", *(_first(key, general) for key in FIRST)]
    if own := [*_own_classes(groups), *(_own_files(own_folder(config_dir), groups) if config_dir else ())]:
        lines += ["\nYour own", *own]
    lines += ["\nFurther keys of every run", *(line for key, line in general.items() if key not in FIRST)]
    lines.append("\nGroups (choose one: task=adding)")
    for group in WITH_KEYS:
        lines.append(_line(group, f"{len(groups[group])}, with their keys below: {', '.join(groups[group])}"))
    for group, choices in choices_of_sections():
        lines += [_line(f"{group}={name}", meaning) for name, meaning in choices.items()]
    lines.append(_line("experiment", "a committed set of changes:"))
    for name in groups["experiment"]:
        lines.append(_line(f"  {name}", first_comment("experiment", name).partition(": python")[0]))
    for group in WITH_KEYS:
        lines += _keys_of_choices(group, groups[group])
    lines.append("\nExit codes: 0 done, 1 a job failed, 2 bad configuration, 3 bad checkpoint, 73 folder in use,")
    lines.append("74 disk failed, 130/143 interrupted after saving: the same command resumes.")
    return "\n".join(lines)


def _own_classes(groups: Mapping[str, list[str]]) -> Iterator[str]:
    """The registered cells and tasks that have no YAML file here, with their keys."""
    for group, registry in REGISTRIES.items():
        for name in registry:
            if name not in groups[group]:
                yield _line(f"{group}={name}", (registry[name].__doc__ or "").strip().partition("\n")[0])
                for f in dataclasses.fields(registry[name]):
                    meaning = help_and_rule(f) if "help" in f.metadata else ""
                    yield _line(f"  {group}.{f.name}={_default(f)}", meaning)


def _own_files(folder: Path, groups: Mapping[str, list[str]]) -> Iterator[str]:
    """The choices in a folder of YAML files that the project's own folder lacks."""
    for group, names in choices_in(folder).items():
        for name in names:
            if name not in groups[group]:
                meaning = first_comment(group, name, folder).partition(": python")[0]
                yield _line(f"{group}={name}", meaning)


def help_and_rule(field: dataclasses.Field[Any]) -> str:
    """An option's help, then when it acts, its bounds, and its choices where the help does not name them."""
    rules = field.metadata
    acts = f", with {condition_words(rules['acts_if'])}" if rules["acts_if"] else ""
    bounds = [("above", "above"), ("at_least", "at least"), ("below", "below")]
    limits = [f"{words} {rules[name]:,}" for name, words in bounds if rules[name] is not None]
    if rules["at_most"] is not None and rules["at_most"] <= 1:  # the others only catch slips of the keyboard
        limits.append(f"at most {rules['at_most']:,}")
    if rules["choices"] and not all(str(choice) in rules["help"] for choice in rules["choices"]):
        limits.append(", ".join(map(str, rules["choices"])))
    return f"{rules['help']}{acts} [{', '.join(limits)}]" if limits else f"{rules['help']}{acts}"


def _first(key: str, general: dict[str, str]) -> str:
    if key in general:
        return general[key]
    group, _, name = key.partition(".")
    choice = WITH_KEYS[group]
    if not name:
        return _line(f"{key}={choice}", f"{'the task to learn' if key == 'task' else 'the network'}; see below")
    value, meaning = next((value, meaning) for key, value, meaning in options_of(group, choice) if key == name)
    return _line(f"{key}={value}", f"{choice}: {meaning}" if name == "init" else meaning)


def _keys_of_choices(group: str, names: Iterable[str]) -> Iterator[str]:
    """The keys that all choices share, once; then each choice, what it is, and its other keys."""
    options = {name: options_of(group, name) for name in names}
    shared = set.intersection(*(set(its_options) for its_options in options.values()))
    yield f"\nKeys of the chosen {group}"
    for option in next(iter(options.values())):
        if option in shared:
            key, value, meaning = option
            yield _line(f"{group}.{key}={value}", meaning)
    for name, its_options in options.items():
        yield _line(f"{group}={name}", first_comment(group, name))
        yield from (
            _line(f"  {group}.{option[0]}={option[1]}", option[2]) for option in its_options if option not in shared
        )


def _line(what: str, meaning: str) -> str:
    """`what` in a column, its meaning beside it, wrapped."""
    width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size((WIDEST, 24)).columns))
    first, *more = textwrap.wrap(meaning, width - COLUMN, break_long_words=False) or [""]
    return "\n".join([f"  {what:<{COLUMN - 3}} {first}".rstrip(), *(f"{'':{COLUMN}}{line}" for line in more)])


def _default(f: dataclasses.Field[Any]) -> str:
    value = default_of(f)
    return f"{value:g}" if isinstance(value, float) else show(value)


# -- Tab completion for bash, and for zsh through bashcompinit. The script holds the words, so that a press of Tab
# starts no Python. It knows no plugins.

#: Commands that take key=value, and their further arguments.
COMPOSED = {
    "rnnlstm-train": ["--multirun", "--cfg=job", "--config-dir", "--help", "--version", "--completion=bash"],
    "rnnlstm-gradflow": [
        "weights=",
        *(f"show={part}" for part in PARTS),
        "out=",
        "sequences=",
        "--help",
        "--version",
    ],
}

SCRIPT = r"""# Tab completion of rnnlstm's commands. In ~/.bashrc:   eval "$(rnnlstm-train --completion=bash)"
# In ~/.zshrc, before that line:                          autoload -U bashcompinit && bashcompinit
_rnnlstm_complete() { # $1: the words; bash cuts the line at = and :, so what is typed is taken from the line itself
    local line=${COMP_LINE:0:$COMP_POINT} typed word
    typed=${line##*[[:space:]]}
    COMPREPLY=()
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$1" -- "$typed")
    [[ $COMP_WORDBREAKS == *=* && $typed == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${typed%="${typed##*=}"}="}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
"""


def bash_script(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """A script for bash to evaluate. `parsers` are those of the commands with flags, by the command's name."""
    keys = words()
    parts = [SCRIPT]
    for command, flags in COMPOSED.items():
        parts.append(_function(command, [*flags, *keys]))
    for name, parser in parsers.items():
        parts.append(
            _function(f"rnnlstm-{name}", [flag for action in parser._actions for flag in action.option_strings])
        )
    return "".join(parts)


def words() -> list[str]:
    """What an override may begin with: `model=lstm` for each choice of a group, `clip.threshold=` for each key, and
    `resume=never` for each value of a key with choices."""
    groups = choices_of_groups()
    beginnings = [f"{group}={name}" for group, names in groups.items() for name in names]
    for group in WITH_KEYS:
        beginnings += [f"{group}.{key}=" for name in groups[group] for key, *_ in options_of(group, name)]
    for key, f in schema_fields():
        choices = ["true", "false"] if f.type == "bool" else f.metadata["choices"] or [""]
        beginnings += [f"{key}={choice}" for choice in choices]
    return list(dict.fromkeys(beginnings))


def _function(command: str, choices: list[str]) -> str:
    name = f"_{command.replace('-', '_')}"
    quoted = shlex.quote(" ".join(choices))
    return f"{name}() {{ _rnnlstm_complete {quoted}; }}\ncomplete -o default -F {name} {command}\n"
