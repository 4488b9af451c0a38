"""The answers at the scored positions alone give the same scores as all outputs, to the last bit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from rnnlstm.tasks import Task

from support.tasks import VARIANTS, small


def drawn(name, options):
    """A task, a batch, and outputs (T, B, O) of which some are right and some are not."""
    torch.manual_seed(0)
    task = small(name, **options)
    batch = task.sample(0, 0, batch_size=40)
    noise = torch.randn(*batch.mask.shape, task.output_size)
    if batch.targets.is_floating_point():
        return task, batch, batch.targets + noise / 20
    known = task.legal(batch) if name == "embedded_reber" else F.one_hot(batch.targets, task.output_size)
    return task, batch, 4 * known + noise


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_scores_and_gradients_are_the_same_from_the_answers_alone(name, options):
    task, batch, outputs = drawn(name, options)
    assert task.takes_scored_answers
    outputs.requires_grad_()
    answers = outputs.detach()[batch.mask].requires_grad_()
    losses = task.loss(outputs, batch), task.loss(answers, batch)
    assert torch.equal(*losses)
    (of_outputs,) = torch.autograd.grad(losses[0], outputs)
    (of_answers,) = torch.autograd.grad(losses[1], answers)
    assert of_answers.any()
    assert torch.equal(of_outputs[batch.mask], of_answers)
    assert not of_outputs[~batch.mask].any()
    scores = task.metrics(outputs.detach(), batch)
    assert task.metrics(answers.detach(), batch) == scores
    assert scores != task.metrics(answers.detach().flip(0), batch)  # so the order of the answers matters


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_slices_are_scored_from_their_part_of_the_answers(name, options):
    task, batch, outputs = drawn(name, options)
    answers, parts = batch.answers(outputs), 0
    for mask in task.slices(batch).values():
        part = dataclasses.replace(batch, mask=mask)
        if mask.any():
            assert task.metrics(answers[batch.at_scored(mask)], part) == task.metrics(outputs, part)
            parts += 1
    assert parts


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_another_number_of_answers_is_refused(name, options):
    task, batch, outputs = drawn(name, options)
    count = len(batch.scored)
    for wrong in (outputs[batch.mask][1:], outputs.flatten(0, 1).repeat(2, 1)):
        for score in (task.loss, task.metrics):
            with pytest.raises(ValueError, match=f"^got {len(wrong):,} answers for {count:,} scored positions$"):
                score(wrong, batch)


def test_answers_stand_in_the_order_of_the_scored_positions():
    _, batch, outputs = drawn("associative_recall", {"variant": "mqar"})
    answers = batch.answers(outputs)
    steps, sequences = batch.mask.nonzero().T
    assert torch.equal(batch.scored_sequences, sequences)
    assert torch.equal(answers, outputs[steps, sequences])
    assert batch.answers(answers) is answers


def test_a_task_that_scores_in_its_own_way_takes_answers_only_if_it_says_so():
    class Renamed(type(small("keyword"))):
        pass

    class Strict(Renamed):
        def metrics(self, outputs, batch):
            return {"accuracy": (outputs[-1].argmax(-1) == batch.targets[-1]).double().mean().item()}

    class Weighted(Renamed):
        takes_scored_answers = True

        def loss(self, outputs, batch):
            return 2 * super().loss(outputs, batch)

    class Heavier(Weighted):
        def loss(self, outputs, batch):
            return 2 * super().loss(outputs, batch)

    taken = [kind.takes_scored_answers for kind in (Task, Renamed, Strict, Weighted, Heavier)]
    assert taken == [False, True, False, True, False]
