"""Where gradients vanish and where they explode: real networks over the gain of their recurrent weights and the
length.

Orthogonal W_h times a gain g. A linear network's gradient grows as g^T, so that its boundary is g = 1 at every
length; a nonlinearity with slopes below one moves it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnlstm.cells import make_cell
from rnnlstm.instruments.flow import flow
from rnnlstm.instruments.subject import Subject
from rnnlstm.models import Network
from rnnlstm.tasks import Task
from rnnlstm.tasks.random_streams import RandomStream

GAINS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.2, 1.4, 2.0)
LENGTHS = (5, 10, 20, 50, 100, 200, 365)


def gain_map(
    task: Task, nonlinearity: str, hidden_size: int, seed: int, gains: Sequence[float], lengths: Sequence[int]
) -> Tensor:
    """log10 of ‖∂L/∂h_1‖ / ‖∂L/∂h_T‖, (gains, lengths), each of an untrained network on 8 sequences."""
    found = torch.zeros(len(gains), len(lengths), dtype=torch.float64)
    for i, gain in enumerate(gains):
        for j, length in enumerate(lengths):
            here = task.vary(length=length)
            network = Network(
                make_cell("rnn", nonlinearity=nonlinearity, init="orthogonal", gain=gain),
                num_tokens=here.num_tokens,
                input_size=here.input_size,
                output_size=here.output_size,
                hidden_size=hidden_size,
                num_layers=1,
                embedding_size=32,
                max_lag=here.sequence_length,
                backend="auto",
                generator=RandomStream(seed, "init").torch_generator(),
            )
            norms = flow(Subject.of(here, network, here.sample(seed, 0, "probe", 8))).total["hidden"][0]
            found[i, j] = norms[-1].log10() - norms[0].log10()
    return found
