"""Curriculum by length: which lengths are trained at, when they grow, and that nothing else changes."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch

from rnnlstm.config.errors import ConfigError
from rnnlstm.config.schema import CurriculumOptions
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.record.files import read_lines
from rnnlstm.tasks import make_task
from rnnlstm.tasks.keyword_recall import text_file
from rnnlstm.training import match
from rnnlstm.training.curriculum import Curriculum
from rnnlstm.training.evaluation import evaluate, evaluations
from rnnlstm.training.step import Trainer

from support.training import plan_for

SMALL = ("task.length=24", "model.hidden_size=8", "train.batch_size=5", "eval.samples=20")


def curriculum(name, task="adding", replicas=3, length=40, **options):
    return Curriculum(make_task(task, length=length), CurriculumOptions(name=name, **options), replicas)


def test_fixed_is_the_task_itself():
    fixed = curriculum("fixed", start=4000)  # which is ignored
    assert fixed.fixed
    for r in range(3):
        assert fixed.task(r, 7) is fixed.final
        assert fixed.current(r) is None


def test_growing_multiplies_a_solved_length_for_that_replica_alone():
    growing = curriculum("growing", start=3, factor=1.5, length=20)
    seen = []
    while growing.current(1) is not growing.final:
        assert growing.current(1) == make_task("adding", length=growing.lengths[1])
        seen.append(growing.lengths[1])
        growing.grow(1)
    assert seen == [3, 4, 6, 9, 14]  # 4.5 rounds to the even 4
    assert growing.lengths == [3, 20, 3]
    assert growing.task(1, 5) is growing.final
    assert growing.task(0, 5) == make_task("adding", length=3)
    slow = curriculum("growing", start=2, factor=1.01)
    slow.grow(0)
    assert slow.lengths[0] == 3  # always longer


def test_uniform_lengths_are_uniform_and_a_function_of_the_step():
    uniform, again = curriculum("uniform", start=11), curriculum("uniform", start=11, replicas=1)
    lengths = [uniform.length(0, step) for step in range(6000)]
    assert lengths == [again.length(0, step) for step in range(6000)]
    assert [uniform.length(2, step) for step in range(100)] == lengths[:100]
    counts = torch.bincount(torch.tensor(lengths))
    assert counts[:11].sum() == 0
    assert (counts[11:] - 200).abs().max() < 4.5 * math.sqrt(200)
    assert len(counts) == 41


@pytest.mark.parametrize(("task", "options", "message"), [
    ("adding", {"start": 41}, "start=41: must be at most task.length=40"),
    ("adding", {"start": 1}, "start=1: as a length must be at least 2"),
    ("temporal_order", {"start": 9}, "start=9: as a length must be at least 10"),
    ("long_lag", {"start": 20}, "start=20: as a length .* needs a network of other sizes"),
])  # fmt: skip
def test_a_start_that_the_task_does_not_allow(task, options, message):
    for name in ("growing", "uniform"):
        with pytest.raises(ConfigError, match=message):
            curriculum(name, task=task, **options)
    curriculum("fixed", task=task, **options)


@pytest.mark.parametrize("overrides", [
    ("curriculum=uniform", "curriculum.start=4"),
    ("curriculum=growing", "curriculum.start=4"),
    ("curriculum=growing", "curriculum.start=4", "model.zoneout=0.2", "model.recurrent_dropout=0.2"),
])  # fmt: skip
def test_a_seed_trains_in_lockstep_as_it_does_alone(overrides):
    plan = plan_for(*SMALL, "dtype=float64", *overrides)
    together, alone = Trainer(plan, [3, 4, 5]), [Trainer(plan, [seed]) for seed in (3, 4, 5)]
    for step in range(1, 13):
        if step in (4, 8) and "growing" in overrides[0]:
            for r in range(step // 4, 3):  # they come to differ in length
                together.curriculum.grow(r)
                alone[r].curriculum.grow(0)
        update = together.step(step)
        for r, trainer in enumerate(alone):
            other = trainer.step(step)
            assert other.losses[0] == pytest.approx(update.losses[r], rel=1e-10)
            assert torch.equal(other.batches[0].inputs, update.batches[r].inputs)
    lengths = {len(batch.inputs) for batch in update.batches}
    assert len(lengths) == (3 if "growing" in overrides[0] else 1)


def test_fixed_trains_bit_for_bit_on_the_tasks_own_batches():
    plan = plan_for(*SMALL, "curriculum.start=3")
    trainer = Trainer(plan, [0, 1])
    for step in range(1, 4):
        update = trainer.step(step)
        for seed in (0, 1):
            assert torch.equal(update.batches[seed].inputs, plan.task.sample(seed, step, batch_size=5).inputs)


def test_fixed_ends_with_the_weights_of_a_training_step_written_out():
    plan = plan_for(*SMALL, "dtype=float64", "clip.threshold=0.05")
    trainer, network = Trainer(plan, [0]), plan.network(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(1, 6):
        trainer.step(step)
        batch = plan.task.sample(0, step, batch_size=5)
        optimizer.zero_grad()
        plan.task.loss(network(batch.inputs), batch).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.05)
        optimizer.step()
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(trainer.model.weights(0)[name], weight, rtol=1e-9, atol=1e-7)


def test_loss_and_metrics_of_an_update_are_those_of_the_task_at_that_length():
    """Copy memory's loss is a mean over length + 20 positions, so the task at another length gives another one."""
    plan = plan_for(*SMALL, "task=copy", "curriculum=uniform", "curriculum.start=1")
    trainer = Trainer(plan, [0])
    for step in range(1, 6):
        update = trainer.step(step)
        length = Curriculum(plan.task, plan.config.curriculum, 1).length(0, step)
        assert update.tasks[0] == make_task("copy", length=length)
        assert len(update.batches[0].inputs) == length + 20
        assert update.tasks[0].loss(update.outputs[0], update.batches[0]).item() == pytest.approx(update.losses[0])


