"""The process that speaks Hydra: it takes a request on standard input, and has Hydra's launcher plugin do the rest.

Its own process, so that plugins, their engines and what they print stay out of the command, which watches the
letterbox meanwhile and can end this one at any time. Beside composition.py the one module that imports Hydra.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict

from rnnlstm.jobs.launchers.letterbox import Letter, Letterbox
from rnnlstm.jobs.launchers.work import Work

PLUGINS = {"local": "joblib", "slurm": "submitit_slurm", "ray": "ray"}
BRIDGE = "launcher"  #: under which name its own failure is posted


def main() -> int:
    """Launch what standard input asks for, until it ends or its writer has gone."""
    request = json.loads(sys.stdin.readline())
    box = Letterbox(Path(request["letterbox"]))
    threading.Thread(target=_follow, args=(box, request["launcher"]), daemon=True).start()
    try:
        launch(box, **request)
    except Exception as error:
        box.post(BRIDGE, Letter.of(error))
        return 1
    return 0


def launch(
    box: Letterbox,
    launcher: str,
    values: dict[str, Any],
    units: Sequence[str],
    batch: int,
    work: dict[str, Any],
    letterbox: str,
) -> None:
    """Have the plugin `launcher`, with its parameters `values`, carry out the packed jobs `units`, in batches beside
    each other. Returns when all have ended. Raises: what the plugin raises.
    """
    batches = [list(units[i : i + batch]) for i in range(0, len(units), batch)]
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            plugin = _plugin(box, launcher, _for_batch(values, number), Work(**{**work, "path": tuple(work["path"])}))
            plugin.launch([[f"+jobs='{unit}'"] for unit in batches[number]], initial_job_idx=number * batch)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1, len(batches))]
    with initialize(config_path=None, version_base="1.3", job_name="rnnlstm"):
        for thread in threads:
            thread.start()
        run(0)
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _plugin(box: Letterbox, launcher: str, values: dict[str, Any], work: Work) -> Any:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    overrides = [
        f"hydra/launcher={PLUGINS[launcher]}",
        f"hydra.sweep.dir='{box.folder}'",
        "hydra.sweep.subdir=.",
        "hydra.output_subdir=null",
        "hydra.job.name=rnnlstm",
        "hydra/hydra_logging=none",
        "hydra/job_logging=none",
    ]
    config = hydra.compose_config(None, overrides, run_mode=RunMode.MULTIRUN)
    with open_dict(config):
        config.hydra.launcher = OmegaConf.merge(config.hydra.launcher, values)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=work, config=config)


def _for_batch(values: dict[str, Any], number: int) -> dict[str, Any]:
    folder = values.get("submitit_folder")
    return {**values, "submitit_folder": f"{folder}/{number}"} if folder else values


def _follow(box: Letterbox, launcher: str) -> None:
    """Once the command has gone without a word: jobs save and end; those that Slurm has are Slurm's, and go on."""
    if not sys.stdin.read(1) and launcher != "slurm":
        box.ask_to_stop(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
