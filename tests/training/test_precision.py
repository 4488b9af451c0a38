"""Mixed precision: what is rounded and what is not, what it errs by, and that by default nothing has changed."""

from __future__ import annotations

import json

import pytest
import torch

import rnnlstm
from rnnlstm.cells import CELLS, make_cell
from rnnlstm.config.errors import ConfigError
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.folders import LATER, completed, identity
from rnnlstm.record.glossary import explain
from rnnlstm.recurrence import Recurrence, products_in
from rnnlstm.recurrence.fused import portable
from rnnlstm.recurrence.precision import to_tf32
from rnnlstm.training.step import Trainer

from support.training import plan_for

SMALL = ("task.length=20", "model.hidden_size=16", "train.batch_size=8", "train.stop_when_solved=false")


def outputs_and_gradients(module, x, cotangent, precision):
    with products_in(precision):
        out, last = module(x)
    found = torch.autograd.grad(
        (out * cotangent).sum(), list(module.parameters())
    )  # outside, as a training step does
    return [out.detach(), *([last] if isinstance(last, torch.Tensor) else last), *found]


#: Between what errors of outputs and gradients lie. A factor is off by up to 2⁻⁸ = 0.004, in TF32 2⁻¹¹ = 0.0005.
ERRORS = {"bfloat16": (1e-4, 0.03), "tf32": (1e-5, 0.004)}


@pytest.mark.parametrize("precision", [*ERRORS])
@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_products_err_as_their_precision_does_and_everything_stays_float32(name, backend, precision):
    torch.manual_seed(0)
    module = getattr(rnnlstm, name)(10, 32, 2, backend=backend)
    x, cotangent = torch.randn(30, 8, 10), torch.randn(30, 8, 32)
    full, rounded = (outputs_and_gradients(module, x, cotangent, p) for p in ("full", precision))
    least, most = ERRORS[precision]
    for a, b in zip(full, rounded, strict=True):
        assert b.dtype == torch.float32
        assert least < (a - b).norm() / a.norm() < most


def test_numbers_are_rounded_to_tf32():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(500) * 10.0 ** torch.randint(-30, 30, (500,)), torch.tensor([0.0, -0.0, 1.0])])
    found = to_tf32(x)
    mantissa, _ = found.frexp()
    assert torch.equal(mantissa * 2**11, (mantissa * 2**11).round()), "no more than 11 bits"
    assert ((found - x).abs() <= 2.0**-11 * x.abs()).all()
    assert to_tf32(torch.tensor([1 + 2**-11, -1 - 2**-11])).tolist() == [1 + 2**-10, -1 - 2**-10]
    odd = torch.tensor([float("inf"), -float("inf"), float("nan")])
    torch.testing.assert_close(to_tf32(odd), odd, equal_nan=True)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5))])
def test_a_product_in_tf32_has_its_factors_rounded_backward_too(shapes):
    torch.manual_seed(0)
    a, b = (torch.randn(shape, requires_grad=True) for shape in shapes)
    with products_in("tf32"):
        found = a @ b
    cotangent = torch.randn_like(found)
    exact = [to_tf32(each.detach()).requires_grad_() for each in (a, b)]
    expected = exact[0] @ exact[1]
    assert torch.equal(found, expected)
    ours = torch.autograd.grad(found, (a, b), cotangent)
    theirs = torch.autograd.grad(expected, exact, to_tf32(cotangent))
    assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("precision", [*ERRORS])
@pytest.mark.parametrize("model", list(CELLS))
def test_every_cell_knows_it_on_every_backend_of_its_own(model, precision):
    """Both round the same factors of the same products; what is left is the order of sums, rounded."""
    torch.manual_seed(0)
    reference = Recurrence(make_cell(model), 6, 8, backend="reference", max_lag=9)
    x, cotangent = torch.randn(9, 3, 6), torch.randn(9, 3, 8)
    full, rounded = (outputs_and_gradients(reference, x, cotangent, p) for p in ("full", precision))
    assert not any(torch.equal(a, b) for a, b in zip(full[:1], rounded[:1], strict=True))
    other = Recurrence(make_cell(model), 6, 8, backend="auto", max_lag=9)
    other.load_state_dict(reference.state_dict())
    for a, b, exact in zip(outputs_and_gradients(other, x, cotangent, precision), rounded, full, strict=True):
        assert (a - b).norm() <= 0.01 * exact.norm()


def test_the_native_kernel_is_left_for_the_portable_loops(monkeypatch):
    calls = []
    forward, backward = portable.forward, portable.backward
    monkeypatch.setattr(portable, "forward", lambda *a: calls.append("forward") or forward(*a))
    monkeypatch.setattr(portable, "backward", lambda *a: calls.append("backward") or backward(*a))
    module = rnnlstm.LSTM(3, 4, backend="fused")
    outputs_and_gradients(module, torch.randn(5, 2, 3), torch.randn(5, 2, 4), "bfloat16")
    assert calls == ["forward", "backward"]


