"""The plan of a run: task, cell, network, backend and device, made from a checked configuration.

Every mistake that can be found without training is found here, so that a sweep is refused as a whole
before its first job starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from rnnlstm.cells import CELLS, Cell, check_cell, make_cell, noisy, operated
from rnnlstm.config.errors import ConfigError, OptionError, enough_memory, show
from rnnlstm.config.options import field_names
from rnnlstm.config.schema import Config, NetworkOptions, require_keys
from rnnlstm.models import Cost, Network, Sizes, network_cost
from rnnlstm.recurrence import choose_backend
from rnnlstm.recurrence.fused import has_tape
from rnnlstm.recurrence.fused.engine import require_engine
from rnnlstm.tasks import TASKS, Task, make_task
from rnnlstm.tasks.random_streams import RandomStream
from rnnlstm.training.batches import check_drawn_on_device
from rnnlstm.training.curriculum import Curriculum


@dataclass(frozen=True)
class Plan:
    """What a configuration asks for. `variations` are further tasks to evaluate on, by the prefix of their tags."""

    config: Config
    task: Task
    cell: Cell
    backend: str
    device: torch.device
    dtype: torch.dtype
    variations: Mapping[str, Task]

    def network(self, seed: int) -> Network:
        """The network of the replica with this seed, freshly initialised: a pure function of both."""
        with torch.device("cpu"), enough_memory(self.sizes):
            return Network(
                self.cell,
                self._sizes(self.config.network.hidden_size),
                max_lag=self.task.sequence_length,
                generator=RandomStream(seed, "init").torch_generator(),
                backend=self.backend,
                dtype=self.dtype,
            )

    @property
    def sizes(self) -> str:
        """The keys that memory depends on, for a message."""
        config = self.config
        keys: dict[str, object] = {
            "model.hidden_size": config.network.hidden_size,
            "model.num_layers": config.network.num_layers,
        }
        keys |= {"task.length": config.task.get("length"), "train.batch_size": config.train.batch_size}
        keys |= {"seeds": config.seeds}
        return ", ".join(f"{key}={value}" for key, value in keys.items() if value is not None)

    def _sizes(self, hidden_size: int) -> Sizes:
        task, options = self.task, self.config.network
        of_task = (task.num_tokens, task.input_size, task.output_size)
        return Sizes(*of_task, hidden_size, options.num_layers, options.embedding_size)

    @cached_property
    def cost(self) -> Cost:
        return self.cost_of(self.config.network.hidden_size)

    def cost_of(self, hidden_size: int) -> Cost:
        """The cost of one replica with another hidden size."""
        return network_cost(self.cell, self._sizes(hidden_size), self.dtype.itemsize)


def make_plan(config: Config) -> Plan:
    """Make and check everything that the configuration names. Raises: ConfigError, one line: key, value and rule."""
    task_name, task_options = _split(config.task)
    cell_name, cell_options = _split(config.cell)
    with _named_under("task"):
        require_keys(task_options, field_names(TASKS[task_name]), "task.")
        task = make_task(task_name, **task_options)
    with _named_under("model"):
        require_keys(cell_options, field_names(CELLS[cell_name]), "model.", also=field_names(NetworkOptions))
        cell = make_cell(cell_name, **cell_options)
        if not type(cell).__module__.startswith("rnnlstm."):  # the user's own
            check_cell(cell)
        cell = noisy(cell, config.network.recurrent_dropout, config.network.zoneout)
    with _named_under("curriculum"):
        Curriculum(task, config.curriculum, 1)
    with _named_under("surgery"):
        cell = operated(cell, config.surgery)
    with _named_under("model"):
        backend = choose_backend(cell, config.network.backend)
    if config.precision != "full" and backend == "torch":
        rule = "PyTorch's modules can't keep c in float32 beside it; model.backend=fused or reference do"
        raise OptionError("precision", config.precision, rule)
    if config.data == "device":
        check_drawn_on_device(task)
    device, dtype = _device(config.device), getattr(torch, config.dtype)
    if backend == "fused" and has_tape(cell):
        require_engine(device, dtype, config.precision)
    return Plan(
        config=config,
        task=task,
        cell=cell,
        backend=backend,
        device=device,
        dtype=dtype,
        variations=_variations(config, task),
    )


def _split(section: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return section["name"], {key: value for key, value in section.items() if key != "name"}


@contextmanager
def _named_under(section: str) -> Iterator[None]:
    try:
        yield
    except OptionError as error:
        raise (
            error if error.key == section or error.key.startswith(f"{section}.") else error.under(section)
        ) from None


def _variations(config: Config, task: Task) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for key, prefix, values in (
        ("length", "eval_T", config.eval.lengths),
        ("decoys", "eval_decoys", config.eval.decoys),
    ):
        for value in values:
            try:
                varied = task.vary(**{key: value})
            except ConfigError as error:
                name = "lengths" if key == "length" else key
                raise ConfigError(f"eval.{name}={show(list(values))}: {error}") from None
            tasks[f"{prefix}{value:g}"] = varied
    return tasks


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError("device", name, f"this machine shows PyTorch {torch.cuda.device_count()} CUDA devices")
    return device
