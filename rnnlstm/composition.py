"""From overrides on a command line to plain configuration trees. The one module that knows Hydra.

Hydra composes the YAML files; everything it or OmegaConf objects to comes out as a `ConfigError` of one line.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rnnlstm import guard, plain_yaml
from rnnlstm.options import ConfigError, OptionError, did_you_mean, show
from rnnlstm.schema import SECTIONS, TOP, unknown_key

#: Most jobs of one sweep.
MOST_JOBS = 10_000
#: Groups that every configuration has a choice of.
GROUPS = ("task", "model", "optimizer", "clip", "probe", "curriculum")
#: The group that may be left out: `experiment=null`, as in train.yaml.
OPTIONAL = "experiment"
#: What an override may begin with.
OPEN = ("task", "model", *SECTIONS, *TOP, OPTIONAL)

Tree = dict[str, Any]


def config_folder() -> Path:
    """Where the YAML files are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


class Composer:
    """Composes configurations; a context within which Hydra is set up. `extra` is a folder of the user's own YAML."""

    def __init__(self, extra: str | None = None) -> None:
        self.search: list[str] = []
        if extra is not None:
            self.search = [f"hydra.searchpath=['{plain_yaml.own_folder(extra)}']"]
        self._bare = functools.lru_cache(maxsize=256)(self._compose_bare)

    @contextmanager
    def active(self) -> Iterator[Composer]:
        GlobalHydra.instance().clear()
        with initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"):
            yield self

    def compose(self, overrides: Sequence[str]) -> Tree:
        """The configuration for these overrides, interpolations resolved.

        Raises: ConfigError.
        """
        for override in self.parse(overrides):
            self._check(override)
            if override.is_sweep_override():
                rule = "several values make a sweep; start it with -m"
                raise OptionError(override.key_or_group, value_text(override), rule)
        return self._compose(overrides)

    def sweep(self, overrides: Sequence[str], at_most: int = MOST_JOBS) -> list[list[str]]:
        """The overrides of each job: every combination of the listed values, the last key varying fastest.

        Raises: ConfigError.
        """
        choices: list[list[str]] = []
        for override in self.parse(overrides):
            self._check(override)
            if not override.is_sweep_override():
                choices.append([str(override.input_line)])
                continue
            with _one_line():
                values = list(itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1))
            if not values:
                raise OptionError(override.key_or_group, value_text(override), "an empty sweep")
            choices.append([f"{override.get_key_element()}={value}" for value in values])
        count = functools.reduce(lambda a, b: a * len(b), choices, 1)
        if count > at_most:
            raise ConfigError(f"the sweep has {count:,} jobs or more; at most {at_most:,} are taken")
        return [list(job) for job in itertools.product(*choices)]

    @staticmethod
    def offer(group: str, name: str, options: Mapping[str, Any]) -> None:
        """Make `<group>=<name>` a choice with these keys: for a user's own class, which has no YAML file."""
        ConfigStore.instance().store(group=group, name=name, node={"name": name, **options}, provider="rnnlstm")

    def defaults_of(self, tree: Mapping[str, Any]) -> Tree:
        """The default configuration with the same choice in every group as `tree`."""
        for group in GROUPS:  # a name that is no choice could lead to a file anywhere
            names = self._choices(group)
            if tree[group]["name"] not in names:
                hint = did_you_mean(tree[group]["name"], names)
                raise OptionError(f"{group}.name", tree[group]["name"], f"must be one of {', '.join(names)}{hint}")
        return self._bare(tuple(f"{group}={tree[group]['name']}" for group in GROUPS))

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = []
        for text in overrides:
            guard.check_override(text)
            try:
                parsed += parser.parse_overrides([text])
            except (HydraException, ValueError):
                raise ConfigError(f"can't read {show(text)}: an override is written key=value") from None
            if not parsed[-1].key_or_group:
                raise ConfigError(f"can't read {show(text)}: an override is written key=value")
        return parsed

    def _check(self, override: Override) -> None:
        """What Hydra would let through, or refuse in many lines."""
        key = override.key_or_group
        top = key.split(".")[0].split("/")[0]
        if top == "hydra":
            raise ConfigError(f"{show(override.input_line)}: Hydra's own keys are not open; see --help for what is")
        if top not in OPEN:
            raise unknown_key(key, value_text(override), OPEN)
        if override.package is not None:
            raise ConfigError(f"{show(override.input_line)}: a choice can't be put elsewhere with @")
        guard.check_value(key, value_text(override))
        swept = override.is_sweep_override()
        if swept:
            _refuse_endless(override)
        else:
            guard.check_value(key, override.value())
        names = self._choices(key) if key and "." not in key else []
        if not names:
            return
        if override.is_delete():
            raise ConfigError(f"~{key}: a group can be changed, not removed")
        values: list[Any] = [override.value()]
        if swept:
            with _one_line():
                values = list(itertools.islice(override.sweep_iterator(), MOST_JOBS))
        for value in values:
            if value is None and key == OPTIONAL:
                continue
            if isinstance(value, list | dict) or str(value) not in names:
                shown = f"must be one of {', '.join(names)}{did_you_mean(str(value), names)}"
                raise OptionError(key, value, shown)

    def _choices(self, group: str) -> list[str]:
        """The names in a group, the user's own folder included, those in its folders as `folder/name`; none if there
        is no such group."""
        loader = GlobalHydra.instance().config_loader()

        def inside(place: str, what: ObjectType) -> list[str]:
            return loader.get_group_options(place, what, config_name="train", overrides=self.search)

        folders = inside(group, ObjectType.GROUP)
        deeper = [f"{name}/{choice}" for name in folders for choice in inside(f"{group}/{name}", ObjectType.CONFIG)]
        return [*inside(group, ObjectType.CONFIG), *deeper]

    def _compose(self, overrides: Sequence[str]) -> Tree:
        with _one_line(overrides):
            config = compose("train", overrides=[*self.search, *_without_null(overrides)])
            tree = OmegaConf.to_container(config, resolve=False, throw_on_missing=True)
        assert isinstance(tree, dict)
        return guard.resolve(tree)

    def _compose_bare(self, choices: tuple[str, ...]) -> Tree:
        return self._compose(choices)


