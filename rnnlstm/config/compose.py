"""Turns overrides from a command line into plain configuration trees.

Hydra composes the YAML files and the schema's defaults. Errors of Hydra and OmegaConf become a `ConfigError` of one
line. Hydra takes a tenth of a second per job, so the jobs of a sweep share what they have in common: the composer
caches Hydra's result for the overrides that choose (`model=rnn`), and sets single values (`seed=3`) itself.
"""

from __future__ import annotations

import copy
import functools
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from rnnlstm.config.errors import ConfigError, OptionError, did_you_mean, show
from rnnlstm.config.hydra_habits import CHOICES, OTHERWISE, instead_of_key
from rnnlstm.config.schema import (
    SECTIONS,
    TOP,
    choices_of_sections,
    default_section,
    default_top,
    every_key,
    unknown_key,
)
from rnnlstm.config.untrusted import (
    GROUPS,
    check_override,
    check_references,
    config_folder,
    own_folder,
    read_yaml,
    resolve,
    yaml_problem,
)

#: The most jobs of one sweep.
MOST_JOBS = 10_000
#: Characters of a value that is repeated with quotes.
LONGEST_QUOTED = 200
#: The group that needs no choice: train.yaml has `experiment: null`.
OPTIONAL = "experiment"
#: The first part of a key that an override may change.
MAPPING = "launcher.sbatch"  # the one key whose value is a mapping
OPEN = ("task", "model", *SECTIONS, *TOP, OPTIONAL)

Tree = dict[str, Any]

#: The entries of Hydra's ConfigStore while this project composes: its own, and Hydra's.
_ENTRIES: dict[str, Any] = {}
#: Entries, and resolvers, that Hydra registers for itself.
_OF_HYDRA, _RESOLVERS = ("hydra", "_dummy_empty_config_.yaml"), ("now", "hydra", "python_version")


