"""The probe: one forward and backward pass of a replica on a fixed sample, with the recurrence looked into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.batch import Batch
from rnnlstm.models import Replicas
from rnnlstm.probes.flow import flow_by_lag, half_life, last_scored
from rnnlstm.probes.gates import by_kind, gate_values
from rnnlstm.recurrence import Trace
from rnnlstm.tasks import Task

#: Lags whose gradient is logged as a number.
LAGS = (1, 10, 100)
#: Sequences of the sample: enough for a norm, few enough to cost little.
SEQUENCES = 16


@dataclass(frozen=True)
class Observation:
    """What a probe saw. Every tensor is detached."""

    outputs: Tensor  #: (T, B, O)
    flow: dict[str, Tensor]  #: by state, (L, K): gradient norms by lag
    gates: list[dict[str, Tensor]]  #: by layer and gate, (T, B, H)


class Probe:
    """Looks at a replica on `batch`, the first of its seed's stream `probe`: the same at every look."""

    def __init__(self, task: Task, seed: int, batch_size: int, device: torch.device) -> None:
        self.task = task
        self.batch: Batch = task.sample(seed, 0, "probe", min(batch_size, SEQUENCES)).to(device)
        self._last = last_scored(self.batch)

    def look(self, model: Replicas, replica: int) -> Observation:
        """Forward and backward on weights that no gradient reaches: training can't notice."""
        trace = Trace()
        outputs = model.watched(replica, self.batch.inputs, trace)
        self.task.loss(outputs, self._last).backward()
        names = model.shell.recurrence.cell.state_names
        flow = {name: flow_by_lag(trace.rows(name), self._last.mask) for name in names}
        return Observation(outputs.detach(), flow, [trace.gates(layer) for layer in range(trace.layers)])

    def scalars(self, seen: Observation) -> dict[str, float]:
        """What is logged of an observation, by tag."""
        return dict(self._scalars(seen))

    def _scalars(self, seen: Observation) -> Iterator[tuple[str, float]]:
        several = len(seen.gates) > 1
        for layer, gates in enumerate(seen.gates):
            suffix = f"/layer_{layer}" if several else ""
            for state, norms in seen.flow.items():
                for lag in LAGS:
                    if lag < norms.shape[1]:
                        yield f"flow/{state}_lag_{lag}{suffix}", norms[layer, lag].item()
                name = "half_life" if state == "hidden" else f"{state}_half_life"
                yield f"flow/{name}{suffix}", half_life(norms[layer])
            for gate, activations in gates.items():
                for what, value in gate_values(activations).items():
                    yield f"gate/{gate}_{what}{suffix}", value
                for kind, value in by_kind(activations, self.batch, self.task.kind_names).items():
                    yield f"gate_by_kind/{gate}_{kind}{suffix}", value
