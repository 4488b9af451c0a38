"""What a task need not say: the smallest task, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rnnlstm.config.options import option
from rnnlstm.tasks import Task
from rnnlstm.tasks.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Halves(Task):
    """Half of each number: no more than a task must have."""

    metric_name, solved_when, input_size, output_size, baseline = "share", "share ≥ 0.99", 1, 1, 1 / 48
    length: int = option(3, "time steps", at_least=1)

    def generate(self, random, batch_size):
        values = random.uniform((self.length, batch_size, 1))
        return Batch(values, values / 2, values[..., 0] > 0.25)

    def metrics(self, outputs, batch):
        return {"share": (outputs == batch.targets).double().mean().item()}


def test_what_a_task_leaves_out_has_a_default():
    inputs = torch.tensor([0.5, 0.125, 1.0])[:, None, None]
    task, batch = Halves(), Batch(inputs, inputs / 2, inputs[..., 0] > 0.25)
    assert task.decode(batch, 0) == "0.5 0.125 1 → 0.25 0.5"
    assert task.answer(inputs, batch, 0) == "0.5 1"
    assert task.loss(inputs.double(), batch).item() == (0.25**2 + 0.5**2) / 2
    assert (task.sequence_length, task.num_tokens, dict(task.plateaus)) == (3, None, {})
    assert not task.takes_scored_answers
    assert task.solved({"share": 0.99})
    assert not task.solved({"share": 0.9899})
