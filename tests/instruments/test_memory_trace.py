"""The memory trace: a readout finds what is there, finds nothing where nothing is, and its numbers are by hand."""

from __future__ import annotations

import pytest
import torch

from rnnlstm.instruments.memory_trace import answers, memory_trace, readout_accuracy, states_of, variance_ratio
from rnnlstm.tasks import make_task

from support.training import plan_for

N, H, K = 400, 6, 4


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(seed):
    return torch.randint(0, K, (N,), generator=torch.Generator().manual_seed(seed))


def test_the_readout_finds_a_class_that_is_written_and_none_that_is_not():
    y, z, codes = labels(1), labels(2), normal(K, H, seed=3)
    written = [torch.stack([codes[y] + 0.01 * normal(N, H), normal(N, H, seed=4)])]
    written += [torch.stack([codes[z] + 0.01 * normal(N, H, seed=5), normal(N, H, seed=6)])]
    accuracy = readout_accuracy(written[0], y, written[1], z, K)
    assert accuracy[0] == 1
    assert abs(accuracy[1] - 1 / K) < 0.1


def test_the_readout_is_ridge_regression_on_states_of_unit_variance():
    """As the least-squares solution with √(Nλ) I below the states and zeros below the answers."""
    y, z, codes = labels(1), labels(2), normal(K, H, seed=3)
    x, new = codes[y] + 2 * normal(N, H), codes[z] + 2 * normal(N, H, seed=5)
    scaled, unseen = ((s - x.mean(0)) / x.std(0, correction=0) for s in (x, new))
    one_hot = torch.nn.functional.one_hot(y, K).double()
    below = torch.cat([scaled, (N * 0.3) ** 0.5 * torch.eye(H, dtype=torch.float64)])
    w = torch.linalg.lstsq(below, torch.cat([one_hot - one_hot.mean(0), torch.zeros(H, K, dtype=torch.float64)]))
    expected = ((unseen @ w.solution + one_hot.mean(0)).argmax(-1) == z).double().mean()
    assert 0.3 < expected < 0.9
    assert readout_accuracy(x[None], y, new[None], z, K, ridge=0.3)[0] == expected


def test_the_readout_does_not_depend_on_the_scale_of_a_unit_and_bears_dead_ones():
    y, z, codes = labels(1), labels(2), normal(K, H, seed=3)
    x, new = (codes[y] + normal(N, H))[None], (codes[z] + normal(N, H, seed=5))[None]
    scale = torch.tensor([1e-12, 1e-3, 1, 1, 1e3, 1e6], dtype=torch.float64)
    assert readout_accuracy(x, y, new, z, K) == readout_accuracy(x * scale, y, new * scale, z, K)
    dead = [torch.cat([s, torch.full_like(s, 0.1)], -1) for s in (x, new)]
    assert readout_accuracy(x, y, new, z, K) == readout_accuracy(dead[0], y, dead[1], z, K)


def test_the_variance_ratio_by_hand_and_without_a_trace():
    """Classes {0, 2} and {4, 8}: means 1 and 6 around 3.5, between 4 · 2.5² = 25, within 2 · 1 + 2 · 4 = 10."""
    state, y = torch.tensor([[0.0], [2], [4], [8]]), torch.tensor([0, 0, 1, 1])
    assert variance_ratio(state, y, 2) == pytest.approx(2.5)
    assert variance_ratio(torch.cat([3 * state, 3 * state], 1) + 7, y, 2) == pytest.approx(2.5)
    without = [variance_ratio(normal(N, 50, seed=seed), labels(1), K) for seed in range(5)]
    assert sum(without) / 5 == pytest.approx((K - 1) / (N - K), rel=0.2)


@pytest.mark.parametrize("model", ["rnn", "lstm", "gru"])
def test_a_network_holds_its_keyword_at_first_and_the_states_are_the_cells(model):
    plan = plan_for(f"model={model}", "task=keyword", "task.length=12", "task.num_keywords=4")
    network = plan.network(0)
    trace = memory_trace(plan.task, network, seed=0, sequences=200)
    assert list(trace.accuracy) == list(trace.variance_ratio) == list(plan.cell.state_names)
    for accuracy in trace.accuracy.values():
        assert accuracy.shape == (12,)
        assert accuracy[0] == 1
        assert accuracy[-1] < 0.9  # it fades
    batch = plan.task.sample(0, 1, "probe", 5)
    states = states_of(network, batch)
    hidden, _ = network.recurrence(network.embed(batch.inputs))
    torch.testing.assert_close(states["hidden"], hidden)


def test_a_task_without_one_class_for_each_sequence_is_refused():
    for task in (make_task("adding", length=12), make_task("copy", length=12)):
        with pytest.raises(ValueError, match="one answer each"):
            answers(task.sample(0, 1, "probe", 3))
