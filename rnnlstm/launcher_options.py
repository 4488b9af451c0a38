"""Where the jobs of a sweep run (`launcher=…`): a dataclass for each launcher's keys. How is in `launchers/`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from rnnlstm.options import OptionError, option

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