def test_a_whole_growing_run_of_three_seeds_equals_each_seed_alone(train, monkeypatch):
    cls = type(make_task("adding"))
    # Solved at chance and by some seeds only, so that lengths come apart.
    monkeypatch.setattr(cls, "solved", lambda task, scores: task.length < 20 and int(scores["mse"] * 1e4) % 3 == 0)
    arguments = ("task=adding", "task.length=20", "curriculum=growing", "curriculum.start=4", "dtype=float64",
                 "train.steps=12", "log.every=1", "eval.every=2")  # fmt: skip
    together = train(*arguments, "seeds=3", "name=together")
    lengths = []
    for seed in range(3):
        alone = train(*arguments, f"seed={seed}", f"name=alone{seed}")
        one, other = (list(read_lines(run.folder / f"seed_{seed}" / "metrics.jsonl")) for run in (alone, together))
        for a, b in zip(one, other, strict=True):
            for tag in ("train/loss", "curriculum/length", "eval_current/mse", "eval/mse", "grad/norm_before_clip"):
                assert (tag in a) == (tag in b)
                assert a.get(tag, 0.0) == pytest.approx(b.get(tag, 0.0), rel=1e-8)
        lengths.append(tuple(line["curriculum/length"] for line in one if "curriculum/length" in line))
    assert len(set(lengths)) > 1


def test_a_folder_says_once_that_there_is_a_curriculum():
    (job,) = compose_jobs(["curriculum=growing", "curriculum.start=5"])
    assert job.folder.name.startswith("lstm_curriculum-growing_start-5-")


def test_match_times_the_tasks_own_length(monkeypatch):
    seen = []
    monkeypatch.setattr(match, "_ratio", lambda ours, theirs: seen.append((ours(), theirs())) or 2.0)
    plan = plan_for(*SMALL, "curriculum=growing", "curriculum.start=4", "match=none")
    sample = type(plan.task).generate
    lengths = set()
    monkeypatch.setattr(type(plan.task), "generate", lambda t, *a: lengths.add(t.length) or sample(t, *a))
    match._by_time(plan, 8)
    assert seen
    assert lengths == {24}


def evaluated(trainer, r):
    """An evaluation of one replica, and what the loop then does with its curriculum."""
    before = list(trainer.curriculum.lengths)
    scores = evaluations(trainer.plan, trainer.model, r, r, trainer.curriculum.current(r))
    assert trainer.curriculum.lengths == before  # an evaluation changes nothing
    if "eval_current" in scores:
        trainer.curriculum.grow_if_solved(r, scores["eval_current"])
    return scores


