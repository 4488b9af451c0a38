"""The schema: every key of a configuration with its default, rule and help, as frozen dataclasses.

This file is the only place where a default is written, except those of tasks and cells, which their classes hold.
`compose.py` hands the defaults to Hydra, `cli/help.py` prints them, `read_config` checks a composed configuration.
It imports neither torch nor Hydra, so that `--help` is quick.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rnnlstm.config.errors import ConfigError, OptionError, nearest_key
from rnnlstm.config.hydra_habits import habit_of_section
from rnnlstm.config.options import REGISTRIES, check_option, check_options, default_of, field_names, option
from rnnlstm.config.untrusted import config_folder

MAX_STEPS = 1_000_000_000
#: A condition for an option that only the task can tell.
TOKENS = "a task whose inputs are tokens"


@dataclass(frozen=True)
class NetworkOptions:
    """The keys of `model` that every network has; the others belong to its cell."""

    hidden_size: int = option(64, "units per layer, H", at_least=1, at_most=65_536)
    num_layers: int = option(1, "layers, L", at_least=1, at_most=100)
    embedding_size: int = option(32, "features per token", at_least=1, at_most=65_536, acts_if=TOKENS)
    recurrent_dropout: float = option(
        0.0, "in training: probability that the recurrent weights don't see a unit", at_least=0, below=1
    )
    zoneout: float = option(0.0, "in training: probability that a unit keeps its state", at_least=0, below=1)
    backend: str = option(
        "auto", "auto (fused where the cell has it, else reference), reference, fused, torch (PyTorch's own cells)"
    )


@dataclass(frozen=True)
class OptimizerOptions:
    """Keys of every optimiser."""

    name: str = option(
        "adam",
        "the optimiser",
        choices={
            "adam": "Adam (Kingma & Ba 2015) with PyTorch's other defaults",
            "rmsprop": "RMSprop (Hinton, lecture 6e, 2012) as PyTorch computes it",
            "sgd": "stochastic gradient descent",
        },
    )
    lr: float = option(3e-3, "learning rate", above=0, at_most=1000)
    weight_decay: float = option(
        0.0, "λ: λ · w is added to the gradient after clipping (L2), of every parameter", at_least=0, at_most=1000
    )


@dataclass(frozen=True)
class AdamOptions(OptimizerOptions):
    betas: list[float] = option(
        [0.9, 0.999], "adam: decay of the averages of the gradient and of its square", at_least=0, below=1
    )

    def __post_init__(self) -> None:
        if isinstance(self.betas, list) and len(self.betas) != 2:
            raise OptionError("betas", self.betas, "must be two numbers: [0.9,0.999]")


@dataclass(frozen=True)
class RMSpropOptions(OptimizerOptions):
    alpha: float = option(0.99, "rmsprop: decay of the squared gradient's average", at_least=0, at_most=1)


@dataclass(frozen=True)
class SGDOptions(OptimizerOptions):
    momentum: float = option(0.0, "sgd: share of the last update that is added again", at_least=0, at_most=1)


@dataclass(frozen=True)
class ClipOptions:
    name: str = option(
        "norm",
        "what is clipped",
        choices={
            "norm": "g ← g · min(1, threshold / ‖g‖) over all parameters together (Pascanu et al. 2013)",
            "value": "each entry of the gradient is cut to ± threshold",
            "none": "no clipping; the norm is still measured",
        },
    )
    threshold: float | None = option(
        1.0, "largest norm, or largest entry", above=0, acts_if={"clip": ["norm", "value"]}, idle_is_fine=True
    )
    norm_type: int | str = option(
        2,
        "p of the norm that is limited: 1 (sum of |g|), 2 (Euclidean), inf (largest |g|)",
        choices=(1, 2, "inf"),
        acts_if={"clip": ["norm"]},
    )

    def __post_init__(self) -> None:
        if self.threshold is None and self.name != "none":
            raise OptionError("threshold", None, f"clip={self.name} needs one; clip=none does without")


@dataclass(frozen=True)
class ProbeOptions:
    name: str = option(
        "standard",
        "what is measured inside the network",
        choices={
            "standard": "gradient flow, gates, and gradient norms by parameter",
            "full": "also gradients by lag, Jacobians, Lyapunov exponents, influence: takes seconds each time",
            "off": "nothing",
        },
    )
    every: int = option(
        50,
        "updates between measurements; 200 with probe=full",
        at_least=1,
        at_most=MAX_STEPS,
        acts_if={"probe": ["standard", "full"]},
    )


@dataclass(frozen=True)
class FullProbeOptions(ProbeOptions):
    every: int = option(200, "updates between measurements", at_least=1, at_most=MAX_STEPS)


@dataclass(frozen=True)
class CurriculumOptions:
    """Which task lengths are trained at (`training/curriculum.py`)."""

    name: str = option(
        "fixed",
        "how the length of training sequences changes",
        choices={
            "fixed": "every batch has the task's length",
            "growing": "starts short; grows, for each replica by itself, when the present length is solved",
            "uniform": "each update draws a length between curriculum.start and the task's",
        },
    )
    start: int = option(
        10,
        "growing: first task length; uniform: the shortest",
        at_least=1,
        at_most=1_000_000,
        acts_if={"curriculum": ["growing", "uniform"]},
    )
    factor: float = option(
        1.5, "a solved length is multiplied by it", above=1, at_most=1000, acts_if={"curriculum": ["growing"]}
    )


@dataclass(frozen=True)
class TrainOptions:
    steps: int = option(2000, "updates at most", at_least=1, at_most=MAX_STEPS)
    batch_size: int = option(64, "sequences per update and replica, B", at_least=1, at_most=1_000_000)
    stop_when_solved: bool = option(
        True, "freeze a replica once it meets the task's criterion; the run ends when all have"
    )


@dataclass(frozen=True)
class EvalOptions:
    every: int = option(50, "updates between evaluations", at_least=1, at_most=MAX_STEPS)
    samples: int = option(1024, "held-out sequences, the same at each evaluation", at_least=1, at_most=10_000_000)
    lengths: list[int] = option([], "further task lengths to test at: [200,400]", at_least=1)
    decoys: list[float] = option([], "further decoy rates to test at: [0.0,0.2]", at_least=0, at_most=1)


@dataclass(frozen=True)
class LogOptions:
    every: int = option(10, "updates between lines of metrics.jsonl", at_least=1, at_most=MAX_STEPS)


@dataclass(frozen=True)
class CheckpointOptions:
    """When the state is saved: whichever comes first. The interval does not affect results."""

    every: int = option(1000, "updates between checkpoints", at_least=1, at_most=MAX_STEPS)
    seconds: float = option(60.0, "or seconds between checkpoints, whichever comes first", at_least=0, at_most=1e9)


@dataclass(frozen=True)
class Surgery:
    """What is changed in a cell from the first update on (`cells/surgery.py`). Gates have the cell's own names."""

    open: list[str] = option([], "gates held at 1: [forget]")
    shut: list[str] = option([], "gates held at 0")
    freeze: list[str] = option([], "gates held, for each unit, at their mean over the batch's sequences")
    round: list[str] = option([], "gates rounded to 0 or 1; gradients pass as if they were not")
    cut: list[str] = option([], "gates that don't see h of the step before: those weights count as zero")
    detach: bool = option(False, "no gradient through h of the step before into gates and candidate (1997 LSTM)")
    truncate: int | None = option(
        None, "gradients reach at most this many steps back; null: all", at_least=1, at_most=MAX_STEPS
    )

    @property
    def nothing(self) -> bool:
        return self == Surgery()