def _without_null(overrides: Sequence[str]) -> list[str]:
    """`experiment=null`, the default, which Hydra takes from a file only: it undoes any choice before it."""
    given: list[str] = []
    for text in overrides:
        key, _, value = text.partition("=")
        if key == OPTIONAL and value.strip().lower() == "null":
            given = [earlier for earlier in given if not earlier.startswith(f"{OPTIONAL}=")]
        else:
            given.append(text)
    return given


def value_text(override: Override) -> str:
    """An override's value as it was written."""
    return str(override.input_line).partition("=")[2]


def _refuse_endless(override: Override) -> None:
    """A range is a few characters however long it is, and shuffling lists it whole."""
    value = override.value()
    if override.is_interval_sweep():
        raise OptionError(override.key_or_group, value_text(override), "an interval has no values to go through")
    if isinstance(value, RangeSweep):
        start, stop, step = value.start or 0, value.stop or 0, value.step
        if step == 0:
            raise OptionError(override.key_or_group, value_text(override), "a range needs a step")
        if not abs(stop - start) <= abs(step) * MOST_JOBS:
            raise ConfigError(f"{show(override.input_line)}: the sweep has more than {MOST_JOBS:,} jobs")


@contextmanager
def _one_line(overrides: Sequence[str] = ()) -> Iterator[None]:
    """Hydra's and OmegaConf's objections as one line each."""
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
            known = [str(k) for k in parent] if parent is not None and OmegaConf.is_dict(parent) else []
            value = next((text.partition("=")[2] for text in overrides if text.partition("=")[0] == key), "")
            raise unknown_key(key, value, known) from None
        raise ConfigError(f"{key}: {first_line}" if key and key not in first_line else first_line) from None
    except (RecursionError, UnicodeError, OSError, ValueError) as error:  # circular or unreadable YAML
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the configuration can't be read: {show(str(error))}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"the configuration can't be read: {plain_yaml.yaml_problem(error)}") from None
