"""Tasks: synthetic sequences whose answer lies far back. One file each; see `task.py` for the contract."""

from rnnlstm.tasks.adding import Adding
from rnnlstm.tasks.copy_memory import CopyMemory
from rnnlstm.tasks.keyword_recall import KeywordRecall
from rnnlstm.tasks.task import TASKS, Task, make_task, register_task

__all__ = ["TASKS", "Adding", "CopyMemory", "KeywordRecall", "Task", "make_task", "register_task"]
