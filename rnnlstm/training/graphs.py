"""CUDA graphs: the training step's forward and backward pass, recorded once for a shape, then replayed as a whole.

A pass through time is thousands of small operations, and launching one takes longer than the GPU needs for it. A
recording reads its batches from buffers of its own and leaves its results in others; both are copied. Weights are
read where they are. Clipping, the finite check and the optimiser's step stay outside. `RNNLSTM_GRAPHS=off` does
without.

Dimensions: R replicas, T time steps, B sequences, O output features.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch

LOG = logging.getLogger("rnnlstm")
MOST = 4  #: shapes that are recorded; each keeps the memory of a pass

#: Outputs (T, B, O) of each replica and losses (R,), detached; as a side effect, each weight's `grad`.
Pass = Callable[[Sequence[Batch]], tuple[list[Tensor], Tensor]]
#: Computes once, recording; returns what computes again, and the results that this will write over.
Capture = Callable[[Callable[[], list[Tensor | None]]], tuple[Callable[[], object], list[Tensor | None]]]


def capture_on(device: torch.device) -> Capture | None:
    """How a pass is recorded on this device; None where it is not."""
    if device.type != "cuda" or os.environ.get("RNNLSTM_GRAPHS", "").lower() in ("off", "0"):
        return None

    def capture(run: Callable[[], list[Tensor | None]]) -> tuple[Callable[[], object], list[Tensor | None]]:
        """As PyTorch's notes on CUDA graphs ask for: once on a side stream, to warm up, then recorded."""
        with torch.cuda.device(device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                results = run()

        def replay() -> None:
            with torch.cuda.device(device):
                graph.replay()

        return replay, results

    return capture


@dataclass(frozen=True)
class Recording:
    tasks: list[Task]
    shapes: list[tuple[str, torch.Size]]
    buffers: Mapping[str, Tensor]  #: a batch's tensors by name, (R, …)
    replay: Callable[[], object]
    results: list[Tensor | None]  #: losses (R,), outputs (R, T, B, O), gradients of each weight

    def replayed(self, batches: Sequence[Batch]) -> list[Tensor | None]:
        """The results for other batches of the same shape, as tensors of their own."""
        fields = [batch.tensors() for batch in batches]
        for name, buffer in self.buffers.items():
            torch.stack([each[name] for each in fields], out=buffer)
        self.replay()
        # Contiguous, as weights are: the fused optimisers do not look at strides.
        return [None if r is None else r.clone(memory_format=torch.contiguous_format) for r in self.results]


class Graphs:
    """Calls a pass, or replays its recording. `parameters` are the weights to which the pass gives gradients."""

    def __init__(self, parameters: Iterable[Tensor], capture: Capture | None) -> None:
        """`capture` None: nothing is recorded."""
        self._parameters, self._capture = list(parameters), capture
        self._recordings: list[Recording] = []
        self._last: tuple[list[Task], list[tuple[str, torch.Size]]] | None = None

    def __call__(self, run: Pass, tasks: list[Task], batches: Sequence[Batch]) -> tuple[list[Tensor], Tensor]:
        """What `run(batches)` returns and does. Two updates in a row with equal tasks and shapes make a recording."""
        if self._capture is None or (shapes := _shapes(batches)) is None:
            return run(batches)
        repeated, self._last = self._last == (tasks, shapes), (tasks, shapes)
        for recording in self._recordings:
            if (recording.tasks, recording.shapes) == (tasks, shapes):
                losses, outputs, *gradients = recording.replayed(batches)
                self._set_gradients(gradients)
                assert losses is not None
                assert outputs is not None
                return list(outputs.unbind(0)), losses
        outputs_each, losses = run(batches)
        if repeated and len(self._recordings) < MOST:
            self._record(run, tasks, batches, shapes, [losses, torch.stack(outputs_each), *self._gradients()])
        return outputs_each, losses

    def _record(
        self,
        run: Pass,
        tasks: list[Task],
        batches: Sequence[Batch],
        shapes: list[tuple[str, torch.Size]],
        computed: list[Tensor | None],
    ) -> None:
        """Record this shape, if a replay then gives bit for bit what was `computed`: losses, outputs, gradients."""
        assert self._capture is not None
        fields = [batch.tensors() for batch in batches]
        buffers = {name: torch.stack([each[name] for each in fields]) for name in fields[0]}
        parts = {name: buffer.unbind(0) for name, buffer in buffers.items()}
        held = [Batch.of({name: part[r] for name, part in parts.items()}) for r in range(len(batches))]

        def recorded() -> list[Tensor | None]:
            outputs, losses = run(held)
            return [losses, torch.stack(outputs), *self._gradients()]

        try:
            replay, results = self._capture(recorded)
            recording = Recording(tasks, shapes, buffers, replay, results)
            if not all(_equal(a, b) for a, b in zip(recording.replayed(batches), computed, strict=True)):
                raise RuntimeError("a replay gives other numbers")
            self._recordings.append(recording)
        except RuntimeError as error:  # CUDA's errors are such, too
            self._capture, self._recordings = None, []
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            LOG.warning("training continues without CUDA graphs, which is slower for small networks: %s", reason)
        finally:
            self._set_gradients(computed[2:])

    def _gradients(self) -> list[Tensor | None]:
        return [weight.grad for weight in self._parameters]

    def _set_gradients(self, gradients: Iterable[Tensor | None]) -> None:
        for weight, gradient in zip(self._parameters, gradients, strict=True):
            weight.grad = gradient


def _shapes(batches: Sequence[Batch]) -> list[tuple[str, torch.Size]] | None:
    """The shape of each tensor of a replica's batch; None where the replicas' batches differ in it."""
    shapes = [[(name, tensor.shape) for name, tensor in batch.tensors().items()] for batch in batches]
    return shapes[0] if all(each == shapes[0] for each in shapes) else None


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Bit for bit: a resumed run begins without recordings and must end as an unbroken one."""
    if a is None or b is None:
        return a is b
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
