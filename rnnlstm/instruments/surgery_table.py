"""Gate surgery on a trained network: its score and its gradient after each operation that the cell allows."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rnnlstm.cells import Cell, operated
from rnnlstm.config.schema import Surgery
from rnnlstm.instruments.analysed_network import AnalysedNetwork
from rnnlstm.instruments.flow import flow
from rnnlstm.models import Network
from rnnlstm.tasks import Task

TRUNCATED_AT = 10


@dataclass(frozen=True)
class SurgeryRow:
    """One operation: the scores and the gradient of the network after it."""

    name: str
    scores: dict[str, float]  #: the task's metrics and `loss`, on held-out sequences
    half_life: float  #: of ∂L/∂h, steps, top layer
    ratio: float  #: log10 of ‖∂L/∂h‖ at the first step against the last that has one
    cell_ratio: float | None  #: the same of c


def surgeries(cell: Cell) -> Iterator[tuple[str, Surgery]]:
    """The operations that a cell allows, by name."""
    yield "as it is", Surgery()
    for gate in cell.gate_names:
        yield f"{gate} gate open (1)", Surgery(open=[gate])
        yield f"{gate} gate shut (0)", Surgery(shut=[gate])
        yield f"{gate} gate frozen at its mean", Surgery(freeze=[gate])
        yield f"{gate} gate rounded to 0 or 1", Surgery(round=[gate])
        if cell.gate_blocks:
            yield f"{gate} gate blind to h", Surgery(cut=[gate])
    if len(cell.gate_names) > 1:
        yield "all gates rounded to 0 or 1", Surgery(round=list(cell.gate_names))
    if len(cell.gate_names) > 1 and cell.gate_blocks:
        yield "all gates blind to h", Surgery(cut=list(cell.gate_names))
    if "cell" in cell.state_names:
        yield "no gradient through h", Surgery(detach=True)
    yield f"gradient truncated at {TRUNCATED_AT} steps", Surgery(truncate=TRUNCATED_AT)


def operate(network: Network, surgery: Surgery) -> Network:
    """A copy of the network with the same weights, after `surgery`."""
    other = copy.deepcopy(network)
    cell = operated(other.recurrence.cell, surgery)
    if cell is not other.recurrence.cell:
        other.recurrence.cell, other.recurrence.backend = cell, "reference"
    return other


def surgery_table(task: Task, network: Network, seed: int, sequences: int) -> list[SurgeryRow]:
    """Scores on `sequences` of the seed's stream `eval`, gradients on 16 of its stream `probe`."""
    held_out, watched = task.sample(seed, 0, "eval", sequences), task.sample(seed, 0, "probe", 16)
    rows = []
    for name, surgery in surgeries(network.recurrence.cell):
        other = operate(network, surgery)
        with torch.no_grad():
            outputs = other(held_out.inputs)
        scores = {"loss": task.loss(outputs, held_out).item(), **task.metrics(outputs, held_out)}
        gradient_flow = flow(AnalysedNetwork.of(task, other, watched))
        ratios = {state: _first_to_last(norms[-1]) for state, norms in gradient_flow.total.items()}
        half_life = gradient_flow.half_life("hidden", len(gradient_flow.total["hidden"]) - 1)[0]
        rows.append(SurgeryRow(name, scores, half_life, ratios["hidden"], ratios.get("cell")))
    return rows


def _first_to_last(norms: Tensor) -> float:
    """log10 of the ratio, from norms by lag (K,). Lag 0 may be zero: under zoneout h_t sees the c̃_t that the cell
    computes, and c_t acts on later steps alone."""
    reached = norms[norms > 0]
    return (norms[-1] / reached[0]).log10().item() if len(reached) else math.nan
