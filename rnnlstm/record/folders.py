"""Where a run's results go: `<runs_root>/<task>_T<length>/<readable name>-<hash>/seed_<n>/`.

The readable name says what differs from the defaults of the chosen task, model, optimiser, clipping and
probe; the hash is of the whole configuration without its seeds, so that two configurations never share a
folder and every seed of one configuration does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import ConfigError, OptionError, printable, show
from rnnlstm.config.untrusted import read_yaml

LOG = logging.getLogger("rnnlstm")

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
    "launcher",
    "search",
    "from_run",
)
#: Keys that configurations of earlier versions lack, with the value that says what was done then. At that value a key
#: is no part of a run's identity, so that earlier runs keep their names.
LATER = {"precision": "full", "data": "cpu", "from_run": None, "from_weights": None}
#: Those of a section: its key, its `name` (None: it has none), and the options.
LATER_OPTIONS: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
    ("model", "lstm", {"input_bias": None}),
    ("surgery", None, {"round": []}),
    ("optimizer", "adam", {"weight_decay": 0.0, "betas": [0.9, 0.999]}),
    ("optimizer", "rmsprop", {"weight_decay": 0.0}),
    ("optimizer", "sgd", {"weight_decay": 0.0}),
    *(("clip", kind, {"norm_type": 2}) for kind in ("norm", "value", "none")),
)
SEED_FOLDER = re.compile(r"seed_(0|[1-9][0-9]{0,18})", re.ASCII)
#: Files in a seed's folder.
METRICS, CLIP_EVENTS, FLOW, SAMPLES = "metrics.jsonl", "clip_events.jsonl", "flow.jsonl", "samples.jsonl"
LINES = (METRICS, CLIP_EVENTS, FLOW, SAMPLES)
SUMMARY, WEIGHTS, BEST_WEIGHTS = "summary.json", "weights.pt", "weights_best.pt"
#: Files in a run folder.
CONFIG, AGGREGATE = "config.yaml", "aggregate"
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
    return root / f"{as_name(task['name'])}_T{as_name(task['length'])}" / f"{readable}-{identity(tree)}"


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"seed_{seed}"


def seed_folders(folder: Path) -> list[tuple[int, Path]]:
    """The seeds' folders in a run folder, by number; no links. Raises: OSError."""
    matches = ((SEED_FOLDER.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(
        (int(match[1]), path) for match, path in matches if match and path.is_dir() and not path.is_symlink()
    )


def readable_name(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The model's name, then every key that differs from its default: `lstm_init-default_lr-0.01`."""
    mine, theirs = dict(flatten(_essence(tree))), dict(flatten(_essence(defaults)))
    leaves = [key.rpartition(".")[2] for key in mine]
    words = [as_name(tree["model"]["name"])]
    for section, usual in (("optimizer", "adam"), ("clip", "norm"), ("probe", "standard"), ("curriculum", "fixed")):
        if tree[section]["name"] != usual:
            words.append(
                as_name(tree[section]["name"]) if section == "optimizer" else f"{section}-{tree[section]['name']}"
            )
    for key, value in mine.items():
        if key == "task.length" or (key in theirs and theirs[key] == value):
            continue
        leaf = key.rpartition(".")[2]
        name = leaf if leaves.count(leaf) == 1 else key.replace(".", "_")
        words.append(f"{as_name(name)}-{as_name(value)}")
    return "_".join(words)


def identity(tree: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits: a hash of what a run computes, without its seeds and its place on disk."""
    return hashlib.sha256(json.dumps(plain_numbers(_essence(tree)), sort_keys=True).encode()).hexdigest()[:8]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`("model.init", "chrono")` and so on, leaf by leaf, in the tree's order."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _essence(tree: Mapping[str, Any]) -> dict[str, Any]:
    essence = {key: v for key, v in tree.items() if key not in HOUSEKEEPING and (key not in LATER or LATER[key] != v)}
    for section, later in _later_options(tree).items():
        essence[section] = {key: v for key, v in tree[section].items() if key not in later or later[key] != v}
    return essence


def completed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of an earlier version with the keys that came later, which come last."""
    whole = {**tree, **LATER, **tree}
    for section, later in _later_options(tree).items():
        whole[section] = {**tree[section], **later, **tree[section]}
    return whole


def _later_options(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options that came later, with their values then, of each section of this configuration that has any."""
    sections = {key: tree[key] for key, _, _ in LATER_OPTIONS if isinstance(tree.get(key), Mapping)}
    return {key: later for key, name, later in LATER_OPTIONS if key in sections and sections[key].get("name") == name}


def plain_numbers(value: Any) -> Any:
    """1 and 1.0 are the same value of a key."""
    if isinstance(value, Mapping):
        return {key: plain_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain_numbers(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def as_name(value: Any) -> str:
    """A value as part of a file's or a folder's name."""
    if isinstance(value, list):
        return ",".join(as_name(entry) for entry in value) or "none"
    text = f"{value:g}" if isinstance(value, float) else show(value)
    return re.sub(r"[^A-Za-z0-9.,+_-]+", "~", text.rpartition("/")[2])[:40]


def find_run_folders(places: Iterable[str]) -> dict[Path, dict[str, Any]]:
    """Every run folder at or below `places`, with its configuration, flat: `model.init` → `chrono`.

    A warning names runs with a damaged configuration.

    Raises: ConfigError if a place does not exist, or no place holds a run.
    """
    places = list(places)
    runs: dict[Path, tuple[Path, dict[str, Any]]] = {}
    problems = []
    for place in places:
        try:
            root = Path(place).expanduser()
            if not root.is_dir():
                raise ConfigError(f"{show(place)}: {'is not a folder' if root.exists() else 'no such folder'}")
        except (OSError, ValueError, RuntimeError) as error:  # too long, or ~ of an unknown user
            raise (error if isinstance(error, ConfigError) else ConfigError(f"{show(place)}: {error}")) from None
        for folder in _candidates(root):
            if folder.resolve() in runs:
                continue
            try:
                runs[folder.resolve()] = (folder, read_configuration(folder))
            except (ValueError, OSError) as error:
                rule = error.strerror if isinstance(error, OSError) else str(error)
                if _has_seeds(folder):  # else it is some other config.yaml
                    problems.append(printable(f"{folder / CONFIG}: can't be read: {rule}"))
    if not runs:
        nothing = f"no runs in {', '.join(show(place) for place in places)}"
        raise ConfigError("; ".join([nothing, *(problems[:3] or ["train some first: python -m rnnlstm.train"])]))
    for problem in problems:
        LOG.warning("%s; the run is left out", problem)
    return dict(runs.values())


def read_configuration(folder: Path, whole: bool = False) -> dict[str, Any]:
    """A run's configuration, flat, with the keys of later versions; housekeeping keys only if it is to be `whole`.

    Raises: ValueError, which says what is wrong with it; OSError.
    """
    tree = read_yaml(folder / CONFIG)
    if not isinstance(tree, dict):
        raise ValueError("is empty" if tree is None else "holds no keys")
    config = dict(flatten(completed(tree)))
    config = {key: value for key, value in config.items() if whole or key not in HOUSEKEEPING or key == "name"}
    for key, value in config.items():
        if not key.isprintable():
            raise ValueError(f"{show(key)}: no key of a configuration")
        if any(isinstance(entry, int) and abs(entry) > sys.float_info.max for entry in _entries(value)):
            raise ValueError(f"{key}={show(value)}: too large")
    for key in ("task.name", "model.name"):
        if not isinstance(config.get(key), str) or not config[key]:
            raise ValueError(f"{key}={show(config.get(key))}: must be a name")
        config[key] = printable(config[key])
    length = config.get("task.length")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or abs(length) >= 2**63):
        raise ValueError(f"task.length={show(length)}: must be a whole number")
    return config


def _entries(value: Any) -> Iterator[Any]:
    """A key's single values: those of a list, also of lists within it."""
    if isinstance(value, list):
        for entry in value:
            yield from _entries(entry)
    else:
        yield value


def _candidates(root: Path) -> Iterator[Path]:
    """Folders that may be runs: they hold a config.yaml or seeds' folders."""
    for place, folders, files in os.walk(root):
        if CONFIG in files or any(SEED_FOLDER.fullmatch(name) for name in folders):
            yield Path(place)
        folders[:] = sorted(name for name in folders if not SEED_FOLDER.fullmatch(name))


def _has_seeds(folder: Path) -> bool:
    try:
        return bool(seed_folders(folder))
    except OSError:
        return False
