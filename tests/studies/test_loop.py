"""The studies' own training loop, and the starts that one of them draws."""

from __future__ import annotations

import pytest
import torch

from rnnlstm.studies import clipping_map, loop
from rnnlstm.studies.study import Row
from rnnlstm.training.step import Trainer

SMALL = ("task=adding", "task.length=6", "model.hidden_size=4", "train.batch_size=4", "eval.samples=16", "probe=off")


def plan(*further):
    return loop.plan_of(*SMALL, "device=cpu", "threads=1", "seeds=2", *further)


def test_the_loop_trains_as_the_trainer_and_stops_who_solves():
    row = loop.train_row(plan("train.steps=4", "eval.every=2"), "T=6", "an arm")
    trainer = Trainer(plan("train.steps=4"), [0, 1])
    losses = [trainer.step(step) for step in range(1, 5)]
    assert (row.setting, row.arm, row.seeds, row.steps, row.metric_name) == ("T=6", "an arm", [0, 1], 4, "mse")
    assert row.clip_rate == [sum(update.clips[r].fired for update in losses) / 4 for r in range(2)]
    assert row.solved == [False, False]
    assert row.diverged == [False, False]


def test_the_norms_before_a_divergence_are_kept_latest_first():
    """SGD at a huge rate on a linear network: each update makes the next gradient larger, until it overflows."""
    seen = []

    def watch(trainer):
        step = trainer.step

        def watched(number):
            update = step(number)
            seen.append([clip.norm_before for clip in update.clips])
            return update

        trainer.step = watched

    exploding = ("model=linear", "optimizer=sgd", "optimizer.lr=30", "clip=none", "train.steps=60", "eval.every=60")
    row = loop.train_row(plan(*exploding), "T=6", "an arm", change=watch)
    assert row.diverged == [True, True]
    for r in range(2):
        finite = [norms[r] for norms in seen if torch.tensor(norms[r]).isfinite()]
        kept = [row.scores[f"norm_before_{k}"][r] for k in range(1, min(len(finite), loop.RECENT) + 1)]
        assert kept == finite[::-1][: loop.RECENT]
        assert kept[0] > kept[-1]
    assert row.metric == [None, None]


def test_rows_are_made_once(tmp_path):
    made = []

    def make(name):
        made.append(name)
        return Row("T=6", name, seeds=[0])

    for wanted in (["a", "b"], ["b", "c"]):
        rows = loop.kept_rows(tmp_path / "new", {name: lambda name=name: make(name) for name in wanted})
        assert [row.arm for row in rows] == wanted
    assert made == ["a", "b", "c"]


@pytest.mark.parametrize(("start", "deviation"), [("normal", 0.1), ("smart", None)])
def test_pascanus_starts(start, deviation):
    trainer = Trainer(plan("model=rnn", "model.hidden_size=50"), [0, 1])
    before = {name: weight.detach().clone() for name, weight in trainer.model.parameters.items()}
    clipping_map.start_as_pascanu(trainer, deviation)
    changed = [name for name, weight in trainer.model.parameters.items() if not torch.equal(weight, before[name])]
    (name,) = changed
    assert name.endswith("weight_hh_l0")
    weights = trainer.model.parameters[name].detach()
    assert not torch.equal(weights[0], weights[1])
    for w in weights:
        if start == "normal":
            assert w.std().item() == pytest.approx(0.1, rel=0.1)  # 2,500 draws: four deviations are 6 %
        else:
            assert ((w != 0).sum(1) == clipping_map.CONNECTIONS).all()
            assert torch.linalg.eigvals(w).abs().max().item() == pytest.approx(clipping_map.RADIUS, rel=1e-4)
