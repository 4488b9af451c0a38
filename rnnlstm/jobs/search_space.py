"""What is searched: the keys of a command that have a space of values, in Hydra's own grammar."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rnnlstm.config.compose import listed, value_text
from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.record.folders import HOUSEKEEPING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

EXAMPLE = "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"


@dataclass(frozen=True)
class Interval:
    """`interval(low,high)`, ends included; of whole numbers with `int(…)`, logarithmic with `tag(log,…)`."""

    low: float
    high: float
    log: bool

    @property
    def ends(self) -> tuple[str, ...]:
        return repr(self.low), repr(self.high)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int):
            return IntDistribution(self.low, int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def text(self, value: Any) -> str:
        """Optuna's value as an override has it; `value` is its reverse."""
        return repr(value)

    def value(self, text: str) -> Any:
        """Raises: ValueError if this is no value of the space."""
        value = int(text) if isinstance(self.low, int) else float(text)
        if not self.low <= value <= self.high:
            raise ValueError(f"{text} is not within {self.low} … {self.high}")
        return value


@dataclass(frozen=True)
class Values:
    """`choice(…)`, `glob(…)` or a list: any of these. `range(…)`: these in their order."""

    texts: tuple[str, ...]
    ordered: bool

    @property
    def ends(self) -> tuple[str, ...]:
        return (self.texts[0], self.texts[-1]) if self.ordered else self.texts

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if self.ordered:
            return IntDistribution(0, len(self.texts) - 1)
        return CategoricalDistribution(self.texts)

    def text(self, value: Any) -> str:
        return self.texts[value] if self.ordered else str(value)

    def value(self, text: str) -> Any:
        """Raises: ValueError if this is no value of the space."""
        place = self.texts.index(text)
        return place if self.ordered else text


@dataclass(frozen=True)
class Space:
    """A command's overrides, those with a space by the key alone; and each such key's space."""

    words: tuple[str, ...]
    dimensions: Mapping[str, Interval | Values]

    def overrides(self, chosen: Mapping[str, str]) -> list[str]:
        """The overrides of the trial with these values."""
        return [f"{word}={chosen[word]}" if word in chosen else word for word in self.words]

    def ends(self) -> Iterator[dict[str, str]]:
        """Each key at each of its choices, or both its ends, with the others at their first: checked beforehand."""
        first = {key: space.ends[0] for key, space in self.dimensions.items()}
        yield first
        for key, space in self.dimensions.items():
            yield from ({**first, key: text} for text in dict.fromkeys(space.ends[1:]))


def read_space(overrides: Sequence[Any]) -> Space:
    """The space that overrides, as Hydra reads them, describe. Raises: ConfigError."""
    words, dimensions = [], {}
    for override in overrides:
        key = override.get_key_element()
        if key in dimensions:  # what comes last would hold, whatever is chosen
            raise OptionError(key, value_text(override), "has a space already")
        if not override.is_sweep_override():
            words.append(str(override.input_line))
            continue
        try:
            dimensions[key] = _dimension(override)
        except ConfigError as error:
            raise (
                error if isinstance(error, OptionError) else OptionError(key, value_text(override), str(error))
            ) from None
        words.append(key)
    if not dimensions:
        raise ConfigError(f"search=optuna has nothing to choose: give a key a space, such as {EXAMPLE}")
    return Space(tuple(words), dimensions)


def _dimension(override: Any) -> Interval | Values:
    top = override.key_or_group.split(".")[0]
    if top in ("seed", "seeds"):
        raise ConfigError("every trial has the same seeds, over which its loss is the median")
    if top in HOUSEKEEPING:
        raise ConfigError("changes no result: there is nothing to search")
    space = override.value()
    tags = set(getattr(space, "tags", None) or ())
    if tags - {"log"}:
        raise ConfigError("the one tag that is known is log")
    if getattr(space, "shuffle", False):
        raise ConfigError("the order is for the search to choose; leave out shuffle")
    if not override.is_interval_sweep():
        if tags:
            raise ConfigError("only an interval can be logarithmic: tag(log,interval(…))")
        return Values(tuple(dict.fromkeys(listed(override))), ordered=override.is_range_sweep())
    low, high = space.start, space.end
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError("an interval needs a lower and a higher end, both finite")
    if tags and low <= 0:
        raise ConfigError("a logarithmic interval begins above 0")
    return Interval(low, high, log=bool(tags))
