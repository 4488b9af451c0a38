"""TensorBoard's events: a view of the record.

Events are written as they come, without a thread and a queue for each replica: one event a step holds all
its tags. A view that breaks (an unwritable folder, a full disk) warns once and is gone; training goes on.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from rnnlstm.record import tensorboard_plugins as plugins


class TensorBoardView:
    """Writes one run's events into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._described: set[str] = set()
        self._writer: RecordWriter | None = None
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        try:
            self._writer = RecordWriter((folder / name).open("ab"))
        except OSError as error:
            self._give_up(error)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.add(step, [plugins.scalar(tag, value, tag in self._described) for tag, value in values.items()])
        self._described.update(values)

    def image(self, step: int, tag: str, png: bytes, width: int, height: int) -> None:
        self.add(step, [plugins.image(tag, png, width, height)])

    def text(self, step: int, tag: str, markdown: str) -> None:
        self.add(step, [plugins.text(tag, markdown)])

    def add(self, step: int, values: Sequence[Summary.Value]) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)
            self._writer = None

    def _write(self, event: Event) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        warnings.warn(f"no TensorBoard events in {self.folder} from here on: {error.strerror}", stacklevel=2)
