"""A stack of replicas against its networks one by one, in float64: values and gradients."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from rnnlstm.cells import CELLS, make_cell
from rnnlstm.models import Network, Replicas, Sizes
from rnnlstm.recurrence import BACKENDS
from rnnlstm.tasks import TASKS, make_task

from support.tasks import VARIANTS, small
from support.training import has_backend

I, H, E, O, K, T, B = 3, 5, 4, 2, 7, 6, 2  # noqa: E741

#: Every cell with every choice, on every backend that has it.
CASES = [
    pytest.param(name, {field.name: choice}, backend, id=f"{name}-{field.name}={choice}-{backend}")
    for name in CELLS
    for field in dataclasses.fields(CELLS[name])
    for choice in field.metadata["choices"] or ()
    for backend in BACKENDS
    if has_backend(make_cell(name, **{field.name: choice}), backend)
]


def network(cell, seed, *, tokens, backend="reference", layers=2, dtype=torch.float64):
    return Network(
        cell, Sizes(K if tokens else None, None if tokens else I, O, H, layers, E), max_lag=T, backend=backend,
        generator=torch.Generator().manual_seed(seed), dtype=dtype,
    )  # fmt: skip


def inputs_for(count, tokens):
    return torch.randint(K, (count, T, B)) if tokens else torch.randn(count, T, B, I, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("name", "options", "backend"), CASES)
def test_each_replica_gives_its_networks_outputs_and_gradients(name, options, backend, count, tokens):
    torch.manual_seed(0)
    networks = [network(make_cell(name, **options), seed, tokens=tokens, backend=backend) for seed in range(count)]
    inputs, cotangents = inputs_for(count, tokens), torch.randn(count, T, B, O, dtype=torch.float64)
    # The stack takes its networks apart: it gets copies.
    replicas = Replicas(copy.deepcopy(networks))
    assert replicas.maps == (count > 1 and backend != "torch")
    outputs = torch.stack(replicas(inputs))
    assert outputs.shape == (count, T, B, O)
    (outputs * cotangents).sum().backward()
    assert set(replicas.parameters) == set(networks[0].state_dict())
    for r, single in enumerate(networks):
        expected = single(inputs[r])
        (expected * cotangents[r]).sum().backward()
        close(outputs[r], expected)
        close(replicas.one(r, inputs[r]), expected)
        for key, weight in single.named_parameters():
            assert torch.equal(replicas.parameters[key][r], weight)
            assert weight.grad.any()
            close(replicas.parameters[key].grad[r], weight.grad)


def test_replicas_take_sequences_of_different_lengths():
    torch.manual_seed(0)
    networks = [network(make_cell("lstm"), seed, tokens=True) for seed in range(3)]
    replicas, inputs = Replicas(copy.deepcopy(networks)), inputs_for(3, True)
    ragged = [inputs[0], inputs[1][:3], inputs[2][:4]]
    outputs = replicas(ragged)
    assert [len(out) for out in outputs] == [T, 3, 4]
    for single, x, out in zip(networks, ragged, outputs, strict=True):
        close(out, single(x))


def test_the_loss_of_one_replica_reaches_no_other():
    torch.manual_seed(0)
    replicas = Replicas([network(make_cell("lstm"), seed, tokens=True) for seed in range(3)])
    replicas(inputs_for(3, True))[1].square().sum().backward()
    for weight in replicas.parameters.values():
        assert weight.grad[1].any()
        assert not weight.grad[[0, 2]].any()


def test_weights_are_views_that_load_into_a_network():
    torch.manual_seed(0)
    replicas = Replicas([network(make_cell("rnn"), seed, tokens=True) for seed in range(3)])
    inputs = inputs_for(3, True)
    with torch.no_grad():
        for weight in replicas.parameters.values():
            weight.mul_(1.5)
    single = network(make_cell("rnn"), 9, tokens=True)
    single.load_state_dict(replicas.weights(2))
    close(single(inputs[2]), replicas(inputs)[2])
    for name, weight in replicas.weights(2).items():
        assert weight.data_ptr() == replicas.parameters[name][2].data_ptr()


@pytest.mark.parametrize(("name", "blocks"), [("rnn", 1), ("lstm", 4)])
@pytest.mark.parametrize("tokens", [False, True])
def test_parameters_each_counts_one_replicas_numbers(name, blocks, tokens):
    networks = [network(make_cell(name), seed, tokens=tokens) for seed in range(3)]
    first = blocks * H * ((E if tokens else I) + H + 2)
    second = blocks * H * (H + H + 2)
    by_hand = (K * E if tokens else 0) + first + second + O * H + O
    assert sum(weight.numel() for weight in networks[0].parameters()) == by_hand
    replicas = Replicas(networks)
    assert replicas.count == 3
    assert replicas.parameters_each == by_hand


@pytest.mark.parametrize("tokens", [False, True])
def test_a_network_is_drawn_from_its_generator_alone(tokens):
    before = torch.get_rng_state()
    a, b, c = (network(make_cell("lstm"), seed, tokens=tokens, dtype=torch.float32) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for key, weight in a.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, b.state_dict()[key])
        assert not torch.equal(weight, c.state_dict()[key])
    assert a.readout.weight.abs().max() <= H**-0.5
    assert a.readout.bias.abs().max() <= H**-0.5


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("count", [1, 3])
def test_one_hot_inputs_through_a_table_equal_those_as_numbers(name, count):
    task = make_task("copy", length=30)
    sizes = Sizes(None, task.input_size, task.output_size, 7)
    found = []
    for one_hot in (True, False):
        made = [
            Network(
                make_cell(name), sizes, max_lag=30, generator=torch.Generator().manual_seed(r), dtype=torch.float64
            )
            for r in range(count)
        ]
        replicas = Replicas(made, one_hot=one_hot)
        batches = [task.sample(seed, 1, batch_size=4) for seed in range(count)]
        outputs = replicas([batch.inputs for batch in batches], scored=[batch.scored for batch in batches])
        sum(out.square().sum() for out in outputs).backward()
        found.append([*outputs, *(weight.grad for weight in replicas.parameters.values())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_tasks_that_say_so_have_one_hot_inputs():
    said = [
        task
        for name, options in (case.values for case in VARIANTS)
        if (task := small(name, **options)).one_hot_inputs
    ]
    assert {task.name for task in said} == {name for name in TASKS if TASKS[name].one_hot_inputs} != set()
    for task in said:
        inputs = task.sample(0, 1, batch_size=5).inputs
        assert torch.equal(inputs.sum(-1), torch.ones(inputs.shape[:2]))
        assert torch.equal(inputs, inputs.bool().float())
