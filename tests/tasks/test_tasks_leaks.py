"""No leak: with what carries the answer drawn again, nothing else in the input tells about the target.

Each statistic has a control that must find something: the untouched input, or a leak put in on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from rnnlstm.tasks import make_task
from rnnlstm.tasks.random_streams import RandomStream

N = 20_000  # sequences
BOUND = 4.5  # standard errors: a normal variable is above in 3 of a million; no test here looks at over 100


def hide_copy(batch, random):
    symbols = random.integers(1, 9, batch.inputs[:10].shape[:2])
    return torch.cat([F.one_hot(symbols, 10).float(), batch.inputs[10:]])


def hide_adding(batch, random):
    values, markers = batch.inputs.unbind(-1)
    return torch.stack([torch.where(markers == 1, random.uniform(tuple(values.shape)), values), markers], -1)


def hide_keyword(batch, random):
    return torch.where(batch.kinds == 0, random.integers(0, 8, tuple(batch.inputs.shape)), batch.inputs)


def hide_temporal_order(batch, random):
    return torch.where(batch.kinds == 1, random.integers(4, 6, tuple(batch.inputs.shape)), batch.inputs)


def hide_long_lag(batch, random):
    """The class symbol: x and y are the largest numbers but for the trigger and the beginning of 2c."""
    first = batch.inputs[batch.kinds == 0].min()
    return torch.where(batch.kinds == 0, random.integers(first, first + 2, tuple(batch.inputs.shape)), batch.inputs)


def hide_selective_copy(batch, random):
    return torch.where(batch.kinds == 0, random.integers(1, 9, tuple(batch.inputs.shape)), batch.inputs)


def hide_associative_recall(batch, random):
    return torch.where(batch.kinds == 1, random.integers(26, 36, tuple(batch.inputs.shape)), batch.inputs)


@dataclass(frozen=True)
class Case:
    """A task in which `hide` draws what carries the answer (a kind) again. `solved_by` says what a linear model
    reaches with nothing hidden: `solved`, or merely `better` than chance where the answer is no linear matter."""

    name: str
    options: dict
    carrier: str
    hide: Callable
    chance: float  #: of the headline metric
    variance: float  #: of one sample's share in it
    solved_by: str = "solved"


CASES = [
    Case("copy", {"length": 3}, "symbol", hide_copy, 1 / 8, 7 / 64 / 10),
    Case("copy", {"length": 3, "variant": "recall_only"}, "symbol", hide_copy, 1 / 8, 7 / 64 / 10),
    Case("adding", {"length": 12}, "marked", hide_adding, 1 / 6, 1 / 15 - 1 / 36),
    Case("keyword", {"length": 12, "decoys": 0.2}, "keyword", hide_keyword, 1 / 8, 7 / 64),
    Case("temporal_order", {"length": 12}, "mark", hide_temporal_order, 1 / 4, 3 / 16),
    Case("temporal_order", {"length": 12, "variant": "6b"}, "mark", hide_temporal_order, 1 / 8, 7 / 64),
    Case("temporal_order", {"length": 12, "variant": "pascanu"}, "mark", hide_temporal_order, 1 / 4, 3 / 16),
    Case("long_lag", {"length": 6, "variant": "2a"}, "class", hide_long_lag, 1 / 2, 1 / 4),
    Case("long_lag", {"length": 6, "variant": "2b"}, "class", hide_long_lag, 1 / 2, 1 / 4, "better"),
    Case("long_lag", {"length": 3, "variant": "2c"}, "class", hide_long_lag, 1 / 2, 1 / 4, "better"),
    Case("selective_copy", {"length": 12}, "symbol", hide_selective_copy, 1 / 8, 7 / 64 / 10, "better"),
    Case("associative_recall", {"length": 10}, "value", hide_associative_recall, 1 / 10, 9 / 100, "better"),
]
IDS = ["-".join([case.name, *map(str, case.options.values())]) for case in CASES]


def dependence(a, b):
    """Pearson's χ² of two integer vectors, as standard errors above its mean under independence."""
    a, b = (x.unique(return_inverse=True)[1] for x in (a, b))
    table = torch.bincount(a * (b.max() + 1) + b, minlength=int((a.max() + 1) * (b.max() + 1)))
    table = table.view(int(a.max()) + 1, -1).double()
    table = table[:, table.sum(0) >= 80]  # ten expected in each cell of eight classes, or the value is left out
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    if freedom == 0:
        return 0.0
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    chi_square = ((table - expected).square() / expected).sum().item()
    return (chi_square - freedom) / math.sqrt(2 * freedom)


