"""TensorBoard's events: a view of the record.

Events are written as they come, without a thread and a queue for each replica: one event a step holds all
its tags. They are written beside those that are there, and take their place when `publish` is called: a view that is
built anew replaces the old one whole.

A view that breaks (an unwritable folder, a full disk) is gone, and training goes on. There is one warning for all
views of a run, since they tend to break together.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from rnnlstm.options import printable
from rnnlstm.record import tensorboard_plugins as plugins

LOG = logging.getLogger("rnnlstm")
BESIDE = ".events.new"  # no name that TensorBoard would read


class _Warned:
    """Shared by the views of one run folder that are open."""

    already = False


_RUNS: WeakValueDictionary[Path, _Warned] = WeakValueDictionary()


class TensorBoardView:
    """Writes events into `folder`, which is made, a folder of a run.

    `strict`: an OSError is raised, and not a warning.
    """

    def __init__(self, folder: Path, strict: bool = False) -> None:
        self.folder, self._strict = folder, strict
        self._beside, self._published = folder / BESIDE, False
        self._warned = _RUNS.setdefault(folder.parent, _Warned())
        self._described: set[str] = set()
        self._writer: RecordWriter | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._beside.unlink(missing_ok=True)
            self._writer = RecordWriter(self._beside.open("xb"))
        except OSError as error:
            self._give_up(error)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def publish(self) -> None:
        """Take the place of whatever events are in the folder; further ones are then seen as they come.

        The new file is there before the old ones go: killed in between, both are, until this is done again.
        """
        if self._writer is None or self._published:
            return
        path = self.folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        try:
            old = [place for place in self.folder.glob("*tfevents*") if place.is_symlink() or not place.is_dir()]
            self._beside.replace(path)
            self._published = True
            for other in old:
                if other != path:
                    other.unlink()
        except OSError as error:
            self._give_up(error)

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
        """Events that were never published are gone."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)
        self._writer = None
        self._drop_beside()

    def _write(self, event: Event) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as error:
            self._give_up(error)
        except BaseException:
            if not self._published:
                self.close()
            raise

    def _give_up(self, error: OSError) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):  # what could not be written is tried once more
                self._writer.close()
        self._writer = None
        self._drop_beside()
        if self._strict:
            raise error
        if not self._warned.already:
            self._warned.already = True
            run = printable(str(self.folder.parent))
            LOG.warning(
                "%s: no TensorBoard events from here on (%s: %s); python -m rnnlstm.events writes them anew",
                run, self.folder.name, error.strerror or error,
            )  # fmt: skip

    def _drop_beside(self) -> None:
        if not self._published:
            with contextlib.suppress(OSError):
                self._beside.unlink(missing_ok=True)
