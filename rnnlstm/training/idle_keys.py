"""Idle keys: given by the user, without effect under the configuration's other keys, such as `forget_bias` with
`init=chrono`.

Options declare when they act (`option(acts_if=…)`). A key that acts in no job of a command is refused. One that acts
in some jobs keeps its default in the others, so that no experiment has two names; jobs that become equal are one.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.config.options import condition_words, unmet
from rnnlstm.config.schema import SECTIONS, TOKENS, VARIANTS, NetworkOptions
from rnnlstm.record.folders import plain_numbers

LOG = logging.getLogger("rnnlstm")

Tree = dict[str, Any]


@dataclass(frozen=True)
class Conditional:
    """A key that acts under a condition, in one configuration."""

    section: str
    name: str
    value: Any
    changed: bool  #: whether the value differs from the default
    met: bool  #: whether the key acts
    setting: str  #: what makes it idle: `init=chrono`
    condition: str  #: `model.init=forget_bias`
    idle_is_fine: bool

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def error(self) -> OptionError:
        rule = f"has no effect with {self.setting}; it belongs to {self.condition}"
        return OptionError(self.key, self.value, rule)


def changed_keys(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Section and name of each key of `tree` that differs from `defaults`. Both are checked by `read_config`."""
    return {
        (section, name)
        for section in ("task", "model", *SECTIONS)
        for name, value in tree[section].items()
        if name != "name" and (name not in defaults[section] or value != defaults[section][name])
    }


def conditional_keys(
    tree: Mapping[str, Any], defaults: Mapping[str, Any], keys: Set[tuple[str, str]]
) -> Iterator[Conditional]:
    """Those of `keys` that `tree` has and that act under a condition."""
    changed = changed_keys(tree, defaults)
    for section in dict.fromkeys(section for section, _ in sorted(keys)):
        names = {name for other, name in keys if other == section and name in tree[section]}
        for field in fields_of(section, tree[section].get("name"), names):
            acts_if = field.metadata.get("acts_if")
            if acts_if is not None and field.name in names:
                met, setting = _look(acts_if, section, tree)
                condition, fine = condition_words(acts_if, section), field.metadata["idle_is_fine"]
                differs = (section, field.name) in changed
                yield Conditional(
                    section, field.name, tree[section][field.name], differs, met, setting, condition, fine
                )


def without_idle_keys(trees: Sequence[Tree], defaults: Sequence[Mapping[str, Any]]) -> list[Tree]:
    """The configurations of a command's jobs, with idle keys at their defaults and each job once.

    `defaults[k]` has the choices of `trees[k]`. One line is logged about what was changed.
    Raises: OptionError for an idle key that acts in no job.
    """
    new, settings = _set_back(trees, defaults, refuse=True)
    if not settings:
        return new
    left = _different(trees, new)
    LOG.warning("%s", _line(settings, len(trees), len(trees) - len(left)))
    return left


def trials_without_idle_keys(
    trees: Sequence[Tree], defaults: Sequence[Mapping[str, Any]], whole_space: bool
) -> list[Tree]:
    """The configurations of some trials of a search, with idle keys at their defaults.

    `whole_space`: each key takes all its choices among them. Then an idle key that acts in none is refused, and one
    line is logged about those that act in some. Raises: OptionError.
    """
    new, settings = _set_back(trees, defaults, refuse=whole_space)
    if settings and whole_space:
        LOG.warning("%s", _line(settings))
    return new


def refuse_idle_changes(tree: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raises: OptionError for a key that `tree` has changed, and that has no effect there."""
    for key in conditional_keys(tree, before, changed_keys(tree, before)):
        if not key.met and not key.idle_is_fine:
            raise key.error


def fields_of(section: str, choice: Any, names: set[str]) -> Sequence[dataclasses.Field[Any]]:
    """The options of a section, or of the chosen task or model. None of an unknown choice: the plan refuses it.

    Classes of tasks and cells import torch. They are asked only if `names` are options of their own.
    """
    if section in SECTIONS:
        return dataclasses.fields(VARIANTS.get(section, {}).get(str(choice), SECTIONS[section]))
    network = dataclasses.fields(NetworkOptions) if section == "model" else ()
    if not names - {field.name for field in network}:
        return network
    from rnnlstm.cells import CELLS
    from rnnlstm.tasks import TASKS

    known: Any = TASKS if section == "task" else CELLS
    return (*network, *dataclasses.fields(known[choice])) if choice in known else network


def _look(acts_if: Mapping[str, Sequence[Any]] | str, section: str, tree: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the condition holds, and the key with its value that decides."""
    if isinstance(acts_if, str):
        assert acts_if == TOKENS
        return _has_tokens(tree["task"]), f"task={tree['task']['name']}"
    reason = unmet(acts_if, lambda key: tree[section].get("name" if key == section else key))
    return not reason, condition_words(reason)


def _has_tokens(options: Mapping[str, Any]) -> bool:
    """Whether a task's inputs are tokens. True for one that can't be had: the plan says why."""
    from rnnlstm.tasks import make_task

    try:
        return make_task(options["name"], **{k: v for k, v in options.items() if k != "name"}).num_tokens is not None
    except ConfigError:
        return True


def _set_back(
    trees: Sequence[Tree], defaults: Sequence[Mapping[str, Any]], refuse: bool
) -> tuple[list[Tree], dict[str, dict[int, str]]]:
    """The configurations with idle keys at their defaults; and of each such key, the jobs with what makes it idle."""
    new, settings = list(trees), dict[str, dict[int, str]]()
    given = set[tuple[str, str]]().union(*map(changed_keys, trees, defaults))
    acting: set[str] = set()
    todo: Sequence[int] = range(len(trees))
    while todo:
        found = {number: list(conditional_keys(new[number], defaults[number], given)) for number in todo}
        acting |= {key.key for keys in found.values() for key in keys if key.met}
        idle = {number: [key for key in keys if key.changed and not key.met] for number, keys in found.items()}
        todo = [number for number, keys in idle.items() if keys]  # what is set back may be what another key needs
        for number in todo:
            new[number] = copy.deepcopy(new[number])
            for key in idle[number]:
                if refuse and key.key not in acting and not key.idle_is_fine:
                    raise key.error
                new[number][key.section][key.name] = copy.deepcopy(defaults[number][key.section][key.name])
                settings.setdefault(key.key, {})[number] = key.setting
    return new, settings


def _different(trees: Sequence[Tree], new: Sequence[Tree]) -> list[Tree]:
    """`new` without those that became equal to an earlier one. Jobs that were asked for twice stay: `compose_jobs`
    refuses them."""
    asked: dict[str, set[str]] = {}  # by configuration, what jobs were before
    left = []
    for before, after in zip(trees, new, strict=True):
        old, now = (repr(plain_numbers(tree)) for tree in (before, after))
        earlier = asked.setdefault(now, set())
        if not earlier or old in earlier:
            left.append(after)
        earlier.add(old)
    return left


def _line(settings: Mapping[str, Mapping[int, str]], jobs: int = 1, left_out: int = 0) -> str:
    """What was done, on one line."""
    parts = []
    for key, by_job in settings.items():
        where = f" in {len(by_job):,} of {jobs:,} jobs" if jobs > 1 else ""
        parts.append(f"{key} has no effect with {' or '.join(dict.fromkeys(by_job.values()))}: default kept{where}")
    if left_out:
        parts.append(f"{left_out:,} of {jobs:,} jobs became equal to others and are left out")
    return "; ".join(parts)