class Composer:
    """Composes configurations within `with composer.active()`, which sets Hydra up, and then leaves it as it was.

    `extra` is a folder with the user's own YAML. `also` are further keys of the command,
    suggested for a mistyped one.
    """

    def __init__(self, extra: str | None = None, also: Sequence[str] = ()) -> None:
        self.also = also
        self.own = None if extra is None else own_folder(extra)
        self.search = [] if self.own is None else [f"hydra.searchpath=['{self.own}']"]
        self._bare = functools.lru_cache(maxsize=256)(self._compose_bare)
        self._base = functools.lru_cache(maxsize=256)(self._hydra)  # the same for most jobs of a sweep
        self._choices = functools.lru_cache(maxsize=256)(self._find_choices)

    @contextmanager
    def active(self) -> Iterator[Composer]:
        with _own_hydra():
            offer_sections()
            with initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"):
                yield self

    def compose(self, overrides: Sequence[str]) -> Tree:
        """The configuration for these overrides, references resolved.

        Hydra composes every override but the plain ones: `key=value`, where the key exists and is no group, and the
        value is a number, true, false, null or a list of those. Such a value replaces what Hydra composed without it.
        Strings are left to Hydra, which parses quotes and references; so are choices (`model=rnn`), sections
        (`train={…}`), new keys (`+`, `++`) and removed keys (`~`), and the plain overrides of a key that one of these
        also sets, since the last one wins. Where a plain value has no key to go to, Hydra
        composes all overrides, and raises the error.

        Raises: ConfigError.
        """
        parsed = self.checked(overrides)
        for override in parsed:
            if override.is_sweep_override():
                rule = "several values make a sweep; start it with -m"
                raise OptionError(override.key_or_group, value_text(override), rule)
        plain: list[Override] = []
        others: list[Override] = []
        values = [o.key_or_group for o in parsed if not self._is_plain(o) and not self._is_choice(o)]
        for override in parsed:
            key = override.key_or_group
            also_set_by_hydra = any(f"{key}.".startswith(f"{other}.") for other in values)
            (plain if self._is_plain(override) and not also_set_by_hydra else others).append(override)
        try:
            tree = copy.deepcopy(self._base(tuple(str(override.input_line) for override in others)))
            done = all(_set_value(tree, override.key_or_group, override.value()) for override in plain)
        except ConfigError:
            done = False
        return resolve(tree if done else self._hydra(overrides))

    def sweep(self, overrides: Sequence[str], at_most: int = MOST_JOBS) -> list[list[str]]:
        """The overrides of each job: every combination of the listed values; the last key varies fastest.

        Raises: ConfigError.
        """
        choices: list[list[str]] = []
        for override in self.checked(overrides):
            if not override.is_sweep_override():
                choices.append([str(override.input_line)])
                continue
            choices.append([f"{override.get_key_element()}={value}" for value in listed(override)])
        count = functools.reduce(lambda a, b: a * len(b), choices, 1)
        if count > at_most:
            raise ConfigError(f"the sweep has {count:,} jobs or more; at most {at_most:,} are taken")
        return [list(job) for job in itertools.product(*choices)]

    def checked(self, overrides: Sequence[str], intervals: bool = False) -> list[Override]:
        """The overrides, parsed and checked. `intervals`: a search is there to choose from an interval.

        Raises: ConfigError.
        """
        parsed = self.parse(overrides)
        for override in parsed:
            self._check(override, intervals)
        return parsed

    @staticmethod
    def offer(group: str, name: str, options: Mapping[str, Any]) -> None:
        """Make `<group>=<name>` a choice with these keys, without a YAML file."""
        with _own_entries() as store:
            store.store(group=group, name=name, node={"name": name, **options}, provider="rnnlstm")

    def defaults_of(self, tree: Mapping[str, Any]) -> Tree:
        """The default configuration with the same choice in every group as `tree`."""
        for group in GROUPS:  # the name comes from a configuration, and Hydra would take it for a path
            names = self._choices(group)
            if tree[group]["name"] not in names:
                hint = did_you_mean(tree[group]["name"], names)
                raise OptionError(f"{group}.name", tree[group]["name"], f"must be one of {', '.join(names)}{hint}")
        return self._bare(tuple(f"{group}={tree[group]['name']}" for group in GROUPS))

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = []
        for text in overrides:
            check_override(text)
            try:
                parsed += parser.parse_overrides([text])
            except (HydraException, ValueError):
                raise _unreadable(text, parser) from None
            except RecursionError:
                raise ConfigError(f"can't read {show(text)}: too many brackets within each other") from None
            if not parsed[-1].key_or_group:
                raise _unreadable(text, parser)
        return parsed

    def _check(self, override: Override, intervals: bool) -> None:
        """Refuses what Hydra would accept, or would refuse in many lines."""
        key = override.key_or_group
        top = key.split(".")[0].split("/")[0]
        if top == "hydra":
            instead = instead_of_key(key, value_text(override)) or OTHERWISE
            raise ConfigError(f"{show(override.input_line)}: Hydra's own key, not taken here; {instead}")
        if top not in OPEN:
            raise unknown_key(key, value_text(override), (), [*self.also, *OPEN, *every_key()])
        if override.package is not None:
            raise ConfigError(f"{show(override.input_line)}: a choice can't be put elsewhere with @")
        check_references(key, value_text(override))
        swept = override.is_sweep_override()
        if swept:
            _refuse_endless(override, intervals)
        else:
            check_references(key, override.value())
        names = self._choices(key) if key and "." not in key else []
        if not names:
            return
        if override.is_delete():
            raise ConfigError(f"~{key}: a group can be changed, not removed")
        values: list[Any] = [value_text(override) if override.is_interval_sweep() else override.value()]
        if swept and not override.is_interval_sweep():
            with one_line():
                values = list(itertools.islice(override.sweep_iterator(), MOST_JOBS))
        for value in values:
            if value is None and key == OPTIONAL:
                continue
            if isinstance(value, list | dict) or str(value) not in names:
                habit = instead_of_key(key, str(value)) if str(value) in CHOICES.get(key, ()) else None
                hint = f"; {habit}" if habit else did_you_mean(str(value), names)
                own = f"; a {key} of your own needs plugins=[MODULE]" if key in ("model", "task") else ""
                raise OptionError(key, value, f"must be one of {', '.join(names)}{hint}{own}")

    def _find_choices(self, group: str) -> list[str]:
        """The names in a group, the user's own included; those in a subfolder as `folder/name`. Empty if there is no
        such group."""
        loader = GlobalHydra.instance().config_loader()

        def inside(place: str, what: ObjectType) -> list[str]:
            return loader.get_group_options(place, what, config_name="train", overrides=self.search)

        folders = inside(group, ObjectType.GROUP)
        deeper = [f"{name}/{choice}" for name in folders for choice in inside(f"{group}/{name}", ObjectType.CONFIG)]
        return [*inside(group, ObjectType.CONFIG), *deeper]

    def _hydra(self, overrides: Sequence[str]) -> Tree:
        """What Hydra composes, references unresolved."""
        try:
            with one_line(overrides):
                config = compose("train", overrides=[*self.search, *_for_hydra(overrides)])
                tree = OmegaConf.to_container(config, resolve=False, throw_on_missing=True)
        except ConfigError:
            self._check_own_experiments(overrides)
            raise
        return dict(tree)  # type: ignore[arg-type]

    def _check_own_experiments(self, overrides: Sequence[str]) -> None:
        """Hydra's words for a defaults list that it refuses name neither the file nor what could stand there.

        Raises: ConfigError, which does.
        """
        if self.own is None:
            return
        for text in overrides:
            group, _, name = text.partition("=")
            path = self.own / OPTIONAL / f"{name}.yaml"
            if group != OPTIONAL or not path.is_file():
                continue
            defaults = (read_yaml(path.resolve()) or {}).get("defaults", [])  # a link to a file was checked, too
            for wrong in filter(None, map(self._wrong_default, defaults)):
                raise ConfigError(f"{path}: defaults: {wrong}")

    def _wrong_default(self, entry: Any) -> str:
        """What is wrong with an entry of an experiment's defaults list, or the empty string."""
        if not isinstance(entry, dict):
            names = self._choices(OPTIONAL)
            missing = entry != "_self_" and entry not in names
            return f"there is no experiment {show(entry)}{did_you_mean(entry, names)}" if missing else ""
        ((words, choice),) = entry.items()
        place = words.split()[-1]
        group = place.lstrip("/")
        names = self._choices(group)
        if not names:
            return f"there is no group {show(group)}{did_you_mean(group, GROUPS)}"
        if choice is not None and choice not in names:
            return f"{group}={show(choice)}: must be one of {', '.join(names)}{did_you_mean(str(choice), names)}"
        if not words.startswith("override ") or not place.startswith("/"):
            return f"write override /{group}: {show(choice)}"
        return ""

    def _is_plain(self, override: Override) -> bool:
        """Whether `_set_value` can handle this override: see `compose`."""
        value = override.value()
        simple = all(isinstance(v, int | float | None) for v in (value if isinstance(value, list) else [value]))
        return override.type == OverrideType.CHANGE and simple and not self._is_choice(override)

    def _is_choice(self, override: Override) -> bool:
        """Whether this override chooses in a group: `model=rnn`."""
        key = override.key_or_group
        return "." not in key and bool(self._choices(key))

    def _compose_bare(self, choices: tuple[str, ...]) -> Tree:
        return resolve(self._hydra(choices))


