"""No leak: with what carries the answer drawn anew, nothing else in the input tells about the target.

Each statistic has a control that must find something: the untouched input, or a leak put in on purpose.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rnnlstm.random_stream import RandomStream
from rnnlstm.tasks import make_task

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


#: By task: options, what carries the answer drawn anew, the metric's chance level and the variance of one sample's.
TASKS_WITH_ANSWERS = [
    ("copy", {"length": 3}, hide_copy, 1 / 8, 7 / 64 / 10),
    ("adding", {"length": 12}, hide_adding, 1 / 6, 1 / 15 - 1 / 36),
    ("keyword", {"length": 12, "decoys": 0.2}, hide_keyword, 1 / 8, 7 / 64),
]
IDS = [case[0] for case in TASKS_WITH_ANSWERS]


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


@pytest.mark.parametrize(("name", "options", "hide", "chance", "variance"), TASKS_WITH_ANSWERS, ids=IDS)
def test_a_linear_model_on_hidden_inputs_is_at_chance_on_new_ones(name, options, hide, chance, variance):
    task, sizes = make_task(name, **options), (800, 2000)
    train, test = (task.sample(step, step, batch_size=size) for step, size in enumerate(sizes))
    scores = {}
    for hidden in (True, False):
        inputs = [hide(b, RandomStream(9, step=step)) if hidden else b.inputs for step, b in enumerate((train, test))]
        answers = train_linear(task, features_of(task, inputs[0]), train)
        with torch.no_grad():
            scores[hidden] = task.metrics(answers(features_of(task, inputs[1])), test)[task.metric_name]
    better = 1 if task.metric_is_better == "higher" else -1
    # Not better than chance by 4 standard errors of a mean over the test's sequences; solved with nothing hidden.
    assert better * (scores[True] - chance) < 4 * math.sqrt(variance / sizes[1])
    assert task.solved(dict.fromkeys([task.metric_name], scores[False]))


@pytest.mark.parametrize(("name", "options", "hide", "chance", "variance"), TASKS_WITH_ANSWERS, ids=IDS)
def test_hiding_changes_what_carries_the_answer_and_nothing_else(name, options, hide, chance, variance):
    task = make_task(name, **options)
    batch = task.sample(0, 0, batch_size=500)
    changed = (hide(batch, RandomStream(9)) != batch.inputs).view(*batch.kinds.shape, -1).any(-1)
    carries = batch.kinds == task.kind_names.index({"copy": "symbol", "adding": "marked", "keyword": "keyword"}[name])
    assert not changed[~carries].any()
    assert changed[carries].double().mean() > 0.8  # one draw in eight is the same by chance
