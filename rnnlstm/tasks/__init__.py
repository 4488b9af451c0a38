"""Tasks: synthetic sequences whose answer lies far back. One file each; see `task.py` for the contract.

Every module of this package is imported, so that a task is registered by being there.
"""

import importlib
import pkgutil

from rnnlstm.tasks.task import TASKS, Task, make_task, register_task

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["TASKS", "Task", "make_task", "register_task"]
