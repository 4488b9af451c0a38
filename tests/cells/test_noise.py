"""Recurrent dropout and zoneout against their definitions, for every cell; and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rnnlstm.cells import CELLS, Cell, draw_masks, is_noisy, make_cell, noisy
from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.recurrence import Recurrence, choose_backend
from rnnlstm.tasks.random_streams import RandomStream

from support.training import plan_for

T, B, I, H, L = 6, 3, 2, 4, 2  # noqa: E741
P, Z = 0.4, 0.3
#: Cells that no weight shows h to: nothing of theirs could be dropped.
BLIND = {"lru", "min_gru", "min_lstm"}
SEEING = [name for name in CELLS if name not in BLIND]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def randn(*shape, seed=1):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def module_of(cell, layers=L):
    generator = torch.Generator().manual_seed(0)
    return Recurrence(cell, I, H, layers, max_lag=T, generator=generator, dtype=torch.float64)


def masks_of(cell, steps=T, seed=0, layers=L):
    sizes = {"steps": steps, "sequences": B, "hidden_size": H, "num_layers": layers}
    return draw_masks(cell, RandomStream(seed, "noise", 1).uniform, **sizes, dtype=torch.float64)


def one_step(cell):
    """Weights, projected input and a state, for a step of this cell."""
    w = dict(module_of(cell, 1).layer_weights(0))
    return w, randn(1, B, I), tuple(randn(B, H, seed=k + 2) for k in range(len(cell.state_names)))


@pytest.mark.parametrize("name", list(CELLS))
def test_evaluation_is_the_expectation_of_zoneout(name):
    """s_t is linear in k_t, so that E s_t = z·(s_t where k = 1) + (1 − z)·(s_t where k = 0)."""
    plain, cell = make_cell(name), noisy(make_cell(name), zoneout=Z)
    w, x, state = one_step(cell)
    S = len(state)

    def step(k):
        masks = {} if k is None else {"zoneout_mask": torch.full((1, B, S * H), k, dtype=torch.float64)}
        ready = cell.prepare(w | masks)
        return cell.step(cell.project(x, ready)[0], state, ready)[0]

    for kept, new, expected, quiet, old in zip(
        step(1.0), step(0.0), step(None),
        plain.step(plain.project(x, plain.prepare(w))[0], state, plain.prepare(w))[0], state, strict=True,
    ):  # fmt: skip
        assert torch.equal(kept, old)
        assert torch.equal(new, quiet)
        close(expected, Z * kept + (1 - Z) * new)
    # Each state has its own k: keep the last alone.
    only = torch.cat([torch.zeros(1, B, (S - 1) * H), torch.ones(1, B, H)], -1).double()
    ready = cell.prepare(w | {"zoneout_mask": only})
    after, _ = cell.step(cell.project(x, ready)[0], state, ready)
    assert torch.equal(after[-1], state[-1])
    assert all(not torch.equal(a, b) for a, b in zip(after[:-1], state[:-1], strict=True))


@pytest.mark.parametrize("name", SEEING)
def test_evaluation_is_the_expectation_of_what_the_weights_see(name):
    """Over all 2^H masks, weighted by their probability; and a step under a mask is one of weights with columns
    scaled."""
    cell = noisy(make_cell(name), recurrent_dropout=P)
    w, x, state = one_step(cell)
    expected = torch.zeros_like(state[0])
    for bits in itertools.product((0.0, 1.0), repeat=H):
        mask = torch.tensor(bits, dtype=torch.float64)
        probability = math.prod(1 - P if bit else P for bit in bits)
        expected += probability * cell.seen(state[0], {"recurrent_dropout_mask": (mask / (1 - P)).expand(B, H)})
    close(expected, state[0])
    assert torch.equal(cell.seen(state[0], {}), state[0])

    mask = torch.tensor([0, 1, 1, 0], dtype=torch.float64) / (1 - P)
    ready = cell.prepare(w)
    scaled = {**ready, "weight_hh": ready["weight_hh"] * mask}
    dropped = cell.prepare({**w, "recurrent_dropout_mask": mask.expand(B, H)})
    projected = cell.project(x, ready)[0]
    for a, b in zip(cell.step(projected, state, dropped)[0], cell.step(projected, state, scaled)[0], strict=True):
        close(a, b)


def by_hand(name, w, x, drop, keep):
    """One layer in plain arithmetic: outputs (T, B, H). `keep` (T, B, S·H)."""
    h, c, outputs = torch.zeros(B, H).double(), torch.zeros(B, H).double(), []
    for t in range(len(x)):
        k = keep[t].split(H, -1)
        a = x[t] @ w["weight_ih"].T + w["bias_ih"]
        b = (h * drop) @ w["weight_hh"].T + w["bias_hh"]
        if name == "rnn":
            new = torch.tanh(a + b)
        elif name == "gru":
            (ar, az, an), (br, bz, bn) = a.split(H, -1), b.split(H, -1)
            z = torch.sigmoid(az + bz)
            new = (1 - z) * torch.tanh(an + torch.sigmoid(ar + br) * bn) + z * h
        else:
            i, f, g, o = (a + b).split(H, -1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            new = torch.sigmoid(o) * torch.tanh(new_c)
            c = torch.where(k[1] == 1, c, new_c)
        h = torch.where(k[0] == 1, h, new)
        outputs.append(h)
    return torch.stack(outputs)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_values_and_gradients_are_those_of_a_hand_written_loop(name):
    cell = noisy(make_cell(name), P, Z)
    module, masks, x = module_of(cell), masks_of(cell), randn(T, B, I)
    outputs, _ = module(x, noise=masks)
    cotangent = randn(T, B, H, seed=9)
    (outputs * cotangent).sum().backward()
    found = {key: weight.grad.clone() for key, weight in module.named_parameters()}
    module.zero_grad()
    for layer in range(L):
        drop, keep = masks[f"recurrent_dropout_mask_l{layer}"], masks[f"zoneout_mask_l{layer}"]
        assert 0 < (drop > 0).double().mean() < 1
        x = by_hand(name, module.layer_weights(layer), x, drop, keep)
    close(outputs, x)
    (x * cotangent).sum().backward()
    for key, weight in module.named_parameters():
        close(found[key], weight.grad)
    assert not torch.equal(outputs, module(randn(T, B, I))[0])


def test_gradcheck():
    cell = noisy(make_cell("gru"), P, Z)
    module, masks = module_of(cell, 1), masks_of(cell, 3, layers=1)
    names, weights = zip(*module.named_parameters(), strict=True)

    def outputs(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x, None, masks))[0]

    assert torch.autograd.gradcheck(outputs, (randn(3, B, I).requires_grad_(), *weights))


@pytest.mark.parametrize("name", list(CELLS))
def test_without_noise_it_is_the_very_same_cell_and_with_it_the_reference_backend(name):
    cell = make_cell(name)
    assert noisy(cell) is noisy(cell, 0.0, 0.0) is cell
    assert not is_noisy(cell)
    assert choose_backend(noisy(cell, zoneout=Z), "auto") == "reference"
    for backend in ("fused", "torch"):
        with pytest.raises(OptionError, match=f"backend={backend}: recurrent dropout and zoneout need the reference"):
            choose_backend(noisy(cell, zoneout=Z), backend)


class Own(Cell):
    """A user's cell that multiplies h by its weights itself."""

    name = "own"

    def step(self, projected, state, w):
        return (torch.tanh(projected + state[0] @ w["weight_hh"].T),), {}


def test_what_is_refused():
    for cell in (*(make_cell(name) for name in BLIND), Own()):
        with pytest.raises(OptionError, match=rf"^recurrent_dropout=0\.1: it would change nothing: .* {cell.name} "):
            noisy(cell, 0.1)
        assert is_noisy(noisy(cell, zoneout=0.1))
    for value in (1.0, -0.1, math.nan):
        for key in ("recurrent_dropout", "zoneout"):
            with pytest.raises(OptionError, match=f"{key}={value}: must be at least 0 and below 1"):
                noisy(make_cell("rnn"), **{key: value})
    with pytest.raises(ConfigError, match=r"model\.zoneout=1\.0: must be below 1"):
        plan_for("model.zoneout=1.0")
    with pytest.raises(ValueError, match="noise is for a cell that `noisy` made"):
        module_of(make_cell("rnn"))(randn(T, B, I), noise=masks_of(noisy(make_cell("rnn"), P)))
