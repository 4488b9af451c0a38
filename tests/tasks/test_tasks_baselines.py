"""Printed baselines and plateaus against Monte Carlo: the best guess that sees no input, or only a part of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rnnlstm.tasks import make_task
from rnnlstm.tasks.batch import Batch
from rnnlstm.tasks.embedded_reber import AUTOMATON

from support.tasks import LENGTHS, VARIANTS
from support.training import quick_if

CHUNKS, SIZE = 30, 2000  # batches in each half, sequences in a batch

CASES = [
    *((name, {"length": LENGTHS.get(name, 12), **options}) for name, options in (case.values for case in VARIANTS)),
    ("adding", {"length": 11, "variant": "hochreiter"}),
    ("multiplication", {"length": 40, "variant": "hochreiter"}),
    ("copy", {"length": 3, "variant": "variable"}),
    ("keyword", {"length": 9, "shortest": 4}),
    ("long_lag", {"length": 6, "variant": "2b", "alphabet": 3}),
    ("embedded_reber", {"length": 9}),
    ("embedded_reber", {"length": 25}),
    ("selective_copy", {"length": 5, "symbols": 2, "alphabet": 3}),
    ("associative_recall", {"length": 8, "pairs": 1}),
    ("counting", {"length": 3}),
    ("state_tracking", {"length": 5, "variant": "s3", "elements": "swaps"}),
    ("copy", {"length": 1}),
    ("adding", {"length": 2}),
    ("keyword", {"length": 2, "num_keywords": 2}),
    ("keyword", {"length": 9, "num_keywords": 32, "keyword_window": 4, "decoys": 1.0}),
]


def place(task, batch):
    """What the best predictor without an input knows, as a number for each position (T, B): the position; in copy
    memory with a variable delay also where the delimiter is."""
    step = torch.arange(task.sequence_length)[:, None]
    if task.name == "copy" and task.variant == "variable":
        return step - (batch.kinds == 2).int().argmax(0) + task.sequence_length
    return step.expand_as(batch.mask)


def best_guess(batches, known, output_size):
    """The best outputs (K, O) that depend on `known` alone, numbers for each position of each batch: log frequencies
    of classes over the scored positions, or means."""
    masks = [batch.mask for batch in batches]
    targets = torch.cat([batch.targets[mask] for batch, mask in zip(batches, masks, strict=True)])
    where = torch.cat([k[mask] for k, mask in zip(known, masks, strict=True)])
    size = 1 + max(int(k.max()) for k in known)
    values = targets.double()
    if not targets.is_floating_point():
        values = torch.nn.functional.one_hot(targets, output_size).double()
    sums = torch.zeros(size, output_size, dtype=torch.float64).index_add_(0, where, values)
    if targets.is_floating_point():
        return sums / torch.bincount(where, minlength=size).clamp(min=1)[:, None]
    return (sums + 1e-6).log()


def losses(task, guess, batches, known):
    """The task's own loss of a guess (K, O) on each batch."""
    return torch.stack([task.loss(guess[k], batch) for batch, k in zip(batches, known, strict=True)]).double()


def assert_is_best(task, loss, known_of, chunks=CHUNKS):
    """`loss` is the best that can be had from what `known_of` leaves of a batch, by Monte Carlo.

    On the half it was fitted to, a guess beats every other, so also the one behind the printed loss; on the other
    half it can at best equal it: the printed loss lies between, up to 4 standard errors of a mean over chunks.
    """
    one, two = ([task.sample(half, step, batch_size=SIZE) for step in range(chunks)] for half in range(2))
    known = [[known_of(task, batch) for batch in batches] for batches in (one, two)]
    guess = best_guess(one, known[0], task.output_size)
    fitted, held_out = losses(task, guess, one, known[0]), losses(task, guess, two, known[1])
    low = fitted.mean() - 4 * fitted.std() / math.sqrt(chunks)
    high = held_out.mean() + 4 * held_out.std() / math.sqrt(chunks)
    assert low - 1e-6 < loss < high + 1e-6
    assert high - low < 0.06 * loss  # the bounds are near enough to tell 0.1767 from 1/6


@pytest.mark.parametrize(
    ("name", "options"),
    quick_if(
        lambda name, options: name in ("copy", "adding", "keyword") and options["length"] == 12,
        CASES,
    ),
)
def test_the_baseline_is_the_best_loss_without_an_input(name, options):
    task = make_task(name, **options)
    assert_is_best(task, task.baseline, place)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_best_guess_without_an_input_solves_nothing(name, options):
    task = make_task(name, **options)
    train, test = (task.sample(half, 0, batch_size=SIZE) for half in range(2))
    guess = best_guess([train], [place(task, train)], task.output_size)
    known = place(task, test).clamp(max=len(guess) - 1)
    assert not task.solved(task.metrics(guess[known], test))


def test_known_values_of_the_baselines():
    assert make_task("adding").baseline == pytest.approx(0.166667, abs=1e-6)
    assert make_task("keyword", num_keywords=8).baseline == pytest.approx(2.0794415, abs=1e-7)
    for length, printed in ((100, 0.1733), (200, 0.0945), (300, 0.0650), (500, 0.0400), (1000, 0.0204)):
        assert make_task("copy", length=length).baseline == pytest.approx(printed, abs=6e-5)


