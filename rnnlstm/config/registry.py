"""A table from names to classes, filled by a decorator: how tasks and cells are found by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from rnnlstm.config.errors import ConfigError, OptionError, did_you_mean

Class = TypeVar("Class", bound=type)

#: The registries that exist, by kind.
REGISTRIES: dict[str, Registry[Any]] = {}


class Registry(Generic[Class]):
    """`kind` is the word for an entry in messages, and the key that chooses one: `task`, `model`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, Class] = {}
        REGISTRIES[kind] = self

    def register(self, name: str) -> Callable[[Class], Class]:
        """Class decorator: `@registry.register("copy")`. The class gets the attribute `name`."""

        def enter(cls: Class) -> Class:
            known = self._classes.get(name)
            # The same class again is a module imported anew (a notebook cell run twice), not a clash.
            if known is not None and (known.__module__, known.__qualname__) != (
                cls.__module__,
                cls.__qualname__,
            ):
                raise ConfigError(f"two classes want to be {self.kind}={name}: {known} and {cls}")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return enter

    def __getitem__(self, name: str) -> Class:
        if name not in self._classes:
            hint = did_you_mean(name, self._classes)
            raise OptionError(self.kind, name, f"must be one of {', '.join(self)}{hint}")
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __contains__(self, name: object) -> bool:
        return name in self._classes