def test_an_evaluation_that_meets_the_criterion_grows_the_length(monkeypatch):
    plan = plan_for(*SMALL, "curriculum=growing", "curriculum.start=4")
    trainer = Trainer(plan, [0, 1])
    cls = type(plan.task)
    monkeypatch.setattr(cls, "solved", lambda task, scores: task.length < 9)
    lengths = []
    for _ in range(5):
        found = evaluated(trainer, 1)
        assert {"loss", "accuracy"} <= set(found["eval_current"])
        lengths.append(trainer.curriculum.lengths[1])
    assert lengths == [6, 9, 9, 9, 9]  # 9 is not solved
    assert trainer.curriculum.lengths[0] == 4
    monkeypatch.setattr(cls, "solved", lambda task, scores: True)
    while trainer.curriculum.lengths[1] < 24:
        evaluated(trainer, 1)
    grown = evaluated(trainer, 1)
    assert grown["eval_current"] == grown["eval"]  # said to the end, for the median over seeds
    fixed = Trainer(plan_for(*SMALL), [0])
    assert "eval_current" not in evaluated(fixed, 0)


@pytest.mark.parametrize("name", ["growing", "uniform"])
def test_the_record_says_which_length_was_trained_at(name, train):
    outcome = train("task=adding", "task.length=20", f"curriculum={name}", "curriculum.start=5", "train.steps=6",
                    "log.every=1", "eval.every=3", "seeds=2")  # fmt: skip
    for seed in (0, 1):
        lines = list(read_lines(outcome.folder / f"seed_{seed}" / "metrics.jsonl"))
        lengths = [line["curriculum/length"] for line in lines if "curriculum/length" in line]
        assert len(lengths) == 6
        if name == "growing":
            assert lengths == [5] * 6
            current = [line for line in lines if "eval_current/mse" in line]
            assert [line["step"] for line in current] == [0, 3, 6]
        else:
            plan = plan_for("task=adding", "task.length=20", "curriculum=uniform", "curriculum.start=5")
            own = Curriculum(plan.task, plan.config.curriculum, 1)
            assert lengths == [own.length(0, step) for step in range(1, 7)]
            assert not any("eval_current/mse" in line for line in lines)
    assert all(summary["metric"] is not None for summary in outcome.summaries)


def test_slices_are_the_headline_metric_on_parts_of_the_evaluation(train, monkeypatch):
    outcome = train("task=copy", "task.length=5", "train.steps=2", "eval.samples=40")
    (line, *_) = [x for x in read_lines(outcome.folder / "seed_0" / "metrics.jsonl") if "eval/loss" in x]
    assert {tag for tag in line if tag.startswith("eval_slice")} == {
        "eval_slice/symbol_1", "eval_slice/symbol_5", "eval_slice/symbol_10",
    }  # fmt: skip
    plan = plan_for("task=keyword", "task.length=12", "task.decoys=0.3", "model.hidden_size=8")
    model = Trainer(plan, [0]).model
    network = functools.partial(model.one, 0)
    scores, slices = evaluate(network, plan.task, 0, 200)
    batch = plan.task.sample(0, 0, "eval", 200)
    outputs = model.one(0, batch.inputs).detach()
    right = outputs[-1].argmax(-1) == batch.targets[-1]
    named = plan.task.slices(batch)["other_dishes"][-1]
    assert slices["other_dishes"] == pytest.approx(right[named].double().mean().item())
    assert slices["no_other_dish"] == pytest.approx(right[~named].double().mean().item())
    assert scores["accuracy"] == pytest.approx(right.double().mean().item())
    monkeypatch.setattr(type(plan.task), "slices", lambda task, batch: {"outside": ~batch.mask})
    assert evaluate(network, plan.task, 0, 50)[1] == {}
    monkeypatch.undo()
    nothing = dataclasses.replace(plan.task, decoys=0.0)
    assert set(evaluate(network, nothing, 0, 50)[1]) == {"no_other_dish"}


def test_a_text_file_is_read_once_for_all_lengths(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("one two three " * 30)
    task = make_task("keyword", length=30, filler=str(path))
    growing = Curriculum(task, CurriculumOptions(name="growing", start=4), 1)
    assert growing.at(7).filler_text is task.filler_text
    path.write_text("another text " * 30)
    assert text_file(str(path)).words == ["another", "text"]