#: Keys of Slurm's whose values are names, with the characters of those names; none of them ends a line or a word.
SLURM_NAMES = ("partition", "account", "qos", "constraint", "nodelist", "exclude", "reservation")
SLURM_NAME = re.compile(r"[A-Za-z0-9._,:=+@&|*()\[\]/-]{1,200}", re.ASCII)
SLURM_TIME = re.compile(r"\d{1,6}(:\d{1,2}){1,2}|\d{1,4}-\d{1,2}(:\d{1,2}){0,2}", re.ASCII)
SLURM_MEMORY = re.compile(r"\d{1,9}[KMGT]?", re.ASCII)
#: Names that keys have had before, and what they are called now.
RENAMED = {"launcher.timeout_minutes": "launcher.time (minutes)", "launcher.memory_gb": "launcher.memory (8G)"}
#: Names by which other programs know a key; the nearest name by its letters would be another one.
ELSEWHERE_CALLED = {
    "n_jobs": "launcher.workers", "num_workers": "launcher.workers", "jobs": "launcher.workers",
    "epochs": "train.steps", "max_epochs": "train.steps", "num_epochs": "train.steps", "max_steps": "train.steps",
    "iterations": "train.steps", "bs": "train.batch_size", "learning_rate": "optimizer.lr",
    "log_dir": "runs_root", "logdir": "runs_root", "output": "runs_root", "output_dir": "runs_root",
    "gpu": "device", "gpus": "device", "cuda": "device", "num_threads": "threads", "num_seeds": "seeds",
    "seed_count": "seeds", "n_seeds": "seeds", "clip_norm": "clip.threshold", "grad_clip": "clip.threshold",
    "max_norm": "clip.threshold", "max_grad_norm": "clip.threshold", "T": "task.length", "seq_len": "task.length",
    "seq_length": "task.length", "sequence_length": "task.length", "hidden": "model.hidden_size",
    "hidden_dim": "model.hidden_size", "units": "model.hidden_size", "layers": "model.num_layers",
    "n_layers": "model.num_layers", "embedding_dim": "model.embedding_size", "embed_dim": "model.embedding_size",
}  # fmt: skip
MOST_OWNERS = 6  #: choices that a message names
#: How to do elsewhere what a key of Slurm's does.
NOT_ELSEWHERE = "is for launcher=slurm, whose queue keeps the jobs; elsewhere start the command with nohup or in tmux"


