"""Options: dataclass fields with a default, a rule and a line of help; and the registries of tasks and cells.

The configuration's sections, the tasks and the cells declare their keys with `option`. One function checks them all,
so every error names the key, the value and the rule.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from rnnlstm.config.errors import ConfigError, OptionError, did_you_mean, show


def option(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Sequence[Any] | Mapping[str, str] | None = None,
    acts_if: Mapping[str, Sequence[Any]] | str | None = None,
    idle_is_fine: bool = False,
) -> Any:
    """A dataclass field with its default, its line of `--help` and its rule.

    The rule holds for each entry of a list. None is accepted where the field's type includes it. Floats must be
    finite. `choices` may map each value to its meaning, for `--help`.

    `acts_if` says when the option has an effect: `{"init": ["chrono"]}` where the option `init` of the same class, or
    the choice of the group of that name, has one of the values. A command that gives an option which acts in none of
    its jobs is refused (`training/idle_keys.py`), unless `idle_is_fine`.
    """
    rules: dict[str, Any] = {"help": help, "at_least": at_least, "above": above, "at_most": at_most}
    rules |= {"below": below, "choices": choices, "acts_if": acts_if, "idle_is_fine": idle_is_fine}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=rules)
    return dataclasses.field(default=default, metadata=rules)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default value; `dataclasses.MISSING` if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def field_names(cls: Any) -> list[str]:
    """The fields of a dataclass, or of an instance."""
    return [field.name for field in dataclasses.fields(cls)]


def condition_words(acts_if: Mapping[str, Sequence[Any]] | str, section: str = "") -> str:
    """`init=orthogonal or identity`; with a section, as whole keys: `model.init=…`."""
    if isinstance(acts_if, str):
        return acts_if
    prefix = f"{section}." if section else ""
    words = {key: " or ".join(show(value) for value in values) for key, values in acts_if.items()}
    return " and ".join(f"{key if key == section else prefix + key}={values}" for key, values in words.items())


def unmet(acts_if: Mapping[str, Sequence[Any]], value_of: Callable[[str], Any]) -> dict[str, list[Any]]:
    """The first key, with its value, that keeps a condition of `acts_if` from holding; nothing if it holds."""
    for key, values in acts_if.items():
        if (value := value_of(key)) not in values:
            return {key: [value]}
    return {}


def check_options(instance: Any) -> None:
    """Check every option of a dataclass instance against its type and rule.

    Raises: OptionError for the first option that breaks its rule.
    """
    for field in dataclasses.fields(instance):
        check_option(field, getattr(instance, field.name))


def check_option(field: dataclasses.Field[Any], value: Any) -> None:
    """Check one option's value. Raises: OptionError."""
    several = isinstance(value, list) and "list" in str(field.type)
    for entry in value if several else [value]:
        _check(field.name, entry, str(field.type), field.metadata)


def _check(key: str, value: Any, type_name: str, rules: Any) -> None:
    if value is None:
        if "None" not in type_name and "Any" not in type_name:
            raise OptionError(key, value, "needs a value")
        return
    wanted = _wrong_type(value, type_name)
    if wanted:
        raise OptionError(key, value, f"must be {wanted}")
    choices = rules.get("choices")
    if choices is not None and value not in choices:
        names = [show(choice) for choice in choices]
        raise OptionError(key, value, f"must be one of {', '.join(names)}{did_you_mean(show(value), names)}")
    if isinstance(value, str) and ("int" in type_name or "float" in type_name):  # or a text, with a rule of its own
        return
    number = isinstance(value, float) or "float" in type_name  # an int can be too large for a float
    if number and not abs(value) <= sys.float_info.max:
        raise OptionError(key, value, "must be finite")
    if rules.get("at_least") is not None and value < rules["at_least"]:
        raise OptionError(key, value, f"must be at least {rules['at_least']:,}")
    if rules.get("above") is not None and value <= rules["above"]:
        raise OptionError(key, value, f"must be above {rules['above']:,}")
    if rules.get("at_most") is not None and value > rules["at_most"]:
        raise OptionError(key, value, f"must be at most {rules['at_most']:,}")
    if rules.get("below") is not None and value >= rules["below"]:
        raise OptionError(key, value, f"must be below {rules['below']:,}")


def _wrong_type(value: Any, type_name: str) -> str | None:
    """The type that `value` should have, in words; None if it has it. An int is a float, too; a bool is no number."""
    inner = type_name.removeprefix("list[").removesuffix("]")
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    wanted = [name for part in inner.split("|") if (name := part.strip()) != "None"]
    if any(fits.get(name, True) for name in wanted):
        return None
    return " or ".join(names[name] for name in wanted)


Class = TypeVar("Class", bound=type)

#: All registries, by kind.
REGISTRIES: dict[str, Registry[Any]] = {}


class Registry(Generic[Class]):
    """Classes by name. `kind` is the key that chooses one, `task` or `model`; messages name it."""

    def __init__(self, kind: str, noun: str) -> None:
        self.kind, self.noun = kind, noun
        self._classes: dict[str, Class] = {}
        REGISTRIES[kind] = self

    def register(self, name: str) -> Callable[[Class], Class]:
        """Class decorator: `@registry.register("copy")`. Sets the class attribute `name`.

        Raises: ConfigError if another class has this name.
        """

        def enter(cls: Class) -> Class:
            known = self._classes.get(name)
            # The same class again: its module was imported a second time, as a notebook cell that runs twice does.
            if known is not None and (known.__module__, known.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise ConfigError(f"two classes register as {self.kind}={name}: {known} and {cls}")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return enter

    def __getitem__(self, name: str) -> Class:
        if name not in self:
            hint = did_you_mean(str(name), self._classes)
            raise OptionError(self.kind, name, f"must be one of {', '.join(self)}{hint}")
        return self._classes[name]

    def make(self, name: str, **options: Any) -> Any:
        """An instance of the class called `name`. Raises: OptionError naming key, value and rule."""
        cls = self[name]
        known = field_names(cls)
        for key in (key for key in options if key not in known):
            rule = f"the {name} {self.noun} has no such option{did_you_mean(key, known)}"
            raise OptionError(key, options[key], rule)
        return cls(**options)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._classes
