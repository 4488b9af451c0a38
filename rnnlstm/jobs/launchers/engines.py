"""The engines behind the launchers: what has to be installed, and their plugin's parameters from our keys."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import ConfigError
from rnnlstm.config.schema import LauncherOptions, LocalOptions, RayOptions, SlurmOptions, cores

#: The extra that brings a launcher, and the plugin in it.
EXTRAS = {
    "local": ("parallel", "hydra-joblib-launcher"),
    "slurm": ("slurm", "hydra-submitit-launcher"),
    "ray": ("ray", "hydra-ray-launcher"),
}


def require_engine(launcher: LauncherOptions) -> None:
    """Raises: ConfigError if what the launcher needs is not installed."""
    extra, plugin = EXTRAS[launcher.name]
    try:
        importlib.metadata.version(plugin)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"launcher={launcher.name} needs pip install 'rnnlstm[{extra}]'") from None
    if launcher.name == "slurm" and not shutil.which("sbatch"):
        raise ConfigError("launcher=slurm: this machine has no sbatch; start the command where Slurm's are")


def plugin_values(launcher: LauncherOptions, threads: int, folder: Path, jobs: int) -> dict[str, Any]:
    """Parameters of Hydra's launcher plugin. `threads` is what a job computes with, `folder` the letterbox."""
    if isinstance(launcher, LocalOptions):
        workers = launcher.workers or max(1, cores() // threads)
        return {"n_jobs": min(workers, jobs), "batch_size": "1"}
    if isinstance(launcher, SlurmOptions):
        return {
            "submitit_folder": str(folder / "slurm"),
            "name": "rnnlstm",
            "timeout_min": launcher.timeout_minutes,
            "signal_delay_s": launcher.signal_seconds,
            "max_num_timeout": launcher.max_requeues,
            "cpus_per_task": max(launcher.cpus, threads),
            "gpus_per_node": launcher.gpus or None,
            "mem_gb": launcher.memory_gb,
            "array_parallelism": launcher.array_parallelism,
            **{key: getattr(launcher, key) for key in ("partition", "account", "qos", "constraint")},
        }
    assert isinstance(launcher, RayOptions)
    here = {
        "num_cpus": (launcher.workers or max(1, cores() // launcher.cpus)) * launcher.cpus,
        "include_dashboard": False,
    }
    return {
        "ray": {
            "init": {
                "address": launcher.address or "local",
                "log_to_driver": False,
                "logging_level": "ERROR",
                **({} if launcher.address else here),
            },
            "remote": {"num_cpus": max(launcher.cpus, threads), "num_gpus": launcher.gpus, "max_retries": 0},
        }
    }


def environment(launcher: LauncherOptions, inherited: Mapping[str, str]) -> dict[str, str]:
    """Further variables for the process that starts the engine."""
    if launcher.name == "slurm":  # its nodes have their own
        return {}
    threads = inherited.get("OMP_NUM_THREADS", str(launcher.threads))
    found = {"OMP_NUM_THREADS": threads}  # some libraries ask the environment alone, once
    if isinstance(launcher, RayOptions) and launcher.address is None:
        # Ray has its servers listen on every interface, unless it takes this for a machine that no other may join.
        found |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    return found