def test_baselines_of_counting_and_state_tracking_by_hand():
    """Two strings that differ at a step cost 2 ln 2 there. a^n b^n, n ≤ 3, of 9 scored steps: step 4, where n = 2
    ends and n = 3 goes on. a^n b^n c^n, of 15: step 3 (# of n = 1, b of 2), 4 (c of 2, b of 3), 5 (c, b), 6 (#, c).
    """
    assert make_task("counting", length=3).baseline == pytest.approx(2 * math.log(2) / 9)
    assert make_task("counting", length=3, variant="anbncn").baseline == pytest.approx(8 * math.log(2) / 15)
    for variant, size in (("parity", 2), ("s3", 6), ("s5", 120)):
        assert make_task("state_tracking", variant=variant).baseline == pytest.approx(math.log(size))
    # Of S3 by swaps: 3 elements at the first step. At the second the identity in 3 of 9 ways, each swap in 2, both
    # products of two swaps in 1.
    second = math.log(9) - (3 * math.log(3) + 4 * math.log(2)) / 9
    swaps = make_task("state_tracking", variant="s3", elements="swaps", length=2)
    assert swaps.baseline == pytest.approx((math.log(3) + second) / 2)
    long = make_task("state_tracking", variant="s5", elements="swaps", length=100_000)
    assert math.log(120) - 1e-3 < long.baseline < math.log(120)


@pytest.mark.parametrize("variant", ["anbn", "anbncn"])
@pytest.mark.parametrize("length", [3, 12])
def test_letters_that_are_not_counted_are_a_plateau(variant, length):
    task = make_task("counting", length=length, variant=variant)
    assert_is_best(task, task.plateaus["letters not counted"], lambda task, batch: batch.inputs, chunks=10)


def operand(number):
    """One marked number is known, to a hundredth."""

    def known(task, batch):
        marked = batch.kinds == 1
        value = (batch.inputs[..., 0] * (marked & (marked.cumsum(0) == 1 + number))).sum(0)
        return (value * 100).long().expand_as(batch.mask)

    return known


@pytest.mark.parametrize("variant", ["standard", "pascanu"])
@pytest.mark.parametrize("name", ["adding", "multiplication"])
@pytest.mark.parametrize("number", [0, 1])
def test_one_operand_of_two_is_a_plateau(name, variant, number):
    task = make_task(name, length=12, variant=variant)
    (plateau,) = task.plateaus.values()
    assert_is_best(task, plateau, operand(number), chunks=60)
    assert not task.solved({"mse": plateau, "within": 0.1})


@pytest.mark.parametrize("length", [11, 14, 40])
@pytest.mark.parametrize("name", ["adding", "multiplication"])
def test_one_operand_of_two_is_a_plateau_where_a_mark_can_be_unseen(name, length):
    """The two numbers drawn by the paper's words once more, as the batch does not tell which mark is unseen."""
    task = make_task(name, length=length, variant="hochreiter")
    random = np.random.default_rng(0)
    N, half = 1_000_000, length // 2 - 1
    x, y = random.uniform(-1 if name == "adding" else 0, 1, (2, N))
    first, second = random.integers(0, 10, N), random.integers(0, half, N)
    second += second >= first
    neutral = 0.0 if name == "adding" else 1.0
    x, y = np.where(first == 0, neutral, x), np.where(second == 0, neutral, y)
    target = 0.5 + (x + y) / 4 if name == "adding" else x * y
    assert target.var() == pytest.approx(task.baseline, rel=0.01)
    for known, plateau in zip((x, y), task.plateaus.values(), strict=True):
        bins = np.where(known == neutral, 401, (known * 200).astype(int) + 200)
        mean = np.bincount(bins, target, 402) / np.maximum(np.bincount(bins, minlength=402), 1)
        assert np.square(target - mean[bins]).mean() == pytest.approx(plateau, rel=0.01)


@pytest.mark.parametrize(("variant", "stored"), [("6a", 1), ("6b", 1), ("6b", 2), ("pascanu", 1)])
def test_marks_stored_are_plateaus_of_temporal_order(variant, stored):
    task = make_task("temporal_order", length=12, variant=variant)

    def known(task, batch):
        return (batch.targets >> (task.marks - stored)).amax(0).expand_as(batch.mask)

    assert_is_best(task, list(task.plateaus.values())[stored - 1], known, chunks=10)


@pytest.mark.slow
@pytest.mark.parametrize("length", [9, 14, 40])
@pytest.mark.parametrize("plateau", ["outer symbol forgotten", "grammar"])
def test_plateaus_of_the_embedded_grammar(plateau, length):
    task = make_task("embedded_reber", length=length)

    def known(task, batch):
        states = torch.from_numpy(AUTOMATON.read(batch.inputs.numpy()))
        states = states if plateau == "grammar" else torch.from_numpy(AUTOMATON.merged)[states]
        return states + 20 * torch.arange(task.sequence_length)[:, None]

    assert_is_best(task, task.plateaus[plateau], known)


@pytest.mark.parametrize("pairs", [2, 4, 7])
def test_values_without_keys_are_a_plateau_of_associative_recall(pairs):
    task = make_task("associative_recall", length=20, pairs=pairs)
    batch = task.sample(0, 0, batch_size=100_000)
    values = torch.nn.functional.one_hot(batch.inputs[1 : 2 * pairs : 2] - 26, 10).sum(0)  # (B, 10)
    guess = (values.double() + 1e-12).log().expand(20, -1, -1)
    (plateau,) = task.plateaus.values()
    assert task.loss(guess, batch).item() == pytest.approx(plateau, abs=4.5 * 0.6 / math.sqrt(100_000))


def test_a_batch_of_constants_has_the_loss_that_constants_have():
    """The machinery above on a batch made by hand: one class always, and a fair coin."""
    task = make_task("keyword", length=2, num_keywords=2)
    targets = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 1]])
    mask = torch.tensor([[True] * 4, [True] * 4])
    batch = Batch(torch.zeros(2, 4, dtype=torch.int64), targets, mask)
    known = [place(task, batch)]
    found = losses(task, best_guess([batch], known, 2), [batch], known)
    assert found.item() == pytest.approx(math.log(2) / 2, abs=1e-5)
