"""The cases in which PyTorch's own tests try RNN, LSTM and GRU, tried with the drop-in modules.

Left out, as the modules don't have it: projections, cuDNN, quantisation, scripting.
"""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import rnnlstm

pytestmark = pytest.mark.slow

KINDS = [("RNN", {"nonlinearity": "tanh"}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {})]
BACKENDS = ["fused", "reference", "torch"]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join([kind[0], *kind[1].values()]))
def kind(request):
    return request.param


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def pair(kind, backend, *sizes, **options):
    """PyTorch's module and ours with its weights, float64."""
    torch.manual_seed(0)
    name, own = kind
    theirs = getattr(nn, name)(*sizes, dtype=torch.float64, **own, **options)
    ours = getattr(rnnlstm, name)(*sizes, dtype=torch.float64, backend=backend, **own, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def random(*shape):
    return torch.randn(shape, dtype=torch.float64)


def states_of(kind, *shape):
    return (random(*shape), random(*shape)) if kind[0] == "LSTM" else random(*shape)


def flat(output):
    """Every tensor that a module returned, packed ones as data."""
    parts = [output] if isinstance(output, torch.Tensor) else [*output]
    parts = [output.data] if isinstance(output, PackedSequence) else parts
    return [t for part in parts for t in ([part] if isinstance(part, torch.Tensor) else flat(part))]


def same(theirs, ours, *inputs):
    """Equal values, and equal gradients of everything from equal cotangents."""
    found = []
    for module in (theirs, ours):
        leaves = [t.detach().clone().requires_grad_() for given in inputs for t in flat(given)]
        rest = iter(leaves)

        def renew(given, rest=rest):
            if isinstance(given, PackedSequence):
                return PackedSequence(next(rest), *given[1:])
            return next(rest) if isinstance(given, torch.Tensor) else tuple(renew(each) for each in given)

        results = flat(module(*map(renew, inputs)))
        generator = torch.Generator().manual_seed(1)
        total = sum((t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in results)
        found.append([*results, *torch.autograd.grad(total, [*leaves, *module.parameters()])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("bias", "batch_first", "bidirectional"), [*itertools.product((False, True), repeat=3)])
def test_without_a_batch_dimension(kind, backend, bias, batch_first, bidirectional):
    for hidden in (2, 3):
        pair_of = pair(kind, backend, 2, hidden, 2, bias=bias, batch_first=batch_first, bidirectional=bidirectional)
        same(*pair_of, random(3, 2))
        same(*pair_of, random(3, 2), states_of(kind, 4 if bidirectional else 2, hidden))
        outputs, last = pair_of[1](random(3, 2))
        assert outputs.shape == (3, hidden * (1 + bidirectional))
        assert flat(last)[0].shape == (2 * (1 + bidirectional), hidden)


@pytest.mark.parametrize(("bias", "bidirectional"), [*itertools.product((False, True), repeat=2)])
@pytest.mark.parametrize("lengths", [[5, 3], [5, 3, 3, 2, 2], [1], [4, 4, 4]])
def test_packed(kind, backend, bias, bidirectional, lengths):
    modules = pair(kind, backend, 2, 3, 2, bias=bias, bidirectional=bidirectional)
    packed = pack_padded_sequence(random(max(lengths), len(lengths), 2), torch.tensor(lengths))
    same(*modules, packed)
    same(*modules, packed, states_of(kind, 4 if bidirectional else 2, len(lengths), 3))


def test_packed_in_any_order_is_the_sequences_one_by_one(kind, backend):
    _, ours = pair(kind, backend, 3, 4, 2, bidirectional=True)
    sequences = [random(n, 3) for n in (3, 6, 1, 4)]
    packed, last = ours(pack_sequence(sequences, enforce_sorted=False))
    outputs, lengths = pad_packed_sequence(packed)
    for b, sequence in enumerate(sequences):
        alone, end = ours(sequence)
        torch.testing.assert_close(outputs[: lengths[b], b], alone)
        for a, e in zip(flat(last), flat(end), strict=True):
            torch.testing.assert_close(a[:, b], e)


def test_a_packed_sequence_of_wrong_features_is_an_error(kind, backend):
    for module in pair(kind, backend, 3, 4):
        with pytest.raises(RuntimeError):
            module(pack_padded_sequence(random(4, 2, 5), torch.tensor([4, 2])))


def test_every_wrong_size_is_an_error(kind, backend):
    """Input size, hidden size, layers and batch of the input and of each state, one at a time."""
    I, H, L, B, T = 3, 5, 2, 4, 6  # noqa: E741
    for module, bidirectional in itertools.product((0, 1), (False, True)):
        D = 1 + bidirectional
        tried = pair(kind, backend, I, H, L, bidirectional=bidirectional)[module]

        def call(shape, *state_shapes, tried=tried):
            states = tuple(random(*s) for s in state_shapes)
            return tried(random(*shape), states if len(states) > 1 else states[0])

        good = (L * D, B, H)
        count = 2 if kind[0] == "LSTM" else 1
        call((T, B, I), *[good] * count)
        for wrong_input in ((T, B, I + 1), (T, B + 1, I)):
            with pytest.raises(RuntimeError):
                call(wrong_input, *[good] * count)
        for wrong in ((L * D + 1, B, H), (L * D, B + 1, H), (L * D, B, H + 1)):
            for which in range(count):
                with pytest.raises(RuntimeError):
                    call((T, B, I), *[wrong if k == which else good for k in range(count)])


@pytest.mark.parametrize(("arguments", "options", "error", "words"), [
    ((10, 0, 1), {}, ValueError, "hidden_size must be greater than zero"),
    ((10, 10, 0), {}, ValueError, "num_layers must be greater than zero"),
    ((0, 5), {}, ValueError, "input_size must be greater than zero"),
    ((-1, 5), {}, ValueError, "input_size must be greater than zero"),
    ((3.0, 5), {}, TypeError, "input_size should be of type int, got: float"),
    (("10", 5), {}, TypeError, "input_size should be of type int, got: str"),
    ((3, 5.0), {}, TypeError, "hidden_size should be of type int, got: float"),
    ((3, 5), {"bias": 0}, TypeError, "bias should be of type bool, got: int"),
    ((3, 5), {"bias": "True"}, TypeError, "bias should be of type bool, got: str"),
    ((3, 5), {"batch_first": 1}, TypeError, "batch_first should be of type bool, got: int"),
    ((3, 5), {"batch_first": "False"}, TypeError, "batch_first should be of type bool, got: str"),
    ((3, 5), {"dropout": 1.5}, ValueError, "dropout should be a number in range"),
])  # fmt: skip
def test_errors_have_the_kind_and_the_words_of_torch_nn(kind, arguments, options, error, words):
    for module in (nn, rnnlstm):
        with pytest.raises(error, match=words):
            getattr(module, kind[0])(*arguments, **options)


def test_another_type_of_input_is_an_error_with_both_ways_out(kind, backend):
    words = r"RNN input dtype .* does not match weight dtype .* Convert input: .* or convert model: .*"
    for module in pair(kind, backend, 3, 5):
        with pytest.raises(ValueError, match=words):
            module(torch.randn(2, 4, 3))


def test_without_a_state_it_starts_from_zeros(kind, backend):
    _, ours = pair(kind, backend, 3, 4, 2, bidirectional=True)
    x, zero = random(5, 2, 3), torch.zeros(4, 2, 4, dtype=torch.float64)
    for a, b in zip(flat(ours(x)), flat(ours(x, (zero, zero) if kind[0] == "LSTM" else zero)), strict=True):
        assert torch.equal(a, b)


def test_two_backward_passes_through_one_graph_give_the_same(kind, backend):
    _, ours = pair(kind, backend, 3, 4, 2, bidirectional=True)
    x = random(5, 2, 3).requires_grad_()
    total = ours(x)[0].square().sum()
    first, second = (torch.autograd.grad(total, [x, *ours.parameters()], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_dropout_draws_what_torch_nn_draws(kind, backend, p):
    theirs, ours = pair(kind, backend, 3, 8, 3, dropout=p)
    x = random(5, 2, 3)
    for training in (True, False):
        outputs = []
        for module in (theirs, ours):
            torch.manual_seed(7)
            outputs.append(module.train(training)(x)[0])
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    if 0 < p < 1:
        ours.train()
        assert not torch.equal(ours(x)[0], ours(x)[0])
    ours.dropout = 0.0  # it may be changed later
    assert torch.equal(ours.train()(x)[0], ours.eval()(x)[0])


def test_gradients_by_finite_differences(kind, backend):
    _, ours = pair(kind, backend, 2, 3, 2, bidirectional=True)
    if kind[1].get("nonlinearity") == "relu":
        pytest.skip("finite differences fail at its kink")
    names, weights = zip(*ours.named_parameters(), strict=True)

    def call(x, *weights):
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(ours, named, (x,))[0]

    assert torch.autograd.gradcheck(call, (random(3, 2, 2).requires_grad_(), *weights))


def test_strided_inputs_give_what_contiguous_ones_give(kind, backend):
    _, ours = pair(kind, backend, 3, 4, 2, bidirectional=True)
    x = random(5, 2, 3)
    for other in (
        x.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([x, x], -1)[..., 0], x.mT.contiguous().mT,
        x[:, :1].expand(5, 2, 3),
    ):  # fmt: skip
        # Beside the fused loops, products are PyTorch's: on some processors their sums follow the strides.
        tolerance = 0 if backend == "fused" else 1e-14
        torch.testing.assert_close(ours(other)[0], ours(other.contiguous())[0], rtol=0, atol=tolerance)


def test_types_devices_and_weights_are_exchanged_as_modules_do(kind, backend):
    theirs, ours = pair(kind, backend, 3, 4, 2, bidirectional=True)
    for dtype in (torch.float32, torch.float64):
        theirs.to(dtype), ours.to(dtype)
        x = torch.randn(5, 2, 3, dtype=dtype)
        torch.testing.assert_close(theirs(x)[0], ours(x)[0])
    theirs.load_state_dict(ours.state_dict())
    made = getattr(rnnlstm, kind[0])(3, 4, device="meta", dtype=torch.float64, backend=backend, **kind[1])
    assert all(w.device.type == "meta" and w.dtype == torch.float64 for w in made.parameters())
    made = made.to_empty(device="cpu")
    made.reset_parameters()
    assert all(w.isfinite().all() for w in made.parameters())
    twin = copy.deepcopy(ours)
    with torch.no_grad():
        for w in twin.parameters():
            w.add_(1)
    assert not any(torch.equal(a, b) for a, b in zip(ours.parameters(), twin.parameters(), strict=True))


def test_pruned_weights_are_used(kind, backend):
    theirs, ours = pair(kind, backend, 3, 4)
    for module in (theirs, ours):
        prune.l1_unstructured(module, "weight_ih_l0", amount=0.5)
        module.flatten_parameters()
    x = random(5, 2, 3)
    torch.testing.assert_close(theirs(x)[0], ours(x)[0])
    prune.remove(ours, "weight_ih_l0")
    torch.testing.assert_close(theirs(x)[0], ours(x)[0])
    ours(x)[0].sum().backward()


def test_the_repr_names_what_was_chosen(kind):
    text = repr(getattr(rnnlstm, kind[0])(3, 4, 2, bias=False, batch_first=True, dropout=0.5, bidirectional=True))
    for words in ("(3, 4", "num_layers=2", "bias=False", "batch_first=True", "dropout=0.5", "bidirectional=True"):
        assert words in text
