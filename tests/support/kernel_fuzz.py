"""Hands a fused layer random mixes of types, devices, shapes and strides: `python kernel_fuzz.py FIRST COUNT`.

Each mix must end in the reference's result or in an exception. A mix that ends in a signal is named by the last line
of output, which is its number.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch
from torch.func import functional_call

import rnnlstm
from rnnlstm.cells import make_cell
from rnnlstm.recurrence.fused import fused_replicas
from rnnlstm.recurrence.modules import reference_layer

TYPES = (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.complex64)
#: Largest relative error of a result in the lowest of the precisions that took part.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}


def disturbed(tensor, random, chance):
    """The tensor, or another in its place: of another type, device, shape or layout in memory."""
    if random.random() < chance:
        tensor = tensor.to(TYPES[random.integers(len(TYPES))])
    if random.random() < chance:
        tensor = tensor.to("meta")
    if random.random() < chance and tensor.dim():
        k = int(random.integers(tensor.dim()))
        change = random.integers(5)
        if change == 0:
            tensor = tensor.narrow(k, 0, int(random.integers(tensor.shape[k] + 1)))
        elif change == 1:
            tensor = torch.cat([tensor, tensor], k)
        elif change == 2:
            tensor = tensor.select(k, 0) if tensor.shape[k] else tensor
        elif change == 3:
            tensor = tensor.unsqueeze(k)
        else:
            tensor = tensor.transpose(0, k)
    if random.random() < 3 * chance and tensor.dim():
        layout = random.integers(3)
        if layout == 0:
            tensor = tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor
        elif layout == 1:
            tensor = torch.stack([tensor, tensor], -1)[..., 1]
        else:
            tensor = tensor[:1].expand_as(tensor) if tensor.shape[0] else tensor
    return tensor


def mix_of_replicas(number):
    """As `mix`, of replicas at once, with token numbers and scored places, some of them out of range."""
    random = np.random.default_rng(number)
    torch.manual_seed(number)
    cell = make_cell(("rnn", "lstm", "lstm_1997", "gru")[random.integers(4)])
    R, T, B, E, H = (int(n) for n in random.integers(1, 7, 5))
    V, N, chance = int(random.integers(1, 9)), int(random.integers(1, T * B + 1)), random.choice([0.0, 0.02, 0.1])
    dtype = (torch.float32, torch.float64)[random.integers(2)]
    with_tokens, with_scored = random.random() < 0.7, random.random() < 0.7
    features = torch.randn(R, V, E, dtype=dtype)
    inputs = torch.randint(V, (R, T, B)) if with_tokens else torch.randn(R, T, B, E, dtype=dtype)
    scored = torch.stack([torch.randperm(T * B)[:N] for _ in range(R)]) if with_scored else None
    if random.random() < 3 * chance:  # a number that no token or place has
        whole = scored if scored is not None and random.random() < 0.5 else inputs
        if not whole.is_floating_point():
            whole.view(-1)[int(random.integers(whole.numel()))] = int(
                random.choice([-7, V, T * B, 2**31, 2**40, -(2**62)])
            )
    weights = {name: torch.randn(R, *shape, dtype=dtype) for name, shape in cell.parameter_shapes(E, H, True).items()}
    inputs = disturbed(inputs, random, chance)
    scored = None if scored is None else disturbed(scored, random, chance)
    given = [disturbed(tensor, random, chance) for tensor in (features, *weights.values())]
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in given]
    layers = [dict(zip(weights, leaves[1:], strict=True))]
    try:
        out = fused_replicas(cell, layers, inputs, leaves[0] if with_tokens else None, scored)
        (out.double() * 0.3).sum().backward()
    except Exception as error:
        return None if chance else f"{type(error).__name__}: {error}"  # of any kind: the mix makes no sense
    if chance:  # that it ended without a signal is what is asked
        return None
    expected = []
    for r in range(R):
        x = torch.nn.functional.embedding(inputs[r], leaves[0][r]) if with_tokens else inputs[r]
        state = tuple(x.new_zeros(B, H) for _ in cell.state_names)
        hidden, _ = reference_layer(cell, x, state, {name: weight[r] for name, weight in layers[0].items()})
        expected.append(hidden if scored is None else hidden.flatten(0, 1)[scored[r]])
    wanted = [leaf for leaf in leaves if leaf.grad is not None]
    theirs = torch.autograd.grad((torch.stack(expected).double() * 0.3).sum(), wanted)
    for a, b in zip((out, *(leaf.grad for leaf in wanted)), (torch.stack(expected), *theirs), strict=True):
        error = (a.double() - b.double()).norm() / (1 + b.double().norm())
        if not error <= TOLERANCE[dtype]:
            return f"off by {error:.2g}: {tuple(a.shape)}"
    return None


def mix(number):
    """Returns what was wrong with mix `number`; None if nothing was."""
    random = np.random.default_rng(number)
    torch.manual_seed(number)
    name, nonlinearity = [("RNN", "tanh"), ("RNN", "relu"), ("LSTM", ""), ("GRU", "")][random.integers(4)]
    T, B, I, H = (int(n) for n in random.integers(1, 7, 4))  # noqa: E741
    if random.random() < 0.1:
        H = 128
    L, bidirectional = int(random.integers(1, 3)), bool(random.random() < 0.3)
    options = {"bidirectional": bidirectional} | ({"nonlinearity": nonlinearity} if nonlinearity else {})
    dtype = (torch.float32, torch.float64)[random.integers(2)]
    modules = [getattr(rnnlstm, name)(I, H, L, dtype=dtype, backend=b, **options) for b in ("reference", "fused")]
    chance = random.choice([0.0, 0.02, 0.1])
    states = [torch.randn(L * (1 + bidirectional), B, H, dtype=dtype) for _ in modules[0].cell.state_names]
    x = disturbed(torch.randn(T, B, I, dtype=dtype), random, chance)
    states = [disturbed(state, random, chance) for state in states]
    weights = {key: disturbed(w.detach(), random, chance) for key, w in modules[0].named_parameters()}
    given = None if random.random() < 0.3 else (tuple(states) if len(states) > 1 else states[0])
    autocast = bool(random.random() < 0.3)
    found = []
    for module in modules:
        leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in (x, *weights.values())]
        try:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                out, last = functional_call(module, dict(zip(weights, leaves[1:], strict=True)), (leaves[0], given))
                results = [out, *([last] if isinstance(last, torch.Tensor) else last)]
            sum((result.double() * 0.3).sum() for result in results).backward()
            gradients = [leaf.grad for leaf in leaves if leaf.requires_grad]
            if autocast and nonlinearity == "relu":  # its slope jumps where a pre-activation is rounded past 0
                gradients = []
            found.append([r.detach() for r in results] + gradients)
        except Exception as error:  # of any kind: the mix makes no sense
            if type(error) in (AssertionError, AttributeError, IndexError, KeyError, UnboundLocalError):
                return f"{type(error).__name__}: {error}"
            found.append(None)
    if found[1] is None:
        return None if found[0] is None or chance else "the fused backend refuses what makes sense"
    if found[0] is None:
        return "the reference refuses it, the fused backend does not"
    for expected, ours in zip(*found, strict=True):
        if (expected is None) != (ours is None):
            return "a gradient is missing"
        if expected is None or expected.device.type == "meta":
            continue
        limit = max(TOLERANCE[t.dtype] for t in (expected, ours, x, *weights.values()))
        error = (expected.double() - ours.double()).norm() / (1 + expected.double().norm())
        if not error <= (0.15 if autocast else limit):
            return f"off by {error:.2g}: {tuple(expected.shape)} {expected.dtype} {ours.dtype}"
    return None


def main():
    first, count = map(int, sys.argv[1:])
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    wrong = 0
    for number in range(first, first + count):
        print(number, flush=True)
        if (problem := (mix_of_replicas if number % 3 == 2 else mix)(number)) is not None:
            wrong += 1
            print(f"mix {number}: {problem}", file=sys.stderr)
    print(f"{count} mixes, {wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
