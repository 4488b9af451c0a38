"""The configuration as typed, range-checked dataclasses. A config is data: nothing in it is ever called.

Light on purpose (no torch, no Hydra): `--help` and a mistake in a plain key answer at once. The options of a
task or a cell are fields of its class; here they travel as plain dictionaries.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rnnlstm.config.errors import ConfigError, OptionError, nearest_key
from rnnlstm.config.options import check_options, option

# The sections of a configuration, a dataclass each: keys, defaults, rules and a line of help.

MAX_STEPS = 1_000_000_000


@dataclass(frozen=True)
class NetworkOptions:
    """Those keys of `model` that every network has; the others are its cell's."""

    hidden_size: int = option(64, "units a layer, H", at_least=1, at_most=65_536)
    num_layers: int = option(1, "layers, L", at_least=1, at_most=100)
    embedding_size: int = option(32, "features of a token, for tasks of tokens", at_least=1, at_most=65_536)
    recurrent_dropout: float = option(0.0, "share of h hidden from the recurrent weights", at_least=0, below=1)
    zoneout: float = option(0.0, "chance of a unit to keep its state at a step", at_least=0, below=1)
    backend: str = option("auto", "how the recurrence is computed: auto, reference, fused, torch")


@dataclass(frozen=True)
class OptimizerOptions:
    """Keys of every optimiser."""

    name: str = option("adam", "the optimiser", choices=("adam", "rmsprop", "sgd"))
    lr: float = option(3e-3, "learning rate", above=0, at_most=1000)


@dataclass(frozen=True)
class RMSpropOptions(OptimizerOptions):
    alpha: float = option(0.99, "decay of the squared gradient's average", at_least=0, at_most=1)


@dataclass(frozen=True)
class SGDOptions(OptimizerOptions):
    momentum: float = option(0.0, "share of the last update that is kept", at_least=0, at_most=1)


@dataclass(frozen=True)
class ClipOptions:
    name: str = option("norm", "what is limited", choices=("norm", "value", "none"))
    threshold: float | None = option(1.0, "limit of the norm, or of each entry", above=0)

    def __post_init__(self) -> None:
        if self.threshold is None and self.name != "none":
            raise OptionError("threshold", None, f"clip={self.name} needs one; clip=none does without")


@dataclass(frozen=True)
class ProbeOptions:
    name: str = option("standard", "what is observed", choices=("off", "standard", "full"))
    every: int = option(50, "updates between observations", at_least=1, at_most=MAX_STEPS)


@dataclass(frozen=True)
class CurriculumOptions:
    """Which task lengths are trained at (`training/curriculum.py`)."""

    name: str = option("fixed", "how the length changes", choices=("fixed", "growing", "uniform"))
    start: int = option(10, "task length to begin with, or the shortest", at_least=1, at_most=1_000_000)
    factor: float = option(1.5, "with growing: what a solved length is multiplied by", above=1, at_most=1000)


@dataclass(frozen=True)
class TrainOptions:
    steps: int = option(2000, "updates at most", at_least=1, at_most=MAX_STEPS)
    batch_size: int = option(64, "sequences an update, B", at_least=1, at_most=1_000_000)
    stop_when_solved: bool = option(True, "freeze a replica that meets the task's criterion")


@dataclass(frozen=True)
class EvalOptions:
    every: int = option(50, "updates between evaluations", at_least=1, at_most=MAX_STEPS)
    samples: int = option(1024, "held-out sequences", at_least=1, at_most=10_000_000)
    lengths: list[int] = option([], "further task lengths to test at", at_least=1)
    decoys: list[float] = option([], "further decoy rates to test at", at_least=0, at_most=1)


@dataclass(frozen=True)
class CheckpointOptions:
    """When the state is saved; whichever comes first. How often says nothing about results."""

    every: int = option(1000, "updates between checkpoints", at_least=1, at_most=MAX_STEPS)
    seconds: float = option(60.0, "seconds between checkpoints", at_least=0, at_most=1e9)


@dataclass(frozen=True)
class LogOptions:
    every: int = option(10, "updates between lines of metrics.jsonl", at_least=1, at_most=MAX_STEPS)


@dataclass(frozen=True)
class SearchOptions:
    """How the values of a sweep's keys are chosen (`search/`): keys of every way, and all that `none` has."""

    name: str = option("none", "who chooses values", choices=("none", "optuna"))