def unevenness(a, size):
    """χ² of an integer vector against the uniform distribution on `size` values, in standard errors."""
    counts = torch.bincount(a, minlength=size).double()
    assert len(counts) == size
    expected = len(a) / size
    return (((counts - expected).square() / expected).sum().item() - size + 1) / math.sqrt(2 * (size - 1))


def correlation(a, b):
    """Of two vectors, in standard errors 1/√n."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    return ((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()).item() * math.sqrt(len(a))


@pytest.mark.parametrize(("window", "decoys"), [(1, 0.3), (4, 0.3), (4, 0.0)])
def test_keyword_no_token_tells_about_the_dish(window, decoys):
    task = make_task("keyword", length=14, decoys=decoys, keyword_window=window)
    batch = task.sample(0, 0, batch_size=N)
    target = batch.targets[-1]
    assert unevenness(target, 8) < BOUND
    hidden = hide_keyword(batch, RandomStream(9))
    assert max(dependence(target, tokens) for tokens in hidden) < BOUND
    assert dependence(target, batch.inputs[0]) > 100
    assert max(dependence(target, kinds) for kinds in batch.kinds) < BOUND


def test_keyword_decoys_are_drawn_from_all_dishes_whatever_the_keyword():
    task = make_task("keyword", length=14, decoys=0.3)
    batch = task.sample(0, 0, batch_size=N)
    target, decoy = batch.targets[-1], batch.kinds == 2
    assert unevenness(batch.inputs[decoy], 8) < BOUND

    def strongest(tokens):
        """Over dishes: how often it is named as a decoy, against the keyword; and the latest decoy."""
        counts = [((tokens == dish) & decoy).sum(0) for dish in range(8)]
        latest = (decoy * torch.arange(1, 15)[:, None]).amax(0)
        last = torch.where(latest > 0, tokens.gather(0, (latest - 1).clamp(min=0)[None])[0], 8)
        assert dependence(target, decoy.sum(0)) < BOUND
        return max(*(dependence(target, count) for count in counts), dependence(target, last))

    assert strongest(batch.inputs) < BOUND
    # The mistake that one makes easily, "another dish than the keyword", tells what the keyword is not.
    others = torch.where(decoy & (batch.inputs == target), (batch.inputs + 1) % 8, batch.inputs)
    assert strongest(others) > 50


def test_adding_unmarked_values_and_places_tell_nothing_of_the_sum():
    batch = make_task("adding", length=12).sample(0, 0, batch_size=N)
    target, (values, markers) = batch.targets[-1, :, 0], batch.inputs.unbind(-1)
    hidden = hide_adding(batch, RandomStream(9)).unbind(-1)[0]
    features = [*hidden, *markers, *(hidden * markers), *(hidden * (1 - markers)), *hidden.square()]
    features += [hidden.sum(0), (values * (1 - markers)).sum(0), (hidden * markers).sum(0), hidden.amax(0)]
    assert max(abs(correlation(target, feature)) for feature in features) < BOUND
    assert correlation(target, (values * markers).sum(0)) == pytest.approx(math.sqrt(N))
    assert min(correlation(target, value) for value in values * markers) > BOUND


def test_adding_marks_are_uniform_in_their_halves_and_independent():
    batch = make_task("adding", length=13).sample(0, 0, batch_size=N)
    values, markers = batch.inputs.unbind(-1)
    first, second = markers[:6].argmax(0), markers[6:].argmax(0)
    assert unevenness(first, 6) < BOUND
    assert unevenness(second, 7) < BOUND
    assert dependence(first, second) < BOUND
    marked = [(values * markers)[half].sum(0) for half in (slice(0, 6), slice(6, 13))]
    for number in (*marked, values.flatten()):
        assert unevenness((number * 20).long(), 20) < BOUND
    assert abs(correlation(*marked)) < BOUND


def test_copy_symbols_are_uniform_and_independent_and_the_rest_is_constant():
    batch = make_task("copy", length=5).sample(0, 0, batch_size=N)
    assert torch.equal(batch.inputs[10:], batch.inputs[10:, :1].expand(-1, N, -1))
    symbols = batch.inputs[:10].argmax(-1)
    assert max(unevenness(symbol - 1, 8) for symbol in symbols) < BOUND
    for one in range(10):
        for two in range(10):
            said = batch.targets[15 + two]
            assert (dependence(symbols[one], said) < BOUND) == (one != two)


def features_of(task, inputs):
    """(B, F): what stands where, and how often; of numbers also the products of the channels."""
    if task.num_tokens is not None:
        inputs = F.one_hot(inputs, task.num_tokens).float()
        return torch.cat([inputs.transpose(0, 1).flatten(1), inputs.sum(0)], 1)
    rows = inputs.transpose(0, 1)  # (B, T, I)
    return torch.cat([rows.flatten(1), rows.prod(-1), rows.prod(-1).sum(1, keepdim=True)], 1)


def train_linear(task, features, batch):
    """Logistic (or linear, as the task's loss has it) regression of every answer on the features."""
    T, O = task.sequence_length, task.output_size  # noqa: E741
    weight = torch.zeros(features.shape[1], T * O, requires_grad=True)
    bias = torch.zeros(T * O, requires_grad=True)

    def answers(features):
        return (features @ weight + bias).view(-1, T, O).transpose(0, 1)

    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60)

    def closure():
        optimizer.zero_grad()
        loss = task.loss(answers(features), batch) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_linear_model_on_hidden_inputs_is_at_chance_on_new_ones(case):
    task, sizes = make_task(case.name, **case.options), (800, 2000)
    train, test = (task.sample(step, step, batch_size=size) for step, size in enumerate(sizes))
    scores = {}
    for hidden in (True, False):
        inputs = [
            case.hide(b, RandomStream(9, step=step)) if hidden else b.inputs for step, b in enumerate((train, test))
        ]
        answers = train_linear(task, features_of(task, inputs[0]), train)
        with torch.no_grad():
            scores[hidden] = task.metrics(answers(features_of(task, inputs[1])), test)[task.metric_name]
    better = 1 if task.metric_is_better == "higher" else -1
    # Not better than chance by 4 standard errors of a mean over the test's sequences; solved with nothing hidden.
    error = math.sqrt(case.variance / sizes[1])
    assert better * (scores[True] - case.chance) < 4 * error
    if case.solved_by == "better":
        assert better * (scores[False] - case.chance) > 8 * error
    else:
        threshold = 0.01 if better < 0 else 0.99
        assert better * (scores[False] - threshold) > 0


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_hiding_changes_what_carries_the_answer_and_nothing_else(case):
    task = make_task(case.name, **case.options)
    batch = task.sample(0, 0, batch_size=500)
    changed = (case.hide(batch, RandomStream(9)) != batch.inputs).view(*batch.kinds.shape, -1).any(-1)
    carries = batch.kinds == task.kind_names.index(case.carrier)
    assert not changed[~carries].any()
    assert changed[carries].double().mean() > 0.4  # one draw of x or y in two is the same by chance


