"""Surgery: what is held is held, what is cut is cut, and an operation that does nothing changes no bit."""

from __future__ import annotations

import json

import pytest
import torch

from rnnlstm.cells import CELLS, draw_masks, is_noisy, is_operated, make_cell, noisy, operated
from rnnlstm.config.errors import ConfigError, OptionError
from rnnlstm.config.schema import Surgery
from rnnlstm.instruments.surgery_table import operate, surgeries, surgery_table
from rnnlstm.recurrence import Recurrence, Trace, traced
from rnnlstm.tasks.random_streams import RandomStream
from rnnlstm.training.step import Trainer

from support.training import KINDS, plan_for

T, B, H = 9, 4, 5
GATED = [name for name in CELLS if make_cell(name).gate_names]


def run(model, surgery=None, init="default"):
    """Outputs and gates of one layer, the same weights for every surgery."""
    cell = make_cell(model, init=init)
    torch.manual_seed(0)
    recurrence = Recurrence(cell, 3, H, dtype=torch.float64, backend="reference")
    if surgery is not None:
        recurrence.cell = operated(cell, surgery)
    x = torch.randn(T, B, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    trace = Trace(step_by_step=True)
    with traced(recurrence, trace):
        outputs, _ = recurrence(x.requires_grad_())
    outputs[-1].square().sum().backward()
    return outputs, trace, {name: w.grad for name, w in recurrence.named_parameters()}, x.grad


@pytest.mark.parametrize("model", list(CELLS))
def test_doing_nothing_changes_nothing_bit_for_bit(model):
    cell = make_cell(model)
    assert operated(cell, Surgery()) is cell
    plain = run(model)
    for surgery in (Surgery(truncate=T), Surgery(truncate=10 * T)):  # reach further than the sequence
        changed = run(model, surgery)
        assert torch.equal(plain[0], changed[0])
        assert torch.equal(plain[3], changed[3])
        assert all(torch.equal(plain[2][name], changed[2][name]) for name in plain[2])


@pytest.mark.parametrize("model", GATED)
def test_gates_are_held(model):
    for gate in make_cell(model).gate_names:
        for key, value in (("open", 1.0), ("shut", 0.0)):
            _, trace, _, _ = run(model, Surgery(**{key: [gate]}))
            assert (trace.gates(0)[gate] == value).all()
        _, plain, _, _ = run(model)
        _, trace, _, _ = run(model, Surgery(freeze=[gate]))
        frozen = trace.gates(0)[gate]
        assert (frozen == frozen[:, :1]).all()  # the same for every sequence
        torch.testing.assert_close(frozen[0], plain.gates(0)[gate][0].mean(0, keepdim=True).expand(B, H))
        _, trace, _, _ = run(model, Surgery(round=[gate]))
        rounded = trace.gates(0)[gate]
        assert ((rounded == 0) | (rounded == 1)).all()
        assert torch.equal(rounded[0], plain.gates(0)[gate][0].round())


def test_gradients_pass_a_rounded_gate_as_if_it_were_not():
    """One step of an LSTM whose forget gate is rounded: ∂c/∂(its bias) = c_0 · σ'(…), with the cell before."""
    cell = operated(make_cell("lstm", init="default"), Surgery(round=["forget"]))
    w = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in cell.parameter_shapes(1, 1, True).items()}
    w["bias_ih"][1] = 0.3
    w["bias_ih"].requires_grad_()
    before, nothing = torch.full((1, 1), 2.0, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    (_, c), gates = cell.step(cell.project(nothing, w), (nothing, before), w)
    assert gates["forget"].item() == 1
    assert c.item() == 2
    c.sum().backward()
    forget = torch.sigmoid(torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(w["bias_ih"].grad[1], 2 * forget * (1 - forget))


#: Gates that are a sigmoid of their own pre-activation of x and h, and of nothing else.
PLAIN = [name for name in GATED if make_cell(name).gate_blocks and name != "lstm_peephole"]


@pytest.mark.parametrize("model", PLAIN)
def test_a_gate_blind_to_h_depends_on_the_present_input_alone(model):
    cell = make_cell(model, init="default")
    for gate, block in zip(cell.gate_names, cell.gate_blocks, strict=True):
        _, trace, gradients, _ = run(model, Surgery(cut=[gate]))
        torch.manual_seed(0)
        w = Recurrence(cell, 3, H, dtype=torch.float64, backend="reference").layer_weights(0)
        rows = slice(block * H, (block + 1) * H)
        x = torch.randn(T, B, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        alone = torch.sigmoid(x @ w["weight_ih"][rows].T + w["bias_ih"][rows] + w["bias_hh"][rows])
        torch.testing.assert_close(trace.gates(0)[gate], alone.detach())
        assert (gradients["weight_hh_l0"][rows] == 0).all()
        assert (gradients["bias_hh_l0"][rows] != 0).any()


def test_without_a_gradient_through_h_values_stay_and_the_cells_path_is_left():
    plain, cut = run("lstm"), run("lstm", Surgery(detach=True))
    assert torch.equal(plain[0], cut[0])
    _, trace, _, _ = cut
    rows = trace.rows("hidden")[0].sum(-1)
    assert rows[-1] > 0
    assert (rows[:-1] == 0).all()
    assert (trace.rows("cell")[0].sum(-1) > 0).all()


@pytest.mark.parametrize("k", [1, 4])
def test_truncation_lets_gradients_reach_k_steps(k):
    _, _, _, gradient = run("gru", Surgery(truncate=k))
    reached = gradient.square().sum((1, 2)) > 0
    assert reached.tolist() == [False] * (T - k) + [True] * k


def test_the_open_forget_gate_is_the_1997_cell_and_a_shut_one_forgets():
    """c_t = 1·c + i·g; and with f = 0 the state before only acts through h."""
    _, trace, _, _ = run("lstm", Surgery(open=["forget"]))
    c, i = trace.states(0)["cell"], trace.gates(0)["input"]
    assert ((c[1:] - c[:-1]).abs() <= i[1:] + 1e-12).all()
    _, trace, _, _ = run("lstm", Surgery(shut=["forget"]))
    assert (trace.states(0)["cell"].abs() <= trace.gates(0)["input"] + 1e-12).all()


@pytest.mark.parametrize(
    ("model", "surgery", "message"),
    [
        ("lstm", Surgery(open=["froget"]), "open=froget: the lstm cell has no such gate.*did you mean forget"),
        ("rnn", Surgery(shut=["input"]), "it has none"),
        ("lstm", Surgery(open=["input"], freeze=["input"]), "held already"),
        ("gru", Surgery(detach=True), "detach=true: the gru cell has no memory beside h"),
    ],
)
def test_what_a_cell_does_not_have_can_not_be_operated_on(model, surgery, message):
    with pytest.raises(OptionError, match=message):
        operated(make_cell(model), surgery)


def test_as_configuration_in_training_and_in_lockstep():
    plan = plan_for("task.length=10", "model.hidden_size=6", "surgery.open=[forget]", "surgery.truncate=5")
    assert plan.backend == "reference"
    assert is_operated(plan.cell)
    trainer = Trainer(plan, [0, 1])
    losses = trainer.step(1).losses
    assert losses == pytest.approx([Trainer(plan, [seed]).step(1).losses[0] for seed in (0, 1)], rel=1e-5)
    with pytest.raises(ConfigError, match="backend=fused: surgery needs the reference backend"):
        plan_for("surgery.open=[forget]", "model.backend=fused")
    with pytest.raises(ConfigError, match=r"surgery\.cut=keep: the lstm cell has no such gate"):
        plan_for("surgery.cut=[keep]")


def test_surgery_and_noise_give_the_same_cell_in_either_order():
    surgery = Surgery(detach=True, cut=["input"], freeze=["output"], truncate=4)
    results = []
    for cell in (
        noisy(operated(make_cell("lstm"), surgery), 0.4, 0.3),
        operated(noisy(make_cell("lstm"), 0.4, 0.3), surgery),
    ):
        assert is_noisy(cell)
        assert is_operated(cell)
        torch.manual_seed(0)
        module = Recurrence(cell, 3, H, max_lag=T, dtype=torch.float64)
        masks = draw_masks(
            cell,
            RandomStream(0, "noise").uniform,
            steps=T,
            sequences=B,
            hidden_size=H,
            num_layers=1,
            dtype=torch.float64,
        )
        outputs, _ = module(torch.randn(T, B, 3, dtype=torch.float64), noise=masks)
        outputs[-1].square().sum().backward()
        results.append([outputs, *(weight.grad for weight in module.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not results[0][2].view(4, H, H)[0].any()  # weight_hh_l0: the input gate's block is cut
    # A gate that leaves nothing for h to act on is no mistake in an analysis.
    network = plan_for("model=gru", "model.hidden_size=4", "model.recurrent_dropout=0.1").network(0)
    assert is_noisy(operate(network, Surgery(open=["update"])).recurrence.cell)


def test_the_probe_sees_truncation(train):
    outcome = train("surgery.truncate=3", "train.steps=2", "probe.every=1", "train.batch_size=4")
    line = json.loads((outcome.folder / "seed_0" / "flow.jsonl").read_text().splitlines()[0])
    assert all(value > 0 for value in line["hidden"][0][:3])
    assert all(value == 0 for value in line["hidden"][0][3:])


@pytest.mark.slow
@pytest.mark.parametrize("model", [pytest.param(m, marks=() if m in KINDS else pytest.mark.slow) for m in CELLS])
def test_the_table_of_operations(model):
    plan = plan_for("task.length=12", "model.hidden_size=6", f"model={model}")
    network = plan.network(0)
    before = {name: w.clone() for name, w in network.state_dict().items()}
    rows = surgery_table(plan.task, network, 0, 32)
    names = [name for name, _ in surgeries(plan.cell)]
    assert [row.name for row in rows] == names
    assert len(names) == len(set(names)) == (2 if model == "rnn" else len(names))
    assert all(torch.equal(before[name], w) for name, w in network.state_dict().items())
    same = {row.name: row for row in rows}
    truncated = same["gradient truncated at 10 steps"]
    assert truncated.scores == pytest.approx(same["as it is"].scores, rel=1e-5)
    assert truncated.ratio == -torch.inf
    assert operate(network, Surgery()).recurrence.backend == network.recurrence.backend
