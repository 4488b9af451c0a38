"""What a network costs, counted: parameters, multiply-adds, numbers carried through time, bytes.

Dimensions: H units, L layers, E features into the first layer, V tokens, O outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rnnlstm.cells import Cell


@dataclass(frozen=True)
class Cost:
    """For one replica."""

    parameters: int  #: trained numbers
    multiply_adds: int  #: of the matrix products, for one time step of one sequence, forward
    state: int  #: numbers carried from one time step to the next, for one sequence
    bytes_kept: int  #: outputs, cell states and gates that one time step of one sequence keeps for backward


def network_cost(
    cell: Cell,
    *,
    num_tokens: int | None,
    input_size: int | None,
    output_size: int,
    hidden_size: int,
    num_layers: int,
    embedding_size: int,
    bytes_each: int = 4,
) -> Cost:
    """The cost of a `Network` of these sizes, without building it."""
    features = embedding_size if num_tokens is not None else input_size
    assert features is not None
    parameters = (num_tokens or 0) * embedding_size + (hidden_size + 1) * output_size
    multiply_adds = hidden_size * output_size
    for layer in range(num_layers):
        shapes = cell.parameter_shapes(features if layer == 0 else hidden_size, hidden_size, bias=True).values()
        parameters += sum(math.prod(shape) for shape in shapes)
        multiply_adds += sum(math.prod(shape) for shape in shapes if len(shape) == 2)
    states = len(cell.state_names) * hidden_size * num_layers
    kept = states + (cell.blocks if cell.blocks > 1 else 0) * hidden_size * num_layers
    return Cost(parameters, multiply_adds, states, kept * bytes_each)
