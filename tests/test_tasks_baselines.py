"""Printed baselines and plateaus against Monte Carlo: the best guess that sees no input, or only a part of it."""

from __future__ import annotations

import math

import pytest
import torch
from test_tasks import VARIANTS

from rnnlstm.batch import Batch
from rnnlstm.tasks import make_task

CHUNKS, SIZE = 30, 2000  # batches in each half, sequences in a batch

CASES = [
    *(pytest.param(name, {"length": 12, **options}) for name, options in (case.values for case in VARIANTS)),
    ("copy", {"length": 1}),
    ("adding", {"length": 2}),
    ("keyword", {"length": 2, "num_keywords": 2}),
    ("keyword", {"length": 9, "num_keywords": 32, "keyword_window": 4, "decoys": 1.0}),
]


def constant_guess(batches, output_size):
    """The best outputs (T, O) that depend on the position alone: log frequencies of classes, or means."""
    targets = torch.cat([batch.targets for batch in batches], 1)
    if targets.is_floating_point():
        return targets.double().mean(1)
    counts = torch.nn.functional.one_hot(targets, output_size).sum(1)
    return (counts + 1e-6).log()


def losses(task, guess, batches):
    """The task's own loss of a guess (T, O) on each batch."""
    return torch.stack([task.loss(guess[:, None].expand(-1, b.size, -1), b) for b in batches]).double()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_baseline_is_the_best_loss_without_an_input(name, options):
    task = make_task(name, **options)
    one, two = ([task.sample(half, step, batch_size=SIZE) for step in range(CHUNKS)] for half in range(2))
    guess = constant_guess(one, task.output_size)
    fitted, held_out = losses(task, guess, one), losses(task, guess, two)
    # On the half it was fitted to, the guess beats every constant, so also the one behind the baseline; on the
    # other half it can at best equal it: the baseline lies between, up to 4 standard errors of a mean over chunks.
    low = fitted.mean() - 4 * fitted.std() / math.sqrt(CHUNKS)
    high = held_out.mean() + 4 * held_out.std() / math.sqrt(CHUNKS)
    assert low - 1e-6 < task.baseline < high + 1e-6
    assert high - low < 0.06 * task.baseline  # the bounds are near enough to tell 0.1767 from 1/6


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_best_guess_without_an_input_solves_nothing(name, options):
    task = make_task(name, **options)
    guess = constant_guess([task.sample(0, 0, batch_size=SIZE)], task.output_size)
    test = task.sample(1, 0, batch_size=SIZE)
    assert not task.solved(task.metrics(guess[:, None].expand(-1, SIZE, -1), test))


def test_known_values_of_the_baselines():
    assert make_task("adding").baseline == pytest.approx(0.166667, abs=1e-6)
    assert make_task("keyword", num_keywords=8).baseline == pytest.approx(2.0794415, abs=1e-7)
    for length, printed in ((100, 0.1733), (200, 0.0945), (300, 0.0650), (500, 0.0400), (1000, 0.0204)):
        assert make_task("copy", length=length).baseline == pytest.approx(printed, abs=6e-5)


@pytest.mark.parametrize("known", [0, 1])
def test_one_operand_of_two_is_the_plateau_of_adding(known):
    task = make_task("adding", length=12)
    errors = []
    for step in range(CHUNKS):
        batch = task.sample(0, step, batch_size=SIZE)
        values, markers = batch.inputs.unbind(-1)
        half = slice(0, 6) if known == 0 else slice(6, 12)
        outputs = torch.zeros(12, SIZE, 1)
        outputs[-1, :, 0] = (values * markers)[half].sum(0) + 0.5
        errors.append(task.loss(outputs, batch))
    errors = torch.stack(errors).double()
    (plateau,) = task.plateaus.values()
    assert plateau == 1 / 12
    # 4 standard errors: the square of a uniform on ±½ has deviation 1/√180.
    assert abs(errors.mean() - plateau) < 4 / math.sqrt(180 * CHUNKS * SIZE)
    assert not task.solved({"mse": plateau})


def test_a_batch_of_constants_has_the_loss_that_constants_have():
    """The machinery above on a batch made by hand: one class always, and a fair coin."""
    task = make_task("keyword", length=2, num_keywords=2)
    targets = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 1]])
    mask = torch.tensor([[True] * 4, [True] * 4])
    batch = Batch(torch.zeros(2, 4, dtype=torch.int64), targets, mask)
    assert losses(task, constant_guess([batch], 2), [batch]).item() == pytest.approx(math.log(2) / 2, abs=1e-5)
