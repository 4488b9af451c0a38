"""What may come in on a command line or between keys: overrides and references. A configuration is data.

Looked at before Hydra or OmegaConf sees it, so that neither runs code, reads the environment, or needs time or
memory out of proportion to what was written. `plain_yaml.py` does the same for files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from rnnlstm.options import ConfigError, OptionError, show

LONGEST_OVERRIDE = 20_000  # characters
LONGEST_TEXT = 1000  # characters of a text with references in it
MOST_BITS = 10_000  # of a whole number: Python writes none of more than 4,300 digits
DEEPEST = 12  # brackets within brackets, sections within sections

#: The one kind of interpolation that is taken: another key, by its full name.
REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}", re.ASCII)


def check_override(text: str) -> None:
    """An override, before its grammar is read. Raises: ConfigError."""
    if not isinstance(text, str):
        raise ConfigError(f"can't read {show(text)}: an override is a text, key=value")
    if not text.isprintable():
        raise ConfigError(f"can't read {show(text)}: it holds a character that can't be printed")
    if len(text) > LONGEST_OVERRIDE:
        raise ConfigError(f"can't read {show(text)}: longer than {LONGEST_OVERRIDE:,} characters")
    steps = itertools.accumulate((c in "[{(") - (c in ")}]") for c in text)
    if max(steps, default=0) > DEEPEST:
        raise ConfigError(f"can't read {show(text)}: more than {DEEPEST} brackets within each other")


def check_value(key: str, value: Any) -> None:
    """No text in `value` asks for more than another key. Raises: OptionError."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            check_value(key, name)
            check_value(f"{key}.{name}", entry)
    elif isinstance(value, list):
        for entry in value:
            check_value(key, entry)
    elif "${" in REFERENCE.sub(" ", str(value)):
        raise OptionError(key, value, "only references to keys by their full name are taken: ${task.length}")


def resolve(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """`tree` with each reference replaced by the single value that it names.

    OmegaConf would do that too, but its resolvers come with it, and references to whole sections, which grow
    exponentially. Here each key is looked up once.

    Raises: OptionError.
    """
    found: dict[str, Any] = {}

    def plain(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str):
                    raise OptionError(f"{key}.{show(name)}".strip("."), value[name], "unknown key; keys are texts")
            return {name: plain(f"{key}.{name}" if key else name, entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [plain(key, entry) for entry in value]
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise OptionError(key, value, "too large")
        check_value(key, value)
        if not isinstance(value, str) or "${" not in value:
            return value
        if whole := REFERENCE.fullmatch(value):
            return look_up(key, value, whole[1])
        text = REFERENCE.sub(lambda match: str(look_up(key, value, match[1])), value)
        if len(text) > LONGEST_TEXT:
            raise OptionError(key, value, f"becomes longer than {LONGEST_TEXT:,} characters")
        return text

    def look_up(key: str, text: str, path: str) -> Any:
        node: Any = tree
        for step in path.split("."):
            if not isinstance(node, Mapping) or step not in node:
                raise OptionError(key, text, f"there is no key {path}")
            node = node[step]
        if isinstance(node, Mapping | list):
            raise OptionError(key, text, f"{path} is no single value")
        if path not in found:
            found[path] = looking = object()
            try:
                value = plain(path, node)
            finally:
                if found[path] is looking:
                    del found[path]
            found[path] = value
        elif type(found[path]) is object:
            raise OptionError(key, text, "recursive: the reference comes back to itself")
        return found[path]

    return {str(name): entry for name, entry in plain("", tree).items()}
