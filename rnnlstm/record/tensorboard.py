"""TensorBoard's events: a view of the record.

Events are written as they come, without a thread and a queue for each replica: one event a step holds all
its tags. They are written beside those that are there, and take their place when `publish` is called: a view that is
built again replaces the old one whole.

A view that breaks (an unwritable folder, a full disk) is closed, and training continues. There is one warning for all
views of a run, since they tend to break together.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_BLOB_SEQUENCE, DATA_CLASS_SCALAR, Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from rnnlstm.config.errors import printable
from rnnlstm.record.glossary import FIRST, explain

LOG = logging.getLogger("rnnlstm")
LARGEST_FIRST = 1_048_576  # bytes of an event that is replaced
BESIDE = ".events.new"  # no name that TensorBoard would read
#: What is written here, and copies of it: `publish` replaces these files.
EVENTS = re.compile(r"events\.out\.tfevents\.\d+\..+", re.ASCII)


def replace_first(folder: Path, value: Summary.Value) -> None:
    """Give the events in `folder` a new value for the tag that they begin with, if it differs.

    The file keeps its name, so that a TensorBoard that has it open sees no events twice. Raises: OSError.
    """
    for path in folder.glob("events.*"):
        if not EVENTS.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            _next_event(file)  # the version of the format
            start, event = file.tell(), _next_event(file)
            values = event.summary.value
            if len(values) != 1 or values[0].tag != value.tag or values[0] == value:
                continue
            rest = file.read()
            file.seek(0)
            before = file.read(start)
        values[0].CopyFrom(value)
        beside = folder / BESIDE
        with contextlib.closing(RecordWriter(beside.open("wb"))) as writer:
            writer.write(event.SerializeToString())
        beside.write_bytes(before + beside.read_bytes() + rest)
        beside.replace(path)


def _next_event(file: BinaryIO) -> Event:
    """The next event of a file; an empty one where there is none."""
    size = int.from_bytes(file.read(12)[:8], "little")  # then comes a checksum
    try:
        event = Event.FromString(file.read(min(size, LARGEST_FIRST)))
    except DecodeError:
        event = Event()
    file.read(4)  # a checksum
    return event


class _Warned:
    """Whether a warning was given; shared by the open views of one run folder."""

    already = False


_RUNS: WeakValueDictionary[Path, _Warned] = WeakValueDictionary()


class TensorBoardView:
    """Writes events into `folder`, a folder in a run folder; it is made if missing.

    `strict`: an OSError is raised, and not a warning. `describe`: scalars get the glossary's descriptions.
    TensorBoard converts the description of every tag of every run when a page asks for the tags, in half a
    millisecond each, so one view of a run has them.
    """

    def __init__(self, folder: Path, strict: bool = False, describe: bool = True) -> None:
        self.folder, self._strict, self._describe = folder, strict, describe
        self._beside, self._published = folder / BESIDE, False
        self._warned = _RUNS.setdefault(folder.parent, _Warned())
        self._begun: set[str] = set()  # tags of scalars that have a first value
        self._writer: RecordWriter | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._beside.unlink(missing_ok=True)
            self._writer = RecordWriter(self._beside.open("xb"))
        except OSError as error:
            self._give_up(error)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def publish(self) -> None:
        """Replace the events in the folder by these; later ones then show at once.

        The new file is there before the old ones go: killed in between, both are, until this is done again.
        """
        if self._writer is None or self._published:
            return
        path = self.folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        try:
            old = [place for place in self.folder.glob("events.*") if EVENTS.fullmatch(place.name)]
            self._beside.replace(path)
            self._published = True
            for other in old:
                if other != path and (other.is_symlink() or not other.is_dir()):
                    other.unlink()
        except OSError as error:
            self._give_up(error)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        new = {tag: self._describe for tag in values if tag not in self._begun}
        self.add(step, [scalar(tag, value, new.get(tag)) for tag, value in values.items()])
        self._begun.update(new)

    def image(self, step: int, tag: str, png: bytes, width: int, height: int) -> None:
        self.add(step, [image(tag, png, width, height)])

    def text(self, step: int, tag: str, markdown: str) -> None:
        self.add(step, [text(tag, markdown)])

    def add(self, step: int, values: Sequence[Summary.Value]) -> None:
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file. Events that were never published are deleted."""
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
            with contextlib.suppress(OSError):  # closing writes the rest, and may fail again
                self._writer.close()
        self._writer = None
        self._drop_beside()
        if self._strict:
            raise error
        if not self._warned.already:
            self._warned.already = True
            run = printable(str(self.folder.parent))
            LOG.warning(
                "%s: no TensorBoard events from here on (%s: %s); python -m rnnlstm.events writes them again",
                run, self.folder.name, error.strerror or error,
            )  # fmt: skip

    def _drop_beside(self) -> None:
        if not self._published:
            with contextlib.suppress(OSError):
                self._beside.unlink(missing_ok=True)


