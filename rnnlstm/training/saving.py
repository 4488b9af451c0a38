"""When a run saves its state, on what it was computed, and how the trainer takes one back."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch

from rnnlstm.exits import CheckpointError
from rnnlstm.sections import CheckpointOptions
from rnnlstm.training.device import computed_on
from rnnlstm.training.step import Trainer

LOG = logging.getLogger("rnnlstm")


class Cadence:
    """By updates and by seconds, whichever comes first."""

    def __init__(self, options: CheckpointOptions) -> None:
        self._options = options
        self.now(0)

    def now(self, step: int) -> None:
        """The state after this update has been saved."""
        self._step, self._time = step, time.monotonic()

    def due(self, step: int) -> bool:
        seconds = time.monotonic() - self._time
        return step - self._step >= self._options.every or seconds >= self._options.seconds


def machine(device: torch.device) -> dict[str, Any]:
    """What decides about the last bit of a result, beside the program itself."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        **computed_on(device),
    }


def restore_trainer(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Raises: CheckpointError if the state is of another network, optimiser or seeds."""
    try:
        if list(state["seeds"]) != trainer.seeds:
            raise ValueError(f"it is of seeds {state['seeds']}")
        _require_whole(state)
        trainer.restore(state["trainer"])
        then, now = state["machine"], machine(trainer.plan.device)
        changed = {key: (then.get(key), now.get(key)) for key in {**then, **now} if then.get(key) != now.get(key)}
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"the checkpoint does not fit this run: {reason}") from None
    if changed:
        what = ", ".join(f"{key} {before} → {after}" for key, (before, after) in changed.items())
        LOG.warning("going on under other conditions (%s): the last bits of results may differ", what)


#: What a state holds beside the trainer's, and what it holds of each replica.
PARTS = {"step": int, "replicas": list, "instruments": list, "clock": dict, "logged": list, "machine": dict}
REPLICA = ("status", "reason", "updates", "fired", "steps_to_solve", "speed", "scores", "norms", "window", "largest")


def _require_whole(state: Mapping[str, Any]) -> None:
    """Raises: KeyError, ValueError."""
    for name, kind in PARTS.items():
        if not isinstance(state[name], kind):
            raise ValueError(f"its {name} is a {type(state[name]).__name__}")
    if not len(state["replicas"]) == len(state["instruments"]) == len(state["seeds"]):
        raise ValueError("it has fewer replicas than seeds")
    for replica in state["replicas"]:
        for name in (*REPLICA, "lengths"):
            replica[name]