# Not for multiplication by the protocol of 1997: there an unseen mark, whose number is 1, tells of a larger product.
@pytest.mark.parametrize(("name", "variant"), [
    ("multiplication", "standard"), ("multiplication", "pascanu"), ("adding", "hochreiter"), ("adding", "pascanu"),
])  # fmt: skip
def test_unmarked_numbers_places_and_lengths_tell_nothing_of_the_answer(name, variant):
    batch = make_task(name, length=20, variant=variant).sample(0, 0, batch_size=N)
    target = (batch.targets[..., 0] * batch.mask).sum(0)
    values, markers = batch.inputs.unbind(-1)
    marked = batch.kinds == 1
    hidden = torch.where(marked, RandomStream(9).uniform(tuple(values.shape)), values)
    features = [*hidden, *markers, *(hidden * (markers == 1)), hidden.sum(0), (values * ~marked).sum(0)]
    features += [hidden.amax(0), (batch.kinds != 2).sum(0)]
    told = [abs(correlation(target, feature)) for feature in features if feature.double().std() > 0]
    assert len(told) > 40
    assert max(told) < BOUND
    assert correlation(target, (values * marked).sum(0)) > 20


def test_selective_copy_places_tell_nothing_and_symbols_are_uniform():
    task = make_task("selective_copy", length=14, symbols=4)
    batch = task.sample(0, 0, batch_size=N)
    said = batch.targets[14:]
    assert max(unevenness(symbol, 8) for symbol in said) < BOUND
    hidden = hide_selective_copy(batch, RandomStream(9))
    assert max(dependence(symbol, tokens) for symbol in said for tokens in hidden[:14]) < BOUND
    assert dependence(said[0], batch.inputs[0]) > 50
    assert max(dependence(symbol, kinds) for symbol in said for kinds in batch.kinds[:14]) < BOUND
    assert max(dependence(said[a], said[b]) for a in range(4) for b in range(a)) < BOUND