@dataclass(frozen=True)
class LauncherOptions:
    """Where the jobs of a sweep run: keys of every launcher (`jobs/launcher.py`)."""

    name: str = option(
        "serial",
        "where jobs run",
        choices={
            "serial": "one job after another, each with all cores",
            "local": "jobs in parallel on this machine's cores",
            "slurm": "jobs as elements of a Slurm array; needs a shared file system",
            "ray": "jobs as tasks of a Ray cluster; needs pip install 'rnnlstm[ray]' and a shared file system",
        },
    )

    @property
    def threads(self) -> int | None:
        """Threads of a job where `threads` is null; None: as many as the machine has cores."""
        return None

    @property
    def shares_this_machine(self) -> bool:
        """Whether jobs run on the machine of the command itself, with its devices."""
        return self.name in ("serial", "local")


@dataclass(frozen=True)
class LocalOptions(LauncherOptions):
    workers: int | None = option(None, "local, ray: jobs at a time; null: one per core", at_least=1, at_most=4096)

    @property
    def threads(self) -> int:
        return 1


@dataclass(frozen=True)
class SlurmOptions(LauncherOptions):
    partition: str | None = option(None, "slurm: the partition; null: the cluster's default")
    account: str | None = option(None, "slurm: the account; null: the cluster's default")
    qos: str | None = option(None, "slurm: the quality of service; null: the cluster's default")
    constraint: str | None = option(None, "slurm: features that a node must have")
    nodelist: str | None = option(None, "slurm: nodes to take")
    exclude: str | None = option(None, "slurm: nodes to leave out")
    reservation: str | None = option(None, "slurm: a reservation")
    time: int | str = option(
        60, "slurm: a job's time limit, minutes or 1-02:00:00; then it saves and is queued again", at_least=1
    )
    signal_seconds: int = option(
        120, "slurm: seconds before the limit at which a job saves", at_least=1, at_most=65_535
    )
    max_requeues: int = option(100, "slurm: how often a job may reach its limit", at_least=0, at_most=100_000)
    cpus: int = option(1, "slurm, ray: cores of a job, and its threads", at_least=1, at_most=4096)
    gpus: int = option(0, "slurm, ray: GPUs of a job; with ray, 0.5 puts two jobs on one", at_least=0, at_most=64)
    gres: str | None = option(None, "slurm: generic resources with their type, such as gpu:a100:1")
    memory: int | str | None = option(
        None, "slurm: memory of a job, MB or 8G; null: the cluster's default", at_least=1
    )
    array_parallelism: int = option(256, "slurm: jobs of an array that run at a time", at_least=1, at_most=100_000)
    array_size: int = option(
        1000, "slurm: jobs of one array; the cluster's limit is MaxArraySize", at_least=1, at_most=100_000
    )
    sbatch: dict[str, Any] = option({}, "slurm: other options of sbatch: {mail-type: END}")
    setup: list[str] = option([], "slurm: shell lines before a job starts: ['module load cuda']")
    wait: bool = option(True, "slurm: false submits and ends; the same command later watches the jobs")
    cancel: bool = option(False, "slurm: true ends the jobs of the same command that are in the queue")

    def __post_init__(self) -> None:
        for key in (*SLURM_NAMES, "gres"):
            value = getattr(self, key)
            if value is not None and not SLURM_NAME.fullmatch(str(value)):
                raise OptionError(key, value, "must be a name that Slurm knows")
        if isinstance(self.time, str) and not SLURM_TIME.fullmatch(self.time):
            raise OptionError("time", self.time, "must be minutes, or like 12:30:00 or 1-02:00:00")
        if isinstance(self.memory, str) and not SLURM_MEMORY.fullmatch(self.memory):
            raise OptionError("memory", self.memory, "must be MB, or like 8G")
        self._check_sbatch()
        if isinstance(self.signal_seconds, int) and self.signal_seconds >= self.seconds:
            rule = f"must be less than time={self.time} takes"
            raise OptionError("signal_seconds", self.signal_seconds, rule)

    def _check_sbatch(self) -> None:
        if not isinstance(self.sbatch, dict):
            raise OptionError("sbatch", self.sbatch, "must map sbatch's options to values: {mail-type: END}")
        for key, value in self.sbatch.items():
            if not re.fullmatch(r"[a-z][a-z-]{1,40}", str(key)) or key in OUR_SBATCH:
                rule = OUR_SBATCH.get(str(key), "must be a long option of sbatch, without its dashes")
                raise OptionError("sbatch", key, rule)
            if not isinstance(value, str | int | float | bool) or not str(value).isprintable():
                raise OptionError(f"sbatch.{key}", value, "must be a text, a number or true")
        for line in self.setup if isinstance(self.setup, list) else ():
            if isinstance(line, str) and not line.replace("\t", " ").isprintable():
                raise OptionError("setup", line, "must be lines of a shell, one an entry")

    @property
    def seconds(self) -> int:
        """The time limit."""
        if not isinstance(self.time, str):
            return 60 * self.time
        days, dash, clock = self.time.rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if dash:  # days-hours, days-hours:minutes, days-hours:minutes:seconds
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        else:  # minutes:seconds, hours:minutes:seconds
            hours, minutes, seconds = (0, 0, 0, *parts)[-3:]
        return ((24 * int(days or 0) + hours) * 60 + minutes) * 60 + seconds

    @property
    def threads(self) -> int:
        return self.cpus


