"""The commands that train a run again, from its `config.yaml`: what differs from the defaults, ready for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rnnlstm.config.compose import GROUPS, Composer
from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.config.untrusted import read_yaml
from rnnlstm.record.folders import HOUSEKEEPING, flatten
from rnnlstm.reporting.runs import Run

#: Texts that Hydra reads as they are, without quotes.
BARE = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
WORDS = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off")
#: Choices that an override need not name.
USUAL = {"optimizer": "adam", "clip": "norm", "probe": "standard", "curriculum": "fixed"}


def train_commands(runs: Sequence[Run]) -> list[list[str]]:
    """For each run, a command for each stretch of consecutive seeds. None where its configuration can't be read."""
    with Composer().active() as composer:
        return [list(_commands(run, composer)) for run in runs]


def _commands(run: Run, composer: Composer) -> Iterator[str]:
    try:
        tree = read_yaml(run.folder / "config.yaml")
        words = list(overrides(tree, composer))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # written by hand, or by another version
        return
    numbers = sorted({seed["seed"] for seed in run.seeds if isinstance(seed.get("seed"), int)})
    for first, count in _stretches(numbers):
        seeds = [f"seed={first}"] * (first != 0) + [f"seeds={count}"] * (count != 1)
        yield shlex.join(["python", "-m", "rnnlstm.train", *words, *seeds])


def overrides(tree: Mapping[str, Any], composer: Composer) -> Iterator[str]:
    """What to say to get `tree` but for its seeds and where it is kept, within the composer's context.

    A size that `match` chose is said itself, with `match=none`: on another machine it might choose another.
    """
    tree = {**tree, "match": "none"}
    if tree.get("plugins"):
        yield f"plugins={override_value(tree['plugins'])}"
    for group in GROUPS:
        if USUAL.get(group) != tree[group]["name"]:
            yield f"{group}={override_value(tree[group]['name'])}"
    usual = dict(flatten(_defaults(tree, composer)))
    for key, value in flatten(tree):
        housekeeping = key.partition(".")[0] in HOUSEKEEPING and not (key == "name" and value)
        if housekeeping or key in {f"{group}.name" for group in GROUPS} or (key in usual and usual[key] == value):
            continue
        yield f"{key}={override_value(value)}"


def override_value(value: object) -> str:
    """A value in Hydra's grammar of overrides."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(override_value(entry) for entry in value)}]"
    if isinstance(value, str) and not (BARE.fullmatch(value) and value.lower() not in WORDS):
        # Within quotes a backslash counts only before a quote, or at the end.
        escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + (r"\'" if m[2] else ""), value)
        return f"'{escaped}'"
    return str(value)


def _defaults(tree: Mapping[str, Any], composer: Composer) -> dict[str, Any]:
    """The defaults of the tree's choices; a user's own class, which isn't imported here, has none."""
    chosen, unknown = dict(tree), []
    for _ in range(len(GROUPS) + 1):
        try:
            found = composer.defaults_of(chosen)
        except OptionError as error:
            group = error.key.removesuffix(".name")
            unknown.append(group)
            chosen[group] = {"name": {"task": "keyword", "model": "lstm"}.get(group, USUAL.get(group))}
        else:
            return {key: value for key, value in found.items() if key not in unknown}
    raise ConfigError("no defaults to hold the configuration against")


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and count of each stretch of consecutive numbers."""
    begin = 0
    for k in range(1, len(numbers) + 1):
        if k == len(numbers) or numbers[k] != numbers[k - 1] + 1:
            yield numbers[begin], k - begin
            begin = k
