"""Drop-in means drop-in: what published code does with torch.nn's recurrent modules, it can do with these."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, weight_norm

import rnnlstm

NAMES = ["RNN", "LSTM", "GRU"]
OPTIONS = [{}, {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.3, "bidirectional": True}]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "all options"])
def test_attributes_and_methods_of_torch_nn(name, options):
    theirs, ours = (getattr(module, name)(3, 4, **options) for module in (nn, rnnlstm))
    assert isinstance(ours, nn.RNNBase)
    for attribute in nn.RNNBase.__constants__:
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert ours.flatten_parameters() is None
    assert [[w.shape for w in group] for group in ours.all_weights] == [
        [w.shape for w in group] for group in theirs.all_weights
    ]
    named = dict(ours.named_parameters())
    assert [id(w) for group in ours.all_weights for w in group] == [*map(id, named.values())]
    x = torch.zeros(5, 2, 3)
    assert ours.get_expected_hidden_size(x, None)[:3] == theirs.get_expected_hidden_size(x, None)[:3]
    start = repr(theirs).removesuffix(")")
    assert repr(ours).startswith(start + ", "), (repr(ours), start)


def test_code_that_initialises_what_is_an_rnnbase_finds_it(name):
    model = nn.Sequential(nn.Linear(3, 3), getattr(rnnlstm, name)(3, 4))

    def initialise(module):
        if isinstance(module, nn.RNNBase):
            for group in module.all_weights:
                for weight in group:
                    nn.init.constant_(weight, 0.25)

    model.apply(initialise)
    assert all((w == 0.25).all() for w in model[1].parameters())


def test_it_survives_copies_pickles_and_files(name):
    module = getattr(rnnlstm, name)(3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    expected = module(x)[0]
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(buffer, weights_only=False),
    ):  # fmt: skip
        assert torch.equal(other(x)[0], expected)
        assert all(a is b for a, b in zip((w for g in other.all_weights for w in g), other.parameters(), strict=True))
        with torch.no_grad():
            other.weight_hh_l0.zero_()
        assert not torch.equal(other(x)[0], expected)
    assert torch.equal(module(x)[0], expected)


def test_weights_may_be_plain_tensors(name):
    """As in the replicas of DataParallel, and wherever something computes them."""
    module, x = getattr(rnnlstm, name)(3, 4), torch.randn(5, 2, 3)
    expected = module(x)[0]
    replica = module._replicate_for_data_parallel()
    for key, weight in module.named_parameters():
        replica._parameters.pop(key, None)
        setattr(replica, key, weight * 1)
    assert next(replica.parameters(), None) is None
    assert torch.equal(replica(x)[0], expected)
    replica(x)[0].sum().backward()
    assert all(w.grad is not None for w in module.parameters())


class Doubled(nn.Module):
    """No way back: the original is not to be had from the weight."""

    def forward(self, original):
        return 2 * original


def test_reset_initialises_the_originals_of_parametrized_weights(name):
    torch.manual_seed(0)
    module = getattr(rnnlstm, name)(3, 4)
    parametrize.register_parametrization(module, "weight_hh_l0", Doubled(), unsafe=True)
    original = module.parametrizations.weight_hh_l0.original
    with torch.no_grad():
        original.fill_(7)
    module.reset_parameters()
    assert original.abs().max() <= 0.5
    assert original.std() > 0.1
    assert torch.equal(module.weight_hh_l0, 2 * original)


def test_reset_goes_back_through_weight_norm_and_orthogonal(name):
    torch.manual_seed(0)
    module = weight_norm(getattr(rnnlstm, name)(3, 4), "weight_ih_l0")
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(7)
    module.reset_parameters()
    assert all(w.abs().max() <= 1 for w in module.parameters())
    assert 0.1 < module.weight_ih_l0.std() < 0.5
    other = orthogonal(rnnlstm.RNN(3, 4), "weight_hh_l0")
    other.reset_parameters()
    torch.testing.assert_close(other.weight_hh_l0 @ other.weight_hh_l0.T, torch.eye(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["fused", "reference", "torch"])
def test_a_parametrized_weight_is_trained(name, backend):
    module = getattr(rnnlstm, name)(3, 4, backend=backend)
    parametrize.register_parametrization(module, "weight_hh_l0", Doubled(), unsafe=True)
    module(torch.randn(5, 2, 3))[0].sum().backward()
    assert module.parametrizations.weight_hh_l0.original.grad.abs().sum() > 0


FUSED_CANNOT = {
    "forward mode": lambda m, x: torch.func.jvp(lambda x: m(x)[0], (x,), (x,)),
    "jacfwd": lambda m, x: torch.func.jacfwd(lambda x: m(x)[0].sum())(x),
    "vectorized": lambda m, x: torch.autograd.functional.jacobian(lambda x: m(x)[0].sum((0, 1)), x, vectorize=True),
    "batched": lambda m, x: torch.autograd.grad(
        m(x.requires_grad_())[0].sum((0, 1)), x, torch.eye(4), is_grads_batched=True
    ),
    "double backward": lambda m, x: torch.autograd.grad(
        m(x.requires_grad_())[0].sum(), x, create_graph=True
    )[0].sum().backward(),
    "hessian": lambda m, x: torch.func.hessian(lambda x: m(x)[0].sum())(x),
    "jit.trace": lambda m, x: torch.jit.trace(m, (x,)),
    "export": lambda m, x: torch.export.export(m, (x,)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, also where PyTorch itself uses it
@pytest.mark.parametrize("how", FUSED_CANNOT)
def test_what_the_fused_backend_can_not_names_the_way_out_and_that_is_one(name, how):
    x = torch.randn(3, 2, 3)
    with pytest.raises(RuntimeError, match="backend='reference'") as raised:
        FUSED_CANNOT[how](getattr(rnnlstm, name)(3, 4, backend="fused"), x.clone())
    assert len(str(raised.value).splitlines()) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's tracers
        FUSED_CANNOT[how](getattr(rnnlstm, name)(3, 4, backend="reference"), x.clone())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("record", [torch.jit.script, torch.fx.symbolic_trace], ids=["jit.script", "fx"])
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_what_no_backend_can_says_so_in_a_line(name, backend, record):
    with pytest.raises(RuntimeError, match=r"torch\.(jit|fx).*backend='reference'") as raised:
        record(getattr(rnnlstm, name)(3, 4, backend=backend))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("backend", ["fused", "reference", "torch"])
def test_vmap_over_the_batch_and_per_sample_gradients_hold(name, backend):
    if backend == "torch":
        pytest.skip("PyTorch's operations have no such rule")
    torch.manual_seed(0)
    module, x = getattr(rnnlstm, name)(3, 4, backend=backend), torch.randn(6, 5, 2, 3)
    stacked = torch.func.vmap(lambda x: module(x)[0])(x)
    torch.testing.assert_close(stacked, torch.stack([module(each)[0] for each in x]))
