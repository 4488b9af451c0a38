"""What a user of Hydra types out of habit, and what to write here: for each key and flag of Hydra's that is refused.

Hydra 1.3 with its plugins for joblib, submitit, Ray and Optuna. docs/hydra.md has the same as a table.
"""

from __future__ import annotations

import re

from rnnlstm.config.errors import show

#: Marks an entry that says why there is no counterpart; other entries say what to write.
NONE = "it has no counterpart, because "

#: Choices of Hydra's launchers and sweepers → the choice here.
CHOICES = {
    "launcher": {
        "basic": "launcher=serial",
        "joblib": "launcher=local",
        "submitit_local": "launcher=local",
        "submitit_slurm": "launcher=slurm",
        "ray": "launcher=ray",
        "ray_aws": "launcher=ray launcher.address=HOST:PORT",
    },
    "sweeper": {
        "basic": "search=none",
        "optuna": "search=optuna",
        "ax": "search=optuna",
        "nevergrad": "search=optuna",
    },
}
_CODE = "it names code to run, and a configuration is data"
_ONE_PROCESS = "a job is one process"
_RECORD = "the run folders are the record of a search"
#: Keys of Hydra's, without `hydra.`, as patterns → what to write (`{}` is the value), or why there is nothing.
#: The first that fits counts.
KEYS: tuple[tuple[str, str], ...] = (
    (r"run\.dir|sweep\.dir|sweep\.subdir", "runs_root={}"),
    (r"job\.name", "name={}"),
    (r"job\.chdir", f"{NONE}every job stays in the folder of the command"),
    (r"job\.env_set\..*", "the variable in front of the command: NAME=value python -m rnnlstm.train …"),
    (r"job\.env_copy.*", f"{NONE}jobs get the environment of the command"),
    (r"job\.(config|override_dirname|id|num).*", f"{NONE}the folder's name already says what differs"),
    (r"job_logging.*|hydra_logging.*|callbacks.*", f"{NONE}{_CODE}"),
    (r"mode", "-m"),
    (r"verbose", f"{NONE}no message is hidden"),
    (r"output_subdir", f"{NONE}config.yaml always lies in the run folder"),
    (r"searchpath.*", "--config-dir DIR"),
    (r"help.*|hydra_help.*", "--help"),
    (r"launcher\.n_jobs", "launcher.workers={}"),
    (r"launcher\.timeout_min", "launcher.time={}"),
    (r"launcher\.mem_gb", "launcher.memory={}G"),
    (r"launcher\.cpus_per_task|launcher\.ray\.remote\.num_cpus", "launcher.cpus={}"),
    (r"launcher\.gpus_per_node|launcher\.ray\.remote\.num_gpus", "launcher.gpus={}"),
    (r"launcher\.signal_delay_s", "launcher.signal_seconds={}"),
    (r"launcher\.max_num_timeout", "launcher.max_requeues={}"),
    (r"launcher\.(partition|account|qos|constraint|exclude|gres|array_parallelism|setup)", "launcher.{key}={}"),
    (r"launcher\.additional_parameters.*|launcher\.(comment|mem_per_\w+)", "launcher.sbatch={{OPTION: VALUE}}"),
    (r"launcher\.(nodes|tasks_per_node|gpus_per_task)", f"{NONE}{_ONE_PROCESS}"),
    (r"launcher\.ray\.init\.address", "launcher.address={}"),
    (r"launcher\._target_|sweeper\._target_", f"{NONE}{_CODE}"),
    (r"launcher\..*", f"{NONE}the launchers here are the project's own; --help lists their keys"),
    (r"sweeper\.n_trials", "search=optuna search.trials={}"),
    (
        r"sweeper\.n_jobs|sweeper\.max_batch_size",
        "search.at_once={}, or for a sweep launcher=local launcher.workers={}",
    ),
    (r"sweeper\.sampler\.n_startup_trials", "search.startup={}"),
    (r"sweeper\.sampler\.seed", "search.seed={}"),
    (r"sweeper\.params\..*|sweeper\.search_space.*", "-m {param}={}"),
    (r"sweeper\.direction", f"{NONE}a search always looks for the lowest loss"),
    (r"sweeper\.(study_name|storage)", f"{NONE}{_RECORD}"),
    (r"sweeper\..*", f"{NONE}the search here is the project's own; --help lists its keys"),
)
#: Flags of Hydra's → the same.
FLAGS: dict[tuple[str, ...], str] = {
    ("--config-name", "-cn"): "experiment=NAME",
    ("--config-path", "-cp"): "--config-dir DIR",
    ("--info", "-i"): "--cfg job",
    ("--package", "-p"): f"{NONE}--cfg job prints every key",
    ("--shell-completion", "-sc"): 'eval "$(rnnlstm-train --completion=bash)" in ~/.bashrc',
    ("--experimental-rerun",): "the run's command again: it resumes; overwrite=true starts anew",
    ("--hydra-help",): "--help",
    ("--run", "-r"): f"{NONE}running is what the command does without -m",
}
OTHERWISE = "--help lists the keys"


def instead_of_key(key: str, value: str = "") -> str | None:
    """What to write for a key of Hydra's, `hydra.job.name` or `hydra/launcher`: `write name=x`, or the reason why
    there is no counterpart. None for a key that is not listed."""
    name = key.lstrip("+~").removeprefix("hydra").lstrip("./").partition("@")[0].replace("/", ".")
    plain = value.strip("'\"")
    if name in CHOICES:
        choices = CHOICES[name]
        every = f"one of {', '.join(dict.fromkeys(choices.values()))}"
        return f"write {choices.get(plain, every)}"
    for pattern, entry in KEYS:
        if re.fullmatch(pattern, name):
            if entry.startswith(NONE):
                return entry
            if name == "mode" and plain.upper() != "MULTIRUN":
                return f"{NONE}running is what the command does without -m"
            gap = "FOLDER" if name.endswith("dir") else "…"
            shown = show(plain) if plain and "${" not in plain else gap
            parameter = name.removeprefix("sweeper.params.")
            return f"write {entry.format(shown, key=name.rpartition('.')[2], param=parameter)}"
    return None


def habit_of_section(key: str, value: str) -> str | None:
    """As `instead_of_key`, for a key that is written without `hydra.`, such as `launcher.n_jobs=4`. None where that
    would be the key itself."""
    if key.partition(".")[0] not in ("launcher", "sweeper", "job", "run", "sweep"):
        return None
    instead = instead_of_key(key, value)
    if instead is None or instead.startswith((NONE, f"write {key}=")):
        return None
    return instead


def instead_of_flag(flag: str) -> str | None:
    """The same for a flag: `write experiment=NAME`. None for a flag that is not Hydra's, or that is taken here."""
    entry = next((entry for names, entry in FLAGS.items() if flag in names), None)
    return entry if entry is None or entry.startswith(NONE) else f"write {entry}"