#: What is not for `launcher.sbatch`, and why.
OUR_SBATCH = {
    **dict.fromkeys(
        ("array", "output", "error", "open-mode", "signal", "parsable", "wrap", "wait", "requeue", "no-requeue",
         "export", "job-name", "ntasks", "nodes", "hold", "test-only"),
        "is set by the launcher",
    ),
    **{key: f"has a key of its own: launcher.{key}" for key in (*SLURM_NAMES, "gres", "time")},
    "mem": "has a key of its own: launcher.memory",
    "cpus-per-task": "has a key of its own: launcher.cpus",
    "gpus-per-node": "has a key of its own: launcher.gpus",
}  # fmt: skip


@dataclass(frozen=True)
class RayOptions(LauncherOptions):
    address: str | None = option(None, "ray: the cluster, auto or host:port; null: starts one here for this sweep")
    workers: int | None = option(None, "jobs at a time; null: one per core", at_least=1, at_most=4096)
    cpus: int = option(1, "cores of a job, and its threads", at_least=1, at_most=4096)
    gpus: float = option(0.0, "GPUs of a job", at_least=0, at_most=64)

    def __post_init__(self) -> None:
        if self.address is not None and not re.fullmatch(r"[A-Za-z0-9.:/_\[\]-]{1,200}", str(self.address)):
            raise OptionError("address", self.address, "must be auto, host:port or ray://host:port")

    @property
    def threads(self) -> int:
        return self.cpus


