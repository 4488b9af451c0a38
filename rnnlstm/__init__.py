"""Why a plain RNN forgets and what makes an LSTM remember, by measurement.

`import rnnlstm` is light: a name is imported, and torch with it, when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnlstm.api import run
    from rnnlstm.cells import Cell, register_cell
    from rnnlstm.config.errors import ConfigError
    from rnnlstm.config.options import option
    from rnnlstm.recurrence import GRU, LSTM, RNN, record_gradients
    from rnnlstm.tasks import Task, make_task, register_task
    from rnnlstm.tasks.batch import Batch
    from rnnlstm.training.clip import ClipEvent, clip_gradients

_HOMES = {
    "GRU": "rnnlstm.recurrence",
    "LSTM": "rnnlstm.recurrence",
    "RNN": "rnnlstm.recurrence",
    "Batch": "rnnlstm.tasks.batch",
    "Cell": "rnnlstm.cells",
    "ClipEvent": "rnnlstm.training.clip",
    "ConfigError": "rnnlstm.config.errors",
    "Task": "rnnlstm.tasks",
    "clip_gradients": "rnnlstm.training.clip",
    "make_task": "rnnlstm.tasks",
    "option": "rnnlstm.config.options",
    "record_gradients": "rnnlstm.recurrence",
    "register_cell": "rnnlstm.cells",
    "register_task": "rnnlstm.tasks",
    "run": "rnnlstm.api",
}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Batch",
    "Cell",
    "ClipEvent",
    "ConfigError",
    "Task",
    "clip_gradients",
    "make_task",
    "option",
    "record_gradients",
    "register_cell",
    "register_task",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnnlstm' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
