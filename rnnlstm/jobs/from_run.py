"""`from=RUN` on a command line: the overrides that give a run's configuration again, to be changed by those after it.

What follows from it is decided later. Where only `train.steps` is larger, training continues from the run's state
(`training/resume.py`). With `from_weights=last|best` it starts from its weights (`training/weights.py`). Else the
configuration is all that is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rnnlstm.config.compose import Composer, Tree
from rnnlstm.config.errors import ConfigError, OptionError, show
from rnnlstm.config.schema import NetworkOptions, read_config
from rnnlstm.config.untrusted import GROUPS, read_yaml
from rnnlstm.record.folders import CONFIG, HOUSEKEEPING, as_name, completed, flatten, identity, seed_folders

FROM, WEIGHTS = "from", "from_weights"
#: What `from_weights` may be.
WHICH = ("last", "best")


def with_run(composer: Composer, overrides: Sequence[str], plugins: Sequence[str]) -> list[str]:
    """The overrides with `from=RUN` replaced by those of the run's configuration, which come first.

    Its seeds are the run's, and its runs_root the folder that the run lies in, unless they are given. A group that is
    chosen anew (`model=rnn`) loses the keys of the old choice. Raises: ConfigError.
    """
    given = {key: text for key, _, text in (word.partition("=") for word in overrides)}
    for key in (FROM, "from_run", WEIGHTS):
        if key in given and (key == "from_run" or FROM not in given):
            raise OptionError(key, given[key], "goes with from=RUN, a run folder")
    if FROM not in given:
        return list(overrides)
    place = Path(given[FROM]).expanduser()
    tree, folder, seeds = _read(place, given[FROM])
    if tree.get("plugins") and not plugins:
        names = show(tree["plugins"]).replace(" ", "").replace("'", "")
        raise OptionError(FROM, given[FROM], f"has a task or cell from a plugin; add plugins={names}")
    if tree["from_weights"] is not None and WEIGHTS not in given:
        rule = "started from the weights of a run itself; add from_weights=last or best"
        raise OptionError(FROM, given[FROM], rule)
    words = [*_configuration(composer, tree, given)]
    words.append(f"from_run={_text(given[FROM])}")
    if WEIGHTS in given:
        if given[WEIGHTS] not in WHICH:
            raise OptionError(WEIGHTS, given[WEIGHTS], f"must be one of {', '.join(WHICH)}")
        one = f"-{place.name}" if place != folder else ""
        words.append(f"{WEIGHTS}={given[WEIGHTS]}-{identity(tree)}{one}")
    if "seed" not in given and "seeds" not in given:
        if list(range(seeds[0], seeds[-1] + 1)) != seeds:
            raise OptionError(
                FROM, given[FROM], f"has the seeds {', '.join(map(str, seeds[:9]))}; name seed and seeds"
            )
        words += [f"seed={seeds[0]}", f"seeds={len(seeds)}"]
    task = tree["task"]
    if "runs_root" not in given and folder.parent.name == f"{as_name(task['name'])}_T{as_name(task.get('length'))}":
        words.append(f"runs_root={_text(str(folder.parent.parent))}")
    return [*words, *(word for word in overrides if word.partition("=")[0] not in (FROM, WEIGHTS))]


def _read(place: Path, named: str) -> tuple[Tree, Path, list[int]]:
    """A run's configuration, its folder and its seeds; one seed's folder stands for it. Raises: ConfigError."""
    try:
        folder = place if (place / CONFIG).exists() else place.parent
        seeds = [seed for seed, at in seed_folders(folder) if place == folder or at == place]
        tree = read_yaml(folder / CONFIG)
        if not seeds or not isinstance(tree, dict):
            raise ValueError("holds no run")
        tree = completed(tree)
        read_config({**tree, "seed": 0, "seeds": 1, "launcher": {"name": "serial"}, "search": {"name": "none"}})
    except (OSError, ValueError) as error:
        rule = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OptionError(FROM, named, f"is no run folder: {rule}") from None
    return tree, folder, seeds


def _configuration(composer: Composer, tree: Tree, given: dict[str, str]) -> list[str]:
    """The choices of each group, and every key that differs from their defaults."""
    defaults = composer.defaults_of(tree)
    usual = dict(flatten(defaults))
    of_networks = [field.name for field in fields(NetworkOptions)]
    words = [f"{group}={tree[group]['name']}" for group in GROUPS if group not in given]
    for key, value in flatten(tree):
        section, _, name = key.partition(".")
        if section in HOUSEKEEPING or name == "name" or (key in usual and usual[key] == value) or section == WEIGHTS:
            continue
        if section in given and section in GROUPS and not (section == "model" and name in of_networks):
            continue
        words.append(f"{key}={_text(value)}")
    return words


def _text(value: Any) -> str:
    """A value as it is written in an override. A text comes in quotes: it may hold what Hydra would act on."""
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if not isinstance(value, str):
        return repr(value) if isinstance(value, float) else show(value)
    if "\\" in value or "'" in value:
        raise ConfigError(f"from=RUN: can't take {show(value)}, which holds a quote or a backslash")
    return f"'{value}'"