def cores() -> int:
    """Cores that this process may use: those that it may run on, and no more than its cgroup has time for."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return found if quota is None else max(1, min(found, int(quota)))


def _cgroup_cores(mine: Path, root: Path) -> float | None:
    """The processor time that the groups of this process allow, in cores; None without a limit."""
    limits = []
    with suppress(OSError, ValueError):
        for line in mine.read_text().splitlines():
            _number, controllers, place = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            group = root / ("cpu" if controllers else ".") / place.lstrip("/")
            for folder in (group, *group.parents):  # up to the root
                with suppress(OSError, ValueError):
                    if controllers:
                        quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
                    else:
                        quota, period = (folder / "cpu.max").read_text().split()
                    if quota.strip() not in ("max", "-1"):
                        limits.append(int(quota) / int(period))
                if folder == root:
                    break
    return min(limits, default=None)


@dataclass(frozen=True)
class SearchOptions:
    """How a sweep chooses values of its keys (`jobs/search.py`): keys of every search."""

    name: str = option(
        "none",
        "how a sweep (-m) chooses values",
        choices={
            "none": "every combination of the listed values",
            "optuna": "Optuna's TPE, for the lowest loss, from spaces like tag(log,interval(1e-4,1e-2)), "
            "int(interval(8,64)) or choice(16,32); needs pip install 'rnnlstm[optuna]'",
        },
    )


@dataclass(frozen=True)
class OptunaOptions(SearchOptions):
    trials: int = option(20, "optuna: configurations to try", at_least=1, at_most=10_000)
    at_once: int = option(1, "optuna: trials that are chosen, and trained, together", at_least=1, at_most=10_000)
    startup: int = option(10, "optuna: random trials before TPE starts", at_least=1, at_most=10_000)
    seed: int = option(0, "optuna: seed of the choices, not of the training", at_least=0, at_most=2**32 - 1)


Section = TypeVar("Section")
#: `from_weights` in a configuration: which weights, the identity of their run, and its seed if one was named.
FROM_WEIGHTS = re.compile(r"(last|best)-[0-9a-f]{8}(?:-(seed_\d{1,19}))?", re.ASCII)


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
    launcher: LauncherOptions
    search: SearchOptions
    train: TrainOptions
    eval: EvalOptions
    log: LogOptions
    checkpoint: CheckpointOptions
    surgery: Surgery
    tree: Mapping[str, Any]  #: the whole configuration as it was composed, plain values
    match: str = option(
        "none",
        "change hidden_size so that the network equals, in this, a one-layer LSTM of hidden_size units",
        choices=("none", "parameters", "units", "state", "step_time"),
    )
    seed: int = option(0, "the first replica's seed", at_least=0, at_most=2**62)
    seeds: int = option(1, "replicas, trained together; seeds seed, seed+1, …; R", at_least=1, at_most=10_000)
    device: str = option("auto", "auto, cpu, cuda or cuda:<n>")
    threads: int | None = option(
        None,
        "CPU threads; null: one or all, whichever is faster at the start; 1 for jobs in parallel",
        at_least=1,
        at_most=4096,
    )
    dtype: str = option("float32", "type of weights and activations", choices=("float32", "float64"))
    precision: str = option(
        "full",
        "tf32, bfloat16: factors of matrix products rounded to it, all else in float32",
        choices=("full", "tf32", "bfloat16"),
    )
    data: str = option(
        "cpu",
        "cpu, or device: the device that trains draws the batches; they differ from those of cpu",
        choices=("cpu", "device"),
    )
    runs_root: str = option("runs", "folder of results: <runs_root>/<task>_T<length>/<what differs>-<hash>/")
    name: str | None = option(None, "a label in front of the run folder's name")
    overwrite: bool = option(False, "replace results that exist")
    resume: str = option(
        "auto", "auto: resume an interrupted run; never: refuse existing results", choices=("auto", "never")
    )
    job_timeout: float | None = option(
        None, "seconds after which a job is saved and stopped; null: no limit", above=0, at_most=2_000_000
    )
    from_run: str | None = option(None, "the run whose configuration was taken, set by from=RUN")
    from_weights: str | None = option(
        None, "with from=RUN: last or best, start from its weights, last or of the lowest loss; null: from fresh ones"
    )
    plugins: list[str] = option([], "your own modules with cells and tasks, on the command line only")

    def __post_init__(self) -> None:
        check_options(self)
        if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]?))?", self.device):
            raise OptionError("device", self.device, "must be auto, cpu, cuda or cuda:<n>")
        if self.from_weights is not None and not FROM_WEIGHTS.fullmatch(self.from_weights):
            raise OptionError("from_weights", self.from_weights, "must be last or best, with from=RUN")
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


#: Sections of the tree, in its order, with the class that holds their keys. One whose class has a `name` is a group:
#: a choice is made in it, as in `optimizer=sgd`.
SECTIONS: dict[str, type] = {
    "optimizer": OptimizerOptions,
    "clip": ClipOptions,
    "probe": ProbeOptions,
    "curriculum": CurriculumOptions,
    "launcher": LauncherOptions,
    "search": SearchOptions,
    "train": TrainOptions,
    "eval": EvalOptions,
    "log": LogOptions,
    "checkpoint": CheckpointOptions,
    "surgery": Surgery,
}
#: Choices of a group that have further keys or other defaults.
VARIANTS: dict[str, dict[str, type]] = {
    "optimizer": {"adam": AdamOptions, "rmsprop": RMSpropOptions, "sgd": SGDOptions},
    "probe": {"full": FullProbeOptions},
    "launcher": {"local": LocalOptions, "slurm": SlurmOptions, "ray": RayOptions},
    "search": {"optuna": OptunaOptions},
}
#: Keys of `Config` itself.
TOP = tuple(f.name for f in dataclasses.fields(Config) if "help" in f.metadata)

#: Keys that `rnnlstm.gradflow` takes besides the trainer's.
GRADFLOW = ("weights", "show", "out", "sequences", "sentence")
#: Values of its `show`.
PARTS = ("flow", "surgery", "activations", "map", "influence", "dynamics")


# -- a composed configuration, checked


def read_config(tree: Mapping[str, Any]) -> Config:
    """Turn a composed configuration (plain values) into a checked `Config`.

    Raises: ConfigError, one line that names key, value and rule.
    """
    require_keys(tree, ["task", "model", *SECTIONS, *TOP])
    for key in ("task", "model"):
        if not isinstance(tree[key], Mapping) or not isinstance(tree[key].get("name"), str):
            raise OptionError(key, tree[key], f"must be a choice of the group {key}, with a name")
    network = field_names(NetworkOptions)
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
    if "name" in tree:  # an unknown choice is the mistake, not the keys of a known one
        try:
            check_option(next(f for f in dataclasses.fields(cls) if f.name == "name"), tree["name"])  # type: ignore[arg-type]
        except OptionError as error:
            raise error.under(key) from None
    cls = VARIANTS.get(key, {}).get(str(tree.get("name")), cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    require_keys(tree, list(fields), f"{key}.")
    try:
        section = cls(**{name: _value(field, tree[name]) for name, field in fields.items()})
        check_options(section)
    except OptionError as error:
        raise error.under(key) from None
    return section


def _value(field: dataclasses.Field[Any], value: Any) -> Any:
    """`value`, which must be a list or a mapping exactly where the field is one."""
    if str(field.type).startswith("dict["):
        return dict(value) if isinstance(value, Mapping) else value
    wants_list = str(field.type).startswith("list[")
    if isinstance(value, Mapping) or wants_list != isinstance(value, list):
        several = "must be a single value; several, of a sweep, are written without brackets: -m KEY=a,b"
        raise OptionError(field.name, value, "must be a list: [1,2]" if wants_list else several)
    return value


def require_keys(tree: Mapping[str, Any], known: list[str], prefix: str = "", also: Iterable[str] = ()) -> None:
    """Check that `tree` has every known key, and no other: a removed key would fall back to its default unnoticed.
    `also` are suggested for a mistyped key. Raises: ConfigError."""
    for key in tree:
        if key not in known:
            raise unknown_key(f"{prefix}{key}", tree[key], [*known, *also])
    for key in known:
        if key not in tree:
            rule = "keys can be changed, not removed; in a file of your own, defaults: [CHOICE] brings them"
            raise ConfigError(f"missing key {prefix}{key}: {rule}")


def unknown_key(key: str, value: Any, known: Iterable[str], elsewhere: Iterable[str] = ()) -> OptionError:
    """The error for an unknown key. `known` are the names of its section's keys, `elsewhere` are whole keys."""
    section, dot, _ = key.rpartition(".")
    if key in RENAMED:
        return OptionError(key, value, f"is called {RENAMED[key]} now")
    if key in ("launcher.wait", "launcher.cancel"):
        return OptionError(key, value, NOT_ELSEWHERE)
    if instead := habit_of_section(key, str(value)):
        return OptionError(key, value, f"unknown key; {instead}")
    if owners := choices_with(key):
        others = f" and {len(owners) - MOST_OWNERS} more" if len(owners) > MOST_OWNERS else ""
        return OptionError(key, value, f"unknown key here; it belongs to {', '.join(owners[:MOST_OWNERS])}{others}")
    if usual := ELSEWHERE_CALLED.get(key.rpartition(".")[2]):
        return OptionError(key, value, f"unknown key; did you mean {usual}?")
    return OptionError(key, value, f"unknown key{nearest_key(key, [f'{section}{dot}{k}' for k in known], elsewhere)}")