def offer_sections() -> None:
    """Give Hydra the schema's defaults: each choice of a section's group, and `every_other_key` of train.yaml."""
    groups = dict(choices_of_sections())
    for group, choices in groups.items():
        for name in choices:
            Composer.offer(group, name, default_section(group, name))
    others = {section: default_section(section) for section in SECTIONS if section not in groups} | default_top()
    with _own_entries() as store:
        store.store(name="every_other_key", node=others, provider="rnnlstm")


@contextmanager
def _own_entries() -> Iterator[ConfigStore]:
    """Hydra's ConfigStore without the caller's entries, which neither see nor are seen by this project's."""
    store = ConfigStore.instance()
    callers = store.repo
    _ENTRIES.update({name: callers[name] for name in _OF_HYDRA if name in callers})
    store.repo = _ENTRIES
    try:
        yield store
    finally:
        store.repo = callers


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra without the caller's state, which is the same again afterwards: `rnnlstm.run` may be called in an
    application of Hydra's, between the jobs of its sweep."""
    with _own_entries(), ExitStack() as stack:
        theirs, version = GlobalHydra.instance(), VersionBase.instance()
        stack.callback(GlobalHydra.set_instance, theirs)
        stack.callback(VersionBase.set_instance, version)
        GlobalHydra.set_instance(copy.copy(theirs))
        VersionBase.set_instance(copy.copy(version))
        GlobalHydra.instance().clear()
        stack.callback(JobRuntime.instance().set, "name", JobRuntime.instance().get("name"))
        stack.callback(_restore_resolvers, dict(BaseContainer._resolvers))
        yield


def _restore_resolvers(before: Mapping[str, Any]) -> None:
    for name in _RESOLVERS:
        OmegaConf.clear_resolver(name)
        if name in before:
            BaseContainer._resolvers[name] = before[name]


