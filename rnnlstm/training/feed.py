"""Training batches of R replicas, on the device that trains. The numbers are the same on every device.

They are drawn on the CPU (`random_stream.py`). For a GPU those of the next update are drawn and sent while it is
still at work on this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rnnlstm.batch import Batch
from rnnlstm.tasks import Task


class Feed:
    """For the replicas with these seeds, `batch_size` sequences each."""

    def __init__(self, seeds: Sequence[int], batch_size: int, device: torch.device) -> None:
        self._seeds, self._batch_size, self._device = list(seeds), batch_size, device
        self._waiting: tuple[list[Task], int, list[Batch]] | None = None

    def take(self, tasks: list[Task], step: int) -> list[Batch]:
        """Each replica's batch for update number `step`."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[:2] == (tasks, step):
            return waiting[2]
        return self._draw(tasks, step)

    def ahead(self, tasks: Callable[[int], list[Task]], step: int) -> None:
        """Draw what `take` will probably be asked for next, unless the CPU trains. `tasks` gives those of an update.
        (A curriculum may have grown by then.)"""
        if self._device.type != "cpu":
            found = tasks(step)
            self._waiting = (found, step, self._draw(found, step))

    def _draw(self, tasks: list[Task], step: int) -> list[Batch]:
        drawn = zip(tasks, self._seeds, strict=True)
        return sent([task.sample(seed, step, batch_size=self._batch_size) for task, seed in drawn], self._device)


def sent(batches: Sequence[Batch], device: torch.device) -> list[Batch]:
    """The batches on `device`. Where they are of one shape, a field of all of them travels as one."""
    if device.type == "cpu":
        return list(batches)
    fields = [batch.tensors() for batch in batches]
    if len({_shapes(each) for each in fields}) > 1:
        return [batch.to(device) for batch in batches]
    stacked = {name: _send(torch.stack([each[name] for each in fields]), device).unbind(0) for name in fields[0]}
    return [Batch.of({name: each[r] for name, each in stacked.items()}) for r in range(len(batches))]


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Without waiting for it to arrive, which only pinned memory allows."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _shapes(tensors: dict[str, Tensor]) -> tuple[tuple[str, torch.Size], ...]:
    return tuple((name, tensor.shape) for name, tensor in tensors.items())
