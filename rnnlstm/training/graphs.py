"""Forward and backward pass of an update as a CUDA graph: recorded once for a shape, then replayed as a whole.

A pass through time is thousands of small operations, and launching one takes longer than the GPU needs for it. A
recording reads its batches from buffers of its own and leaves its results in others; both are copied. Weights are
read where they are. Clipping and the optimiser's step stay outside. `RNNLSTM_GRAPHS=off` does without.
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

#: (tasks, batches) → outputs (T, B, O) of each replica, losses (R,), with autograd's graph
Forward = Callable[[list[Task], Sequence[Batch]], tuple[list[Tensor], Tensor]]
#: Computes once, recording; returns what computes again, and the results that this will write over.
Capture = Callable[[Callable[[], list[Tensor | None]]], tuple[Callable[[], object], list[Tensor | None]]]


def capture_on(device: torch.device) -> Capture | None:
    """How passes are recorded there; None where they are not."""
    if device.type != "cuda" or os.environ.get("RNNLSTM_GRAPHS", "").lower() in ("off", "0"):
        return None

    def capture(run: Callable[[], list[Tensor | None]]) -> tuple[Callable[[], object], list[Tensor | None]]:
        """As PyTorch's notes on CUDA graphs ask for: once beside, for what is made at first use, then recorded."""
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

    def again(self, batches: Sequence[Batch]) -> list[Tensor | None]:
        """The results for other batches of the same shape, as tensors of their own."""
        fields = [batch.tensors() for batch in batches]
        for name, buffer in self.buffers.items():
            torch.stack([each[name] for each in fields], out=buffer)
        self.replay()
        # Row by row in memory, as weights are: the fused optimisers go by that, and don't look at strides.
        return [None if r is None else r.clone(memory_format=torch.contiguous_format) for r in self.results]


class Graphs:
    """Forward and backward pass of R replicas; `parameters` are given their gradients."""

    def __init__(self, parameters: Iterable[Tensor], capture: Capture | None) -> None:
        """`capture` None: nothing is recorded."""
        self._parameters, self._capture = list(parameters), capture
        self._recordings: list[Recording] = []
        self._last: tuple[list[Task], list[tuple[str, torch.Size]]] | None = None

    def __call__(self, forward: Forward, tasks: list[Task], batches: Sequence[Batch]) -> tuple[list[Tensor], Tensor]:
        """Outputs (T, B, O) of each replica and losses (R,), without their graph. Two updates in a row of one shape
        make a recording of it."""
        if self._capture is None or (shapes := _shapes(batches)) is None:
            return self._one_by_one(forward, tasks, batches)
        again, self._last = self._last == (tasks, shapes), (tasks, shapes)
        for recording in self._recordings:
            if (recording.tasks, recording.shapes) == (tasks, shapes):
                return self._given(recording.again(batches))
        found = self._one_by_one(forward, tasks, batches)
        if again and len(self._recordings) < MOST:
            self._record(forward, tasks, batches, shapes, found)
        return found

    def _one_by_one(
        self, forward: Forward, tasks: list[Task], batches: Sequence[Batch]
    ) -> tuple[list[Tensor], Tensor]:
        outputs, losses = forward(tasks, batches)
        for weight in self._parameters:
            weight.grad = None
        losses.sum().backward()  # each replica's gradient is its own loss's
        return [out.detach() for out in outputs], losses.detach()

    def _given(self, results: list[Tensor | None]) -> tuple[list[Tensor], Tensor]:
        losses, outputs, *gradients = results
        assert losses is not None
        assert outputs is not None
        for weight, gradient in zip(self._parameters, gradients, strict=True):
            weight.grad = gradient
        return list(outputs.unbind(0)), losses

    def _record(
        self,
        forward: Forward,
        tasks: list[Task],
        batches: Sequence[Batch],
        shapes: list[tuple[str, torch.Size]],
        found: tuple[list[Tensor], Tensor],
    ) -> None:
        """Record this shape, if a replay then gives what has just been `found`, and the gradients that are there."""
        assert self._capture is not None
        fields = [batch.tensors() for batch in batches]
        buffers = {name: torch.stack([each[name] for each in fields]) for name in fields[0]}
        parts = {name: buffer.unbind(0) for name, buffer in buffers.items()}
        held = [Batch.of({name: part[r] for name, part in parts.items()}) for r in range(len(batches))]

        def run() -> list[Tensor | None]:
            outputs, losses = forward(tasks, held)
            gradients = torch.autograd.grad(losses.sum(), self._parameters, allow_unused=True)
            return [losses.detach(), torch.stack(outputs).detach(), *gradients]

        try:
            replay, results = self._capture(run)
            recording = Recording(tasks, shapes, buffers, replay, results)
            wanted = [found[1], torch.stack(found[0]), *(weight.grad for weight in self._parameters)]
            if not all(_equal(a, b) for a, b in zip(recording.again(batches), wanted, strict=True)):
                raise RuntimeError("a replay gives other numbers")
        except RuntimeError as error:  # CUDA's errors are such, too
            self._capture, self._recordings = None, []
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            LOG.warning("goes on without CUDA graphs, which is slower for small networks: %s", reason)
            return
        self._recordings.append(recording)


def _shapes(batches: Sequence[Batch]) -> list[tuple[str, torch.Size]] | None:
    """What a recording has to have been made for; None where the replicas' batches differ in it."""
    found = [[(name, tensor.shape) for name, tensor in batch.tensors().items()] for batch in batches]
    return found[0] if all(each == found[0] for each in found) else None


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Bit for bit, so that a run that goes on, and begins without recordings, gives what an unbroken one gives."""
    if a is None or b is None:
        return a is b
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
