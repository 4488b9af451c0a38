"""What Hydra, OmegaConf and YAML object to, as one line that names key and rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rnnlstm import plain_yaml
from rnnlstm.keys import every_key
from rnnlstm.options import ConfigError, show
from rnnlstm.schema import unknown_key


@contextmanager
def one_line(overrides: Sequence[str] = ()) -> Iterator[None]:
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
        raise ConfigError(f"the configuration can't be read: {plain_yaml.yaml_problem(error)}") from None