def choices_with(key: str) -> list[str]:
    """The choices that have this key, if it is not one of every choice: `model.nonlinearity` → `model=rnn`."""
    section, _, name = key.partition(".")
    if section in VARIANTS:
        every = field_names(SECTIONS[section])
        special = {choice: set(field_names(cls)).difference(every) for choice, cls in VARIANTS[section].items()}
        return [f"{section}={choice}" for choice, names in special.items() if name in names]
    if section not in ("task", "model"):
        return []
    choices = [c for c in choices_of_groups()[section] if any(name == option[0] for option in options_of(section, c))]
    own = REGISTRIES.get(section)  # filled once plugins, or all tasks and cells, are imported
    if own is not None:
        choices += [choice for choice in own if choice not in choices and name in field_names(own[choice])]
    return [f"{section}={choice}" for choice in choices]


# -- every key and choice, for Hydra, --help, Tab completion and suggestions


def choices_of_sections() -> Iterator[tuple[str, dict[str, str]]]:
    """Each group that is a section, with its choices and what they mean."""
    for section, cls in SECTIONS.items():
        for f in dataclasses.fields(cls):
            if f.name == "name":
                yield section, f.metadata["choices"]


def default_section(section: str, choice: str | None = None) -> dict[str, Any]:
    """The keys of a section, or of one choice of a group, with their defaults."""
    cls = VARIANTS.get(section, {}).get(str(choice), SECTIONS[section])
    values = {f.name: default_of(f) for f in dataclasses.fields(cls)}
    return values if choice is None else values | {"name": choice}