def test_nothing_of_it_stays_behind():
    module, x = rnnlstm.LSTM(3, 4, backend="reference"), torch.randn(5, 2, 3)
    before = module(x)[0]
    with pytest.raises(KeyError), products_in("bfloat16"):
        raise KeyError
    assert torch.equal(module(x)[0], before)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_replicas_in_lockstep_train_as_alone_to_bfloat16s_rounding(backend):
    overrides = (*SMALL, "precision=bfloat16", f"model.backend={backend}", "optimizer=sgd", "optimizer.lr=0.1")
    together, alone = Trainer(plan_for(*overrides), [3, 4]), Trainer(plan_for(*overrides), [4])
    exact = Trainer(plan_for(*SMALL, "optimizer=sgd", "optimizer.lr=0.1"), [4])
    for step in range(1, 6):
        loss, full = together.step(step).losses[1], exact.step(step).losses[0]
        assert loss == pytest.approx(alone.step(step).losses[0], rel=1e-2)
        assert loss != full
        assert loss == pytest.approx(full, rel=2e-2)
    assert all(w.dtype == w.grad.dtype == torch.float32 for w in together.model.parameters.values())


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.05), ("tf32", 0.005)])
def test_its_error_is_in_the_record_and_the_summary(precision, most, train):
    outcome = train("train.steps=6", "eval.every=3", f"precision={precision}", "seeds=2", "probe=off")
    for summary in outcome.summaries:
        lines = (outcome.folder / f"seed_{summary['seed']}" / "metrics.jsonl").read_text().splitlines()
        found = [line for line in map(json.loads, lines) if "precision/loss_error" in line]
        assert [line["step"] for line in found] == [0, 3, 6]
        for name in ("loss_error", "gradient_error"):
            assert all(0 < line[f"precision/{name}"] < most for line in found)
            assert summary[f"precision_{name}"] == found[-1][f"precision/{name}"]
            assert explain(f"precision/{name}") is not None
    assert f"precision-{precision}" in outcome.folder.name


def test_measuring_the_error_changes_no_bit_of_training(train):
    common = ("train.steps=8", "precision=bfloat16", "seeds=2", "train.stop_when_solved=false")
    often, seldom = train(*common, "name=often", "eval.every=1"), train(*common, "name=seldom", "eval.every=100")
    a, b = (torch.load(o.folder / "seed_1/weights.pt", weights_only=True) for o in (often, seldom))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("key", "other"), [("precision", "bfloat16"), ("data", "device")])
def test_a_key_that_came_later_leaves_runs_their_names(key, other):
    (job,) = compose_jobs([])
    assert getattr(job.config, key) == LATER[key]
    without = {k: value for k, value in job.config.tree.items() if k != key}
    assert identity(job.config.tree) == identity(without)
    assert identity({**without, key: other}) != identity(without)


@pytest.mark.parametrize(("choice", "option", "other"), [
    ("optimizer=adam", "weight_decay", 0.1), ("optimizer=adam", "betas", [0.5, 0.9]),
    ("optimizer=rmsprop", "weight_decay", 0.1), ("optimizer=sgd", "weight_decay", 0.1),
    ("clip=norm", "norm_type", "inf"), ("clip=value", "norm_type", 1), ("clip=none", "norm_type", 1),
])  # fmt: skip
def test_an_option_of_a_group_that_came_later_leaves_runs_their_names(choice, option, other):
    (job,) = compose_jobs([choice])
    tree, group = job.config.tree, choice.partition("=")[0]
    without = {**tree, group: {k: value for k, value in tree[group].items() if k != option}}
    assert identity(tree) == identity(without) != identity({**tree, group: {**tree[group], option: other}})
    assert completed(without) == tree
    assert option not in job.folder.name


def test_an_option_of_a_model_that_came_later_leaves_runs_their_names():
    (job,) = compose_jobs(["model=lstm"])
    tree = job.config.tree
    without = {**tree, "model": {k: value for k, value in tree["model"].items() if k != "input_bias"}}
    assert "input_bias" in tree["model"]
    assert identity(tree) == identity(without)
    assert identity({**tree, "model": {**tree["model"], "input_bias": -3.0}}) != identity(without)
    assert completed(without) == tree
    assert completed({"model": {"name": "rnn"}})["model"] == {"name": "rnn"}


def test_a_run_without_an_option_that_came_later_is_read_and_goes_on(train):
    outcome = train("model=lstm", "train.steps=2")
    place = outcome.folder / "config.yaml"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(line for line in lines if "input_bias" not in line))
    assert not train("model=lstm", "train.steps=2").trained
    from rnnlstm.training.weights import load_network

    assert load_network(str(outcome.folder)).plan.config.cell["input_bias"] is None


def test_without_it_a_record_has_no_word_of_it(train):
    outcome = train("train.steps=2")
    assert not [key for key in outcome.summaries[0] if "precision" in key]
    assert "precision/" not in (outcome.folder / "seed_0" / "metrics.jsonl").read_text()
    # A run of an earlier version: its configuration lacks the key.
    place = outcome.folder / "config.yaml"
    lines = place.read_text().splitlines(keepends=True)
    place.write_text("".join(line for line in lines if not line.startswith("precision:")))
    assert not train("train.steps=2").trained
    from rnnlstm.training.weights import load_network

    assert load_network(str(outcome.folder)).plan.config.precision == "full"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["dtype=float64"], "goes with dtype=float32"),
        (["model.backend=torch"], "can't keep c in float32"),
    ],
)
def test_what_it_does_not_go_with_is_refused_by_name(more, words):
    with pytest.raises(ConfigError, match=words) as caught:
        plan_for("precision=bfloat16", *more)
    assert "precision=bfloat16" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
