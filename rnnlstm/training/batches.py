"""Training batches of R replicas, on the device that trains: the same numbers on every device.

They are drawn on the CPU (`RandomStream`), those of all replicas and of a few updates at once where the task allows
it; for a GPU those of the next update are drawn and sent while it is still at work on this one. With `data=device`
they are drawn where they are used (`CounterStream`), those of all replicas at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rnnlstm.config.errors import OptionError
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.random_streams import CounterStream, PhiloxKeys

#: Updates whose batches are drawn together, and steps of all their sequences, at most. Computing with a small tensor
#: costs the same whatever it holds; from 32,768 numbers on PyTorch splits the work among threads.
MOST_STEPS, AT_ONCE = 8, 32_768


class TrainingBatches:
    """The batches of the replicas with these seeds, `batch_size` sequences each."""

    def __init__(self, seeds: Sequence[int], batch_size: int, device: torch.device, data: str = "cpu") -> None:
        self._seeds, self._batch_size, self._device = list(seeds), batch_size, device
        self._waiting: tuple[list[Task], int, list[Batch]] | None = None
        self._on_device = OnDevice(seeds, batch_size, device) if data == "device" else None
        self._latest: tuple[Task, int] | None = None  # what `_drawn` was asked for
        self._steps, self._ahead = 1, list[list[Batch]]()  # updates drawn at once, and what is left of them

    def take(self, tasks: list[Task], step: int) -> list[Batch]:
        """Each replica's batch for update number `step`."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[:2] == (tasks, step):
            return waiting[2]
        return self._draw(tasks, step)

    def prefetch(self, tasks: Callable[[int], list[Task]], step: int) -> None:
        """Draw the batches of update `step` ahead, unless the CPU trains.

        `tasks` gives each replica's task at a step. If a curriculum grows meanwhile, `take` draws again.
        """
        if self._device.type != "cpu":
            each = tasks(step)
            self._waiting = (each, step, self._draw(each, step))

    def _draw(self, tasks: list[Task], step: int) -> list[Batch]:
        if self._on_device is not None:
            return self._on_device.draw(tasks, step)
        if all(task == tasks[0] for task in tasks[1:]):
            return sent(self._drawn(tasks[0], step), self._device)
        drawn = zip(tasks, self._seeds, strict=True)
        return sent([task.sample(seed, step, batch_size=self._batch_size) for task, seed in drawn], self._device)

    def _drawn(self, task: Task, step: int) -> list[Batch]:
        """Each replica's batch on the CPU; small ones are drawn with those of the next updates."""
        goes_on, self._latest = self._latest == (task, step - 1), (task, step)
        if not (goes_on and self._ahead):
            self._steps = self._steps_at_once(task) if goes_on else 1
            keys = [(seed, step + k) for k in range(self._steps) for seed in self._seeds]
            batches = task.sample_together(keys, "train", self._batch_size)
            if task.scored_alike:
                scored = batches[0].scored
                batches = [batch.knowing(scored) for batch in batches]
            replicas = len(self._seeds)
            self._ahead = [batches[k : k + replicas] for k in range(0, len(batches), replicas)]
        return self._ahead.pop(0)

    def _steps_at_once(self, task: Task) -> int:
        """Not more than twice as many as before, as a curriculum may soon give another task."""
        if not task.drawn_together:
            return 1
        room = AT_ONCE // (len(self._seeds) * self._batch_size * task.sequence_length)
        return max(1, min(2 * self._steps, MOST_STEPS, room))


class OnDevice:
    """Draws batches on the device: one draw if all replicas have the same task, else one each."""

    def __init__(self, seeds: Sequence[int], batch_size: int, device: torch.device) -> None:
        self._batch_size, self._device = batch_size, device
        self._counters = PhiloxKeys.of(seeds, batch_size, device)
        self._scored: dict[Task, Tensor] = {}  # scored positions of tasks that score every sequence alike

    def draw(self, tasks: Sequence[Task], step: int) -> list[Batch]:
        if all(task == tasks[0] for task in tasks[1:]):
            return self._drawn(tasks[0], self._counters, len(tasks), step)
        each = [self._counters.sequences(self._of(r)) for r in range(len(tasks))]
        return [self._drawn(task, counters, 1, step)[0] for task, counters in zip(tasks, each, strict=True)]

    def _of(self, replica: int) -> slice:
        """A replica's sequences among those of all."""
        return slice(replica * self._batch_size, (replica + 1) * self._batch_size)

    def _drawn(self, task: Task, counters: PhiloxKeys, replicas: int, step: int) -> list[Batch]:
        with torch.device(self._device):
            whole = task.generate(CounterStream(counters, "train", step), replicas * self._batch_size)
        parts = [whole.sequences(self._of(r)) for r in range(replicas)]
        if not task.scored_alike:
            return parts
        if task not in self._scored:
            self._scored[task] = parts[0].scored
        return [part.knowing(self._scored[task]) for part in parts]


def check_drawn_on_device(task: Task) -> None:
    """Draw once on PyTorch's `meta` device, which computes no numbers: tests the task without the device.

    Raises: OptionError if the task can't be drawn on a device.
    """
    nowhere, sequences = torch.device("meta"), 67  # no other dimension of what a task draws is likely to have 67
    try:
        hash(task)
        with nowhere:
            task.generate(CounterStream(PhiloxKeys.of([0], sequences, nowhere), "train", 1), sequences)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise OptionError("data", "device", f"the {task.name} task is drawn on the CPU only ({reason})") from None


def sent(batches: Sequence[Batch], device: torch.device) -> list[Batch]:
    """The batches, copied to `device`; if all have one shape, each field is one copy for all replicas."""
    if device.type == "cpu":
        return list(batches)
    fields = [batch.tensors() for batch in batches]
    if len({_shapes(each) for each in fields}) > 1:
        return [batch.to(device) for batch in batches]
    stacked = {name: _send(torch.stack([each[name] for each in fields]), device).unbind(0) for name in fields[0]}
    return [Batch.of({name: each[r] for name, each in stacked.items()}) for r in range(len(batches))]


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Start the copy without waiting for its end, which needs pinned memory."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _shapes(tensors: dict[str, Tensor]) -> tuple[tuple[str, torch.Size], ...]:
    return tuple((name, tensor.shape) for name, tensor in tensors.items())