@dataclass(frozen=True)
class OptunaOptions(SearchOptions):
    trials: int = option(20, "configurations to try", at_least=1, at_most=10_000)
    at_once: int = option(1, "trials that are chosen, and trained, together", at_least=1, at_most=10_000)
    startup: int = option(10, "trials at random before TPE has enough to go by", at_least=1, at_most=10_000)
    seed: int = option(0, "of the choices, not of the training", at_least=0, at_most=2**32 - 1)


@dataclass(frozen=True)
class Surgery:
    """What is done to a cell (`cells/surgery.py`). Gates by the names that the cell gives them."""

    open: list[str] = option([], "gates held at 1")
    shut: list[str] = option([], "gates held at 0")
    freeze: list[str] = option([], "gates held, unit by unit, at their mean over the sequences of the batch")
    cut: list[str] = option([], "gates that no longer see h of the step before: those weights count as zero")
    detach: bool = option(False, "no gradient through h of the step before into gates and candidate (1997 LSTM)")
    truncate: int | None = option(None, "gradients reach at most this many steps back", at_least=1, at_most=MAX_STEPS)

    @property
    def nothing(self) -> bool:
        return self == Surgery()


# Where the jobs of a sweep run (`launcher=…`): a dataclass for each launcher's keys. How is in `launchers/`.

LAUNCHERS = ("serial", "local", "slurm", "ray")
#: What Slurm's names are made of; a line of an sbatch script can't be ended with it.
SLURM_NAME = re.compile(r"[A-Za-z0-9._,:=+@&|*()\[\]/-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class LauncherOptions:
    """Keys of every launcher, and all that `serial` has."""

    name: str = option("serial", "where jobs run", choices=LAUNCHERS)

    @property
    def threads(self) -> int | None:
        """Threads of a job where `threads` is null; None: the machine's cores."""
        return None

    @property
    def shares_this_machine(self) -> bool:
        """Whether jobs run on the machine of the command itself, with its devices."""
        return self.name in ("serial", "local")


@dataclass(frozen=True)
class LocalOptions(LauncherOptions):
    workers: int | None = option(None, "jobs at a time; null: as many as cores", at_least=1, at_most=4096)

    @property
    def threads(self) -> int:
        return 1


@dataclass(frozen=True)
class SlurmOptions(LauncherOptions):
    partition: str | None = option(None, "Slurm's partition; null: the cluster's default")
    account: str | None = option(None, "Slurm's account")
    qos: str | None = option(None, "Slurm's quality of service")
    constraint: str | None = option(None, "features that a node must have")
    timeout_minutes: int = option(60, "a job's time limit, in minutes", at_least=1, at_most=525_600)
    signal_seconds: int = option(120, "seconds before its limit at which a job saves", at_least=1, at_most=65_535)
    max_requeues: int = option(100, "times that a job may run into its limit", at_least=0, at_most=100_000)
    cpus: int = option(1, "cores of a job, and its threads", at_least=1, at_most=4096)
    gpus: int = option(0, "GPUs of a job", at_least=0, at_most=64)
    memory_gb: int | None = option(None, "memory of a job", at_least=1, at_most=100_000)
    array_parallelism: int = option(256, "jobs of an array that run at a time", at_least=1, at_most=100_000)
    array_size: int = option(1000, "jobs of an array at most", at_least=1, at_most=100_000)

    def __post_init__(self) -> None:
        for key in ("partition", "account", "qos", "constraint"):
            value = getattr(self, key)
            if value is not None and not SLURM_NAME.fullmatch(str(value)):
                raise OptionError(key, value, "must be a name that Slurm knows")
        whole = isinstance(self.timeout_minutes, int) and isinstance(self.signal_seconds, int)
        if whole and self.signal_seconds >= 60 * self.timeout_minutes:
            rule = f"must be less than timeout_minutes={self.timeout_minutes} takes"
            raise OptionError("signal_seconds", self.signal_seconds, rule)

    @property
    def threads(self) -> int:
        return self.cpus


@dataclass(frozen=True)
class RayOptions(LauncherOptions):
    address: str | None = option(None, "a cluster to use; null: one is started here")
    workers: int | None = option(None, "jobs at a time; null: as many as cores", at_least=1, at_most=4096)
    cpus: int = option(1, "cores of a job, and its threads", at_least=1, at_most=4096)
    gpus: float = option(0.0, "GPUs of a job", at_least=0, at_most=64)

    def __post_init__(self) -> None:
        if self.address is not None and not re.fullmatch(r"[A-Za-z0-9.:/_\[\]-]{1,200}", str(self.address)):
            raise OptionError("address", self.address, "must be auto, host:port or ray://host:port")

    @property
    def threads(self) -> int:
        return self.cpus


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
