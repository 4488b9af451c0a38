"""The configuration as typed, range-checked dataclasses. A config is data: nothing in it is ever called.

Light on purpose (no torch, no Hydra): `--help` and a mistake in a plain key answer at once. The options of a
task or a cell are fields of its class; here they travel as plain dictionaries.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rnnlstm.launcher_options import LauncherOptions, LocalOptions, RayOptions, SlurmOptions
from rnnlstm.options import ConfigError, OptionError, check_options, nearest_key, option
from rnnlstm.sections import (
    CheckpointOptions,
    ClipOptions,
    CurriculumOptions,
    EvalOptions,
    LogOptions,
    NetworkOptions,
    OptimizerOptions,
    OptunaOptions,
    ProbeOptions,
    RMSpropOptions,
    SearchOptions,
    SGDOptions,
    Surgery,
    TrainOptions,
)

Section = TypeVar("Section")


@dataclass(frozen=True)
class Config:
    """One run: a configuration, trained with `seeds` replicas."""

    task: Mapping[str, Any]  #: `name`, and the task's options
    cell: Mapping[str, Any]  #: `name`, and the cell's options: the part of `model` that is not `network`
    network: NetworkOptions
    optimizer: OptimizerOptions
    clip: ClipOptions
    probe: ProbeOptions
    curriculum: CurriculumOptions
    train: TrainOptions
    eval: EvalOptions
    log: LogOptions
    checkpoint: CheckpointOptions
    surgery: Surgery
    launcher: LauncherOptions
    search: SearchOptions
    tree: Mapping[str, Any]  #: the whole configuration as it was composed, plain values
    seed: int = option(0, "the first replica's seed", at_least=0, at_most=2**62)
    seeds: int = option(1, "replicas in lockstep, R", at_least=1, at_most=10_000)
    device: str = option("auto", "auto, cpu, cuda or cuda:<n>")
    threads: int | None = option(
        None, "CPU threads; null: the machine's cores, 1 for a job beside others", at_least=1, at_most=4096
    )
    dtype: str = option("float32", "of weights and all else", choices=("float32", "float64"))
    precision: str = option("full", "of matrix products", choices=("full", "bfloat16"))
    data: str = option("cpu", "where training batches are drawn", choices=("cpu", "device"))
    runs_root: str = option("runs", "where results go")
    name: str | None = option(None, "a label in front of the run folder's name")
    overwrite: bool = option(False, "replace results that are there already")
    resume: str = option("auto", "auto goes on with an interrupted run", choices=("auto", "never"))
    job_timeout: float | None = option(None, "seconds that a job may take; null: no limit", above=0)
    plugins: list[str] = option([], "modules of your own to import")
    match: str = option(
        "none",
        "hidden_size becomes what gives every model the budget of a one-layer LSTM with hidden_size units",
        choices=("none", "parameters", "units", "state", "step_time"),
    )

    def __post_init__(self) -> None:
        check_options(self)
        if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]?))?", self.device):
            raise OptionError("device", self.device, "must be auto, cpu, cuda or cuda:<n>")
        if self.precision != "full" and self.dtype != "float32":
            raise OptionError("precision", self.precision, f"goes with dtype=float32, not {self.dtype}")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", self.name):
            rule = "must be up to 60 letters, digits, dots, dashes and underscores, starting with a letter or digit"
            raise OptionError("name", self.name, rule)
        if not self.runs_root.strip() or not self.runs_root.isprintable():
            raise OptionError("runs_root", self.runs_root, "must be a folder")

    @property
    def seed_numbers(self) -> range:
        return range(self.seed, self.seed + self.seeds)


#: Sections of the tree that become dataclasses as a whole; an optimiser may have a class of its own.
SECTIONS: dict[str, type] = {
    "optimizer": OptimizerOptions,
    "clip": ClipOptions,
    "probe": ProbeOptions,
    "curriculum": CurriculumOptions,
    "train": TrainOptions,
    "eval": EvalOptions,
    "log": LogOptions,
    "checkpoint": CheckpointOptions,
    "surgery": Surgery,
    "launcher": LauncherOptions,
    "search": SearchOptions,
}
#: Choices of a section that have further keys.
VARIANTS: dict[str, dict[str, type]] = {
    "optimizer": {"rmsprop": RMSpropOptions, "sgd": SGDOptions},
    "launcher": {"local": LocalOptions, "slurm": SlurmOptions, "ray": RayOptions},
    "search": {"optuna": OptunaOptions},
}
#: Keys of `Config` itself.
TOP = tuple(f.name for f in dataclasses.fields(Config) if "help" in f.metadata)


def read_config(tree: Mapping[str, Any]) -> Config:
    """Turn a composed configuration (plain values) into a checked `Config`.

    Raises: ConfigError, one line that names key, value and rule.
    """
    _require_keys(tree, ["task", "model", *SECTIONS, *TOP])
    for key in ("task", "model"):
        if not isinstance(tree[key], Mapping) or not isinstance(tree[key].get("name"), str):
            raise OptionError(key, tree[key], f"must be a choice of the group {key}, with a name")
    network = {f.name for f in dataclasses.fields(NetworkOptions)}
    sections: dict[str, Any] = {key: _section(cls, tree[key], key) for key, cls in SECTIONS.items()}
    values = {f.name: _value(f, tree[f.name]) for f in dataclasses.fields(Config) if f.name in TOP}
    return Config(
        task=dict(tree["task"]),
        cell={key: value for key, value in tree["model"].items() if key not in network},
        network=_section(NetworkOptions, {k: v for k, v in tree["model"].items() if k in network}, "model"),
        tree=tree,
        **sections,
        **values,
    )


def _section(cls: type[Section], tree: Any, key: str) -> Section:
    if not isinstance(tree, Mapping):
        raise OptionError(key, tree, f"is a section of keys: {key}.… = …")
    cls = VARIANTS.get(key, {}).get(str(tree.get("name")), cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _require_keys(tree, list(fields), f"{key}.")
    try:
        section = cls(**{name: _value(field, tree[name]) for name, field in fields.items()})
        check_options(section)
    except OptionError as error:
        raise error.under(key) from None
    return section


def _value(field: dataclasses.Field[Any], value: Any) -> Any:
    """Lists where the field is a list and nowhere else; never a section where a value belongs."""
    wants_list = str(field.type).startswith("list[")
    if isinstance(value, Mapping) or wants_list != isinstance(value, list):
        raise OptionError(field.name, value, "must be a list: [1,2]" if wants_list else "must be a single value")
    return value


def unknown_key(key: str, value: Any, known: Iterable[str], elsewhere: Iterable[str] = ()) -> OptionError:
    """The error for a key that nothing has. `known` are its possible neighbours' names, `elsewhere` whole keys."""
    section, dot, _ = key.rpartition(".")
    return OptionError(key, value, f"unknown key{nearest_key(key, [f'{section}{dot}{k}' for k in known], elsewhere)}")


def _require_keys(tree: Mapping[str, Any], known: list[str], prefix: str = "") -> None:
    """Every known key, and no other.

    Raises: ConfigError.
    """
    for key in tree:
        if key not in known:
            raise unknown_key(f"{prefix}{key}", tree[key], known)
    for key in known:
        if key not in tree:
            raise ConfigError(f"missing key {prefix}{key}: keys can be changed, not removed")