def default_top() -> dict[str, Any]:
    """The keys that are in no section, with their defaults."""
    return {f.name: default_of(f) for f in dataclasses.fields(Config) if f.name in TOP}


def choices_of_groups() -> dict[str, list[str]]:
    """The choices of each group."""
    files = choices_in(config_folder())
    experiment = {"experiment": files.pop("experiment")}
    return files | {group: sorted(choices) for group, choices in choices_of_sections()} | experiment


def choices_in(folder: Path) -> dict[str, list[str]]:
    """The choices that a folder of YAML files has for task, model and experiment."""
    return {
        group: sorted(str(p.relative_to(folder / group).with_suffix("")) for p in (folder / group).rglob("*.yaml"))
        for group in ("task", "model", "experiment")
    }


def schema_fields() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """The keys that do not depend on task and model, each with its field."""
    for section, cls in SECTIONS.items():
        seen: set[str] = {"name"}
        for variant in [cls, *VARIANTS.get(section, {}).values()]:
            for f in dataclasses.fields(variant):
                if f.name not in seen:
                    seen.add(f.name)
                    yield f"{section}.{f.name}", f
    top = {f.name: f for f in dataclasses.fields(Config)}
    for name in TOP:
        yield name, top[name]


@functools.cache
def options_of(group: str, choice: str) -> list[tuple[str, str, str]]:
    """Key, default and help of each option of a task or model: `length`, `100`, `tokens in the whole text, T`.

    They come from its YAML file, which `scripts/readme` writes from the class: the class itself would import torch.
    """
    text = _yaml_file(group, choice).read_text(encoding="utf-8")
    lines = text.splitlines()
    options = []
    for key, value in yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)).value:
        comment = lines[value.end_mark.line][value.end_mark.column :].strip().removeprefix("#")
        if key.value != "name":
            options.append((key.value, value.value, comment.strip()))
    return options


def first_comment(group: str, choice: str, folder: Path | None = None) -> str:
    """What a choice is: the first line of comment in its YAML file, the project's or that in `folder`. Empty for a
    choice without such a file."""
    path = _yaml_file(group, choice) if folder is None else folder / group / f"{choice}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]
    return comments[0] if comments else ""


@functools.cache
def every_key() -> tuple[str, ...]:
    """Groups and whole keys, those of each task and model included."""
    groups = choices_of_groups()
    keys = [*groups, *(key for key, _ in schema_fields())]
    keys += [f"{g}.{key}" for g in ("task", "model") for choice in groups[g] for key, *_ in options_of(g, choice)]
    return tuple(dict.fromkeys(keys))


def _yaml_file(group: str, choice: str) -> Path:
    return config_folder() / group / f"{choice}.yaml"
