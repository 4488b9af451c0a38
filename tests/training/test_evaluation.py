"""Evaluation from the answers at the scored positions alone, and from all outputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rnnlstm.training import evaluation

from support.tasks import VARIANTS, small


def watched(task, takes, seen):
    """The same task, which notes the shapes of what it scores."""

    class Watched(type(task)):
        takes_scored_answers = takes

        def metrics(self, outputs, batch):
            seen.append((outputs.shape, batch.mask.shape, int(batch.mask.sum())))
            return super().metrics(outputs, batch)

    return Watched(**{field.name: getattr(task, field.name) for field in dataclasses.fields(task)})


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_answers_alone_give_the_same_scores(name, options, monkeypatch):
    torch.manual_seed(0)
    task = small(name, **options)
    weight = torch.randn(task.num_tokens or task.input_size, task.output_size)

    def network(inputs, scored=None):
        outputs = (weight[inputs] if task.num_tokens else inputs @ weight).cumsum(0)
        return outputs if scored is None else outputs.flatten(0, 1)[scored]

    monkeypatch.setattr(evaluation, "CHUNK", 4 * task.sequence_length)  # four sequences at once; the last time, two
    alone, all_outputs = [], []
    scores = evaluation.evaluate(network, watched(task, True, alone), 0, 22)
    assert scores == evaluation.evaluate(network, watched(task, False, all_outputs), 0, 22)
    assert scores[1]
    assert all(shape == (scored, task.output_size) for shape, _, scored in alone)
    assert all(shape == (*positions, task.output_size) for shape, positions, _ in all_outputs)
    assert [scored for *_, scored in alone] == [scored for *_, scored in all_outputs]
