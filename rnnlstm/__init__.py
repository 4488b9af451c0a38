"""Why a plain RNN forgets and what makes an LSTM remember, by measurement.

`import rnnlstm` is light: a name is imported, and torch with it, when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rnnlstm.config import __version__ as __version__

if TYPE_CHECKING:
    from rnnlstm.api import load_metrics as load_metrics
    from rnnlstm.api import load_model as load_model
    from rnnlstm.api import load_runs as load_runs
    from rnnlstm.api import run as run
    from rnnlstm.cells import Cell as Cell
    from rnnlstm.cells import register_cell as register_cell
    from rnnlstm.config.errors import ConfigError as ConfigError
    from rnnlstm.config.options import option as option
    from rnnlstm.recurrence import GRU as GRU
    from rnnlstm.recurrence import LSTM as LSTM
    from rnnlstm.recurrence import RNN as RNN
    from rnnlstm.recurrence import record_gradients as record_gradients
    from rnnlstm.tasks import Task as Task
    from rnnlstm.tasks import make_task as make_task
    from rnnlstm.tasks import register_task as register_task
    from rnnlstm.tasks.batch import Batch as Batch
    from rnnlstm.training.clip import ClipEvent as ClipEvent
    from rnnlstm.training.clip import clip_gradients as clip_gradients

#: Public names, by the module that has them.
_NAMES = {
    "rnnlstm.api": ["load_metrics", "load_model", "load_runs", "run"],
    "rnnlstm.cells": ["Cell", "register_cell"],
    "rnnlstm.config.errors": ["ConfigError"],
    "rnnlstm.config.options": ["option"],
    "rnnlstm.recurrence": ["GRU", "LSTM", "RNN", "record_gradients"],
    "rnnlstm.tasks": ["Task", "make_task", "register_task"],
    "rnnlstm.tasks.batch": ["Batch"],
    "rnnlstm.training.clip": ["ClipEvent", "clip_gradients"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnnlstm' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
