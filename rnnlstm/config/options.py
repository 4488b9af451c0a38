"""Options: dataclass fields with a default, a range and a line of help, checked in one place.

The configuration's sections, the tasks and the cells all declare their options this way, so that a
mistake reads the same everywhere: it names the key, the value and the rule.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from rnnlstm.config.errors import OptionError, did_you_mean


def option(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with its rule. Lists are checked entry by entry; None is let through
    where the field's type allows it. Floats must be finite."""
    rules: dict[str, Any] = {"help": help, "at_least": at_least, "above": above, "at_most": at_most}
    rules |= {"below": below, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=rules)
    return dataclasses.field(default=default, metadata=rules)


def check_options(instance: Any) -> None:
    """Hold every option of a dataclass instance against its type and rule.

    Raises: OptionError for the first that breaks its rule.
    """
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        for entry in value if isinstance(value, list) else [value]:
            _check(field.name, entry, str(field.type), field.metadata)


def _check(key: str, value: Any, type_name: str, rules: Any) -> None:
    if value is None:
        if "None" not in type_name and "Any" not in type_name:
            raise OptionError(key, value, "needs a value")
        return
    wanted = _wrong_type(value, type_name)
    if wanted:
        raise OptionError(key, value, f"must be {wanted}")
    number = isinstance(value, float) or "float" in type_name  # a whole number can be too large for one as well
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
    choices = rules.get("choices")
    if choices is not None and value not in choices:
        hint = did_you_mean(str(value), choices)
        raise OptionError(key, value, f"must be one of {', '.join(choices)}{hint}")


def _wrong_type(value: Any, type_name: str) -> str | None:
    """What `value` should have been, or None if it fits. An int does for a float; a bool never does."""
    inner = type_name.removeprefix("list[").removesuffix("]").split("|")[0].strip()
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }.get(inner, True)
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    return None if fits else names[inner]
