"""Where a run's results go: `<runs_root>/<task>_T<length>/<readable name>-<hash>/seed_<n>/`.

The readable name says what differs from the defaults of the chosen task, model, optimiser, clipping and
probe; the hash is of the whole configuration without its seeds, so that two configurations never share a
folder and every seed of one configuration does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rnnlstm.options import OptionError, show

#: Keys that say where results go or how they are kept, not what is computed: no part of a run's identity.
HOUSEKEEPING = (
    "seed",
    "seeds",
    "threads",
    "runs_root",
    "name",
    "overwrite",
    "resume",
    "job_timeout",
    "plugins",
    "checkpoint",
)
LONGEST_NAME = 120  # characters; file systems take 255 bytes


def run_folder(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> Path:
    """The run folder of the configuration `tree`; `defaults` is the same choice of groups, unchanged."""
    task = tree["task"]
    label = f"{tree['name']}_" if tree["name"] else ""
    readable = (label + readable_name(tree, defaults))[:LONGEST_NAME]
    try:
        root = Path(tree["runs_root"]).expanduser()
    except RuntimeError as error:
        raise OptionError("runs_root", tree["runs_root"], str(error)) from None
    return root / f"{_text(task['name'])}_T{_text(task['length'])}" / f"{readable}-{identity(tree)}"


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed_{seed}"


def readable_name(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The model's name, then every key that differs from its default: `lstm_init-default_lr-0.01`."""
    mine, theirs = dict(flatten(_essence(tree))), dict(flatten(_essence(defaults)))
    leaves = [key.rpartition(".")[2] for key in mine]
    words = [_text(tree["model"]["name"])]
    for section, usual in (("optimizer", "adam"), ("clip", "norm"), ("probe", "standard"), ("curriculum", "fixed")):
        if tree[section]["name"] != usual:
            words.append(
                _text(tree[section]["name"]) if section == "optimizer" else f"{section}-{tree[section]['name']}"
            )
    for key, value in mine.items():
        if key == "task.length" or (key in theirs and theirs[key] == value):
            continue
        leaf = key.rpartition(".")[2]
        name = leaf if leaves.count(leaf) == 1 else key.replace(".", "_")
        words.append(f"{_text(name)}-{_text(value)}")
    return "_".join(words)


def identity(tree: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that name what a run computes, whatever its seeds and wherever it is kept."""
    return hashlib.sha256(json.dumps(_numbers(_essence(tree)), sort_keys=True).encode()).hexdigest()[:8]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`("model.init", "chrono")` and so on, leaf by leaf, in the tree's order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _essence(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in HOUSEKEEPING}


def _numbers(value: Any) -> Any:
    """1 and 1.0 are the same value of a key."""
    if isinstance(value, Mapping):
        return {key: _numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _text(value: Any) -> str:
    """A value as part of a folder's name."""
    if isinstance(value, list):
        return ",".join(_text(entry) for entry in value) or "none"
    text = f"{value:g}" if isinstance(value, float) else show(value)
    return re.sub(r"[^A-Za-z0-9.,+_-]+", "~", text.rpartition("/")[2])[:40]
