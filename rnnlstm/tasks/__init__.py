"""Tasks: synthetic sequences whose answer lies far back, one file each; `task.py` is the contract.

Every module of this folder is imported, which registers its tasks.
"""

import importlib
import pkgutil

from rnnlstm.tasks.task import TASKS, Task, make_task, register_task

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["TASKS", "Task", "make_task", "register_task"]