@pytest.mark.parametrize("variant", ["standard", "mqar"])
def test_associative_recall_nothing_but_the_values_tells_the_value(variant):
    batch = make_task("associative_recall", length=14, variant=variant, pairs=3).sample(0, 0, batch_size=N)
    last = batch.mask.int().flip(0).argmax(0)
    target = batch.targets.flip(0).gather(0, last[None])[0]
    assert unevenness(target, 10) < BOUND
    hidden = hide_associative_recall(batch, RandomStream(9))
    assert max(dependence(target, tokens) for tokens in hidden) < BOUND
    assert min(dependence(target, batch.inputs[k]) for k in (1, 3, 5)) > 20


def test_embedded_reber_nothing_but_the_second_symbol_tells_the_last_but_one():
    task = make_task("embedded_reber", length=30)
    batch = task.sample(0, 0, batch_size=N)
    closing = batch.kinds == 2
    target = (batch.targets * closing).sum(0)
    assert abs((target == 1).double().mean() - 0.5) < BOUND / 2 / math.sqrt(N)
    step = torch.arange(29)[:, None]
    inner = torch.where((step > 1) & (step <= closing.int().argmax(0)), batch.inputs, 7)
    assert max(dependence(target, tokens) for tokens in inner) < BOUND
    assert dependence(target, closing.int().argmax(0)) < BOUND
    assert torch.equal(target, batch.inputs[1])


@pytest.mark.parametrize("variant", ["parity", "s3"])
def test_state_tracking_no_product_of_several_is_told_by_less_than_all(variant):
    """Without any one of the inputs so far, the product of the others tells nothing of the product."""
    task = make_task("state_tracking", length=5, variant=variant)
    batch = task.sample(0, 0, batch_size=N)
    assert max(unevenness(target, task.output_size) for target in batch.targets) < BOUND
    last = batch.targets[-1]
    assert max(dependence(last, read) for read in batch.inputs) < BOUND
    for place in range(5):
        other = RandomStream(9).integers(0, task.output_size, (N,))
        inputs = batch.inputs.clone()
        inputs[place] = other
        assert dependence(last, task.group.running_products(inputs)[-1]) < BOUND
    assert dependence(last, task.group.running_products(batch.inputs)[-1]) > 100
    assert dependence(batch.targets[0], batch.inputs[0]) > 100


def test_counting_only_the_number_of_as_tells_where_a_letter_ends():
    """The steps since the last a are the same for all strings that have come as far."""
    batch = make_task("counting", length=10).sample(0, 0, batch_size=N)
    n = (batch.inputs == 1).sum(0)
    assert unevenness(n - 1, 10) < BOUND
    for k in range(1, 10):  # at the k-th b of strings with at least k
        there = n >= k
        ends = batch.targets.gather(0, (n + k)[None].clamp(max=20))[0][there] == 0
        assert torch.equal(ends, n[there] == k)
        assert abs(ends.double().mean() - 1 / (11 - k)) < BOUND / (2 * math.sqrt(int(there.sum())))