def _set_value(tree: Tree, key: str, value: Any) -> bool:
    """Set a key that has a value or a list already. Returns False, with `tree` unchanged, if there is no such key."""
    *above, name = key.split(".")
    for step in above:
        tree = tree.get(step, {})
        if not isinstance(tree, dict):
            return False
    if name not in tree or isinstance(tree[name], dict):
        return False
    tree[name] = value
    return True


def _for_hydra(overrides: Sequence[str]) -> list[str]:
    """The overrides without `experiment=null`, which undoes any choice before it: Hydra accepts it in files only. A
    mapping's keys are new ones to Hydra."""
    given: list[str] = []
    for text in overrides:
        key, _, value = text.partition("=")
        if key == OPTIONAL and value.strip().lower() == "null":
            given = [earlier for earlier in given if not earlier.startswith(f"{OPTIONAL}=")]
        else:
            given.append(f"++{text}" if key == MAPPING else text)
    return given


def _unreadable(text: str, parser: OverridesParser) -> ConfigError:
    key, _, value = text.partition("=")
    quoted = _quoted(key, value, parser)
    if quoted is not None:
        return ConfigError(f"can't read {show(text)}: write it with quotes for Hydra and for the shell: {quoted}")
    spaces = "" if key and value else ", no spaces around ="
    return ConfigError(f"can't read {show(text)}: an override is written key=value{spaces}")


def _quoted(key: str, value: str, parser: OverridesParser) -> str | None:
    """The override as a shell takes it, with Hydra's quotes around what its grammar refuses (é, #, ~): around each
    such part of a list, else around the whole value. None if quotes don't help, or change a reference."""

    def quote(part: str) -> str:
        return '"' + part.strip().replace('"', r"\"") + '"'

    def readable(text: str) -> bool:
        try:
            return parser.parse_override(text).key_or_group == key
        except (HydraException, ValueError, RecursionError):
            return False

    if not key or not value or len(value) > LONGEST_QUOTED or "${" in value:
        return None
    parts = re.sub(r"[^][{}(),:]+", lambda part: part[0] if readable(f"{key}={part[0]}") else quote(part[0]), value)
    whole = [] if value.startswith(("[", "{")) else [quote(value)]
    return next((shlex.quote(f"{key}={form}") for form in [parts, *whole] if readable(f"{key}={form}")), None)


def value_text(override: Override) -> str:
    """An override's value as it was written."""
    return str(override.input_line).partition("=")[2]


def listed(override: Override) -> list[str]:
    """The values of a sweep over a key, as they are written in overrides. Raises: ConfigError."""
    with one_line():
        values = list(itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1))
    if not values:
        raise OptionError(override.key_or_group, value_text(override), "an empty sweep")
    return values


def _refuse_endless(override: Override, intervals: bool) -> None:
    """Refuses intervals that nothing chooses from, and ranges longer than a sweep: Hydra would list them first."""
    value = override.value()
    if override.is_interval_sweep() and not intervals:
        rule = "an interval has no values to go through; -m search=optuna chooses from it"
        raise OptionError(override.key_or_group, value_text(override), rule)
    if isinstance(value, RangeSweep):
        start, stop, step = value.start or 0, value.stop or 0, value.step
        if step == 0:
            raise OptionError(override.key_or_group, value_text(override), "a range needs a step")
        if not abs(stop - start) <= abs(step) * MOST_JOBS:
            raise ConfigError(f"{show(override.input_line)}: the sweep has more than {MOST_JOBS:,} jobs")


@contextmanager
def one_line(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Turns errors of Hydra, OmegaConf and YAML into a ConfigError of one line that names the key, where they do."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        cause: BaseException | None = error
        while cause is not None and not getattr(cause, "full_key", None):
            cause = cause.__cause__ or cause.__context__
        key = getattr(cause, "full_key", None)
        parent = getattr(cause, "parent_node", None)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        first_line = " ".join(lines[: 1 + lines[0].endswith(":")]).rstrip(".")
        if key and "Could not override" in first_line:
            known = (
                [str(k) for k in parent if k != "name"] if parent is not None and OmegaConf.is_dict(parent) else []
            )
            value = next((text.partition("=")[2] for text in overrides if text.partition("=")[0] == key), "")
            raise unknown_key(key, value, known, every_key()) from None
        raise ConfigError(f"{key}: {first_line}" if key and key not in first_line else first_line) from None
    except (RecursionError, UnicodeError, OSError, ValueError) as error:  # circular or unreadable YAML
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the configuration can't be read: {show(str(error))}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"the configuration can't be read: {yaml_problem(error)}") from None