EVERY_TASK = ("eval/loss", "clip/rate")  #: metrics of every task


def description(tag: str) -> str:
    """A tag's description in TensorBoard: meaning and unit, and whether it is one of those that matter first."""
    entry = explain(tag)
    first = " Look here first." if tag in FIRST else ""
    return f"{entry.meaning} [{entry.unit}]{first}" if entry else ""


def scalar(tag: str, value: float, described: bool | None) -> Summary.Value:
    """One number. `described`: for a tag's first value, with which its description comes, whether it has one; else
    None."""
    if described is None:
        return Summary.Value(tag=tag, simple_value=value)
    words = description(tag) if described else ""
    metadata = scalar_metadata.create_summary_metadata(display_name=tag, description=words)
    metadata.data_class = DATA_CLASS_SCALAR  # without it TensorBoard's data server drops the description
    return Summary.Value(tag=tag, simple_value=value, metadata=metadata)


def image(tag: str, png: bytes, width: int, height: int) -> Summary.Value:
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    metadata = image_metadata.create_summary_metadata(display_name=tag, description=description(tag))
    metadata.data_class = DATA_CLASS_BLOB_SEQUENCE
    return Summary.Value(tag=tag, image=picture, metadata=metadata)


def text(tag: str, markdown: str) -> Summary.Value:
    metadata = text_metadata.create_summary_metadata(display_name=tag, description=description(tag))
    return Summary.Value(tag=tag, metadata=metadata, tensor=_strings([markdown.encode()]))


def experiment(columns: Mapping[str, bool], metrics: Sequence[str]) -> Summary.Value:
    """The columns of the HParams table: keys, with whether they are ticked, and metrics (tags).

    Metrics that every task has are first: five are shown before one ticks others.
    """
    data = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name=printable(key), display_name=printable(key).removesuffix(".name"), differs=shown)
            for key, shown in columns.items()
        ],
        metric_infos=[_metric(tag) for tag in sorted(metrics, key=lambda tag: tag not in EVERY_TASK)],
    )
    return _hparams(hparams_metadata.EXPERIMENT_TAG, plugin_data_pb2.HParamsPluginData(experiment=data))


def session_start(hparams: Mapping[str, Any], group: str) -> Summary.Value:
    """A seed in the HParams table: all sessions (seeds) of a `group` are averaged into one row."""
    start = plugin_data_pb2.SessionStartInfo(group_name=printable(group), start_time_secs=time.time())
    for key, value in hparams.items():
        field = start.hparams[printable(key)]
        if isinstance(value, bool):
            field.bool_value = value
        elif isinstance(value, int | float):
            field.number_value = value
        else:
            field.string_value = printable(str(value))
    return _hparams(
        hparams_metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start)
    )


def session_end(status: str) -> Summary.Value:
    codes = {"done": api_pb2.STATUS_SUCCESS, "running": api_pb2.STATUS_RUNNING}
    end = plugin_data_pb2.SessionEndInfo(status=codes.get(status, api_pb2.STATUS_FAILURE), end_time_secs=time.time())
    return _hparams(hparams_metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end))


def layout(categories: Mapping[str, tuple[Mapping[str, Sequence[str]], Mapping[str, str]]]) -> Summary.Value:
    """Custom scalars: of each category, by title, charts of a band (tags of value, low and high), then charts of tags
    that fit a pattern."""
    proto = layout_pb2.Layout(
        category=[
            layout_pb2.Category(title=title, chart=_charts(bands, lines))
            for title, (bands, lines) in categories.items()
        ]
    )
    return Summary.Value(
        tag=layout_metadata.CONFIG_SUMMARY_TAG,
        metadata=layout_metadata.create_summary_metadata(),
        tensor=_strings([proto.SerializeToString()], scalar=True),
    )


def _charts(bands: Mapping[str, Sequence[str]], lines: Mapping[str, str]) -> list[layout_pb2.Chart]:
    series = layout_pb2.MarginChartContent.Series
    charts = [
        layout_pb2.Chart(
            title=title, margin=layout_pb2.MarginChartContent(series=[series(value=value, lower=low, upper=high)])
        )
        for title, (value, low, high) in bands.items()
    ]
    charts += [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=[pattern]))
        for title, pattern in lines.items()
    ]
    charts.reverse()  # the page shows a category's last chart first
    return charts


def _metric(tag: str) -> api_pb2.MetricInfo:
    return api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=tag, description=description(tag))


def _hparams(tag: str, data: plugin_data_pb2.HParamsPluginData) -> Summary.Value:
    metadata = hparams_metadata.create_summary_metadata(data)
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)


def _strings(values: list[bytes], scalar: bool = False) -> TensorProto:
    shape = TensorShapeProto() if scalar else TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(values))])
    return TensorProto(dtype=DT_STRING, string_val=values, tensor_shape=shape)
