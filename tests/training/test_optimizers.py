"""The optimisers are PyTorch's, bit for bit, and import no compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from rnnlstm.config.schema import AdamOptions, RMSpropOptions, SGDOptions
from rnnlstm.training.optimizers import make_optimizer

CASES = [
    (AdamOptions("adam", lr=0.01), lambda w: torch.optim.Adam(w, lr=0.01, fused=True)),
    (RMSpropOptions("rmsprop", lr=0.01, alpha=0.9), lambda w: torch.optim.RMSprop(w, lr=0.01, alpha=0.9)),
    (SGDOptions("sgd", lr=0.01, momentum=0.9), lambda w: torch.optim.SGD(w, lr=0.01, momentum=0.9, fused=True)),
    (SGDOptions("sgd", lr=0.01), lambda w: torch.optim.SGD(w, lr=0.01, fused=True)),
    (
        AdamOptions("adam", lr=0.01, weight_decay=0.1, betas=[0.5, 0.9]),
        lambda w: torch.optim.Adam(w, lr=0.01, weight_decay=0.1, betas=(0.5, 0.9), fused=True),
    ),
    (
        RMSpropOptions("rmsprop", lr=0.01, weight_decay=0.1),
        lambda w: torch.optim.RMSprop(w, lr=0.01, weight_decay=0.1),
    ),
    (
        SGDOptions("sgd", lr=0.01, momentum=0.9, weight_decay=0.1),
        lambda w: torch.optim.SGD(w, lr=0.01, momentum=0.9, weight_decay=0.1, fused=True),
    ),
]
NAMES = ["adam", "rmsprop", "momentum", "sgd", "adam-decay-betas", "rmsprop-decay", "momentum-decay"]


def weights(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 5, 7), (3, 1), (2,)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def gradients(step, gaps):
    """With gaps: one weight gets its first gradient late, and one has none at one step."""
    given = [True, not gaps or step > 2, not gaps or step != 5]
    return [gradient.detach() if there else None for gradient, there in zip(weights(step), given, strict=True)]


@pytest.mark.parametrize(("options", "theirs"), CASES, ids=NAMES)
def test_each_equals_pytorchs_bit_for_bit_and_goes_on_from_its_state(options, theirs):
    mine, reference = weights(0), weights(0)
    own, other = make_optimizer(options, mine), theirs(reference)
    gaps = options.name != "sgd"  # which PyTorch's fused SGD can't have
    for step in range(1, 9):
        for one, two, gradient in zip(mine, reference, gradients(step, gaps), strict=True):
            one.grad = two.grad = gradient
        own.step()
        other.step()
        assert all(torch.equal(one, two) for one, two in zip(mine, reference, strict=True)), step
        if step == 4:  # from here on with PyTorch's state
            own = make_optimizer(options, mine)
            own.load_state(other.state_dict()["state"])
    assert own.state_dict()["state"].keys() == {0, 1, 2}
    own.zero_grad()
    assert all(weight.grad is None for weight in mine)


@pytest.mark.slow
def test_a_step_imports_no_compiler():
    program = (
        "import sys, torch\n"
        "from rnnlstm.config.schema import AdamOptions\n"
        "from rnnlstm.training.optimizers import make_optimizer\n"
        "weight = torch.ones(2, requires_grad=True)\n"
        "weight.grad = torch.ones(2)\n"
        "make_optimizer(AdamOptions('adam'), [weight]).step()\n"
        "print(weight.tolist() != [1, 1], 'torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
