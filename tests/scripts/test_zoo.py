"""Every model trains on the zoo's three tasks, and the zoo's table says what its runs came to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rnnlstm.cells import CELLS
from rnnlstm.reporting.runs import Run
from rnnlstm.training.step import Trainer

from support.training import KINDS, plan_for
from zoo_tables import zoo_tables

SMALL = ("match=none", "model.hidden_size=8", "model.embedding_size=8", "train.batch_size=16", "optimizer.lr=3e-3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "model"),
    [
        pytest.param(task, model, marks=() if model in KINDS and task == "adding" else pytest.mark.slow)
        for task in ("adding", "keyword", "copy")
        for model in CELLS
    ],
)
def test_every_model_trains_on_the_three_tasks(task, model):
    plan = plan_for(f"experiment=zoo/{task}", f"model={model}", *SMALL)
    assert plan.task.length == {"adding": 50, "keyword": 50, "copy": 20}[task]
    trainer = Trainer(plan, [0])
    before = {name: weight.clone() for name, weight in trainer.model.weights(0).items()}
    losses = [trainer.step(step).losses[0] for step in range(1, 31)]
    assert all(math.isfinite(loss) for loss in losses)
    for name, weight in trainer.model.weights(0).items():
        assert (weight != before[name]).any(), name
    # What needs no memory is learned at once: the blanks of copy memory, the mean of sums.
    if task != "keyword":
        assert sum(losses[-5:]) < sum(losses[:5])


def run(model, task, steps, metric=0.5, status="done", **also):
    summaries = [
        {"seed": k, "status": status, "solved": step is not None, "steps_to_solve": step, "metric": metric,
         "metric_name": "accuracy", "parameters": 1000 + k}
        for k, step in enumerate(steps)
    ]  # fmt: skip
    config = {"model.name": model, "model.num_layers": 1, "task.name": task, "task.length": 50, **also}
    return Run(Path(f"{task}/{model}"), config, summaries)


def test_the_zoos_tables_say_who_solved_what_in_how_many_updates():
    runs = [
        run("lstm", "adding", [100, 200, 300]),
        run("rnn", "adding", [None, None, None], 0.25, **{"model.num_layers": 2}),
        run("gru", "adding", [None, 150, None]),
        run("lstm", "copy", [50, 50, 50], **{"task.variant": "variable"}),
        run("rnn", "copy", [None] * 3, math.nan, "diverged", **{"task.variant": "variable", "model.num_layers": 2}),
        run("gru", "copy", [None] * 3, 0.125, **{"task.variant": "variable"}),
        run("lstm", "keyword", [None] * 3),
    ]
    first, second = zoo_tables(runs)
    assert first.splitlines() == [
        "| model | parameters | adding T=50 | copy variable T=50 |",
        "| --- | --- | --- | --- |",
        "| `lstm` | 1,000 … 1,002 | **3/3** 200 (100 … 300) | **3/3** 50 |",
        "| `gru` | 1,000 … 1,002 | **1/3** 150 | 0/3 accuracy 0.125 |",
        "| `rnn`, 2 layers | 1,000 … 1,002 | 0/3 accuracy 0.25 | 0/3 accuracy nan, 3 diverged |",
    ]
    assert second.splitlines()[-1] == "| `lstm` | 1,000 … 1,002 | 0/3 accuracy 0.5 |"


def test_two_initialisations_are_two_rows():
    runs = [run("lstm", "adding", [50], **{"model.init": init}) for init in ("default", "chrono")]
    assert [line.split(" | ")[0] for line in zoo_tables(runs)[0].splitlines()[2:]] == ["| `lstm`", "| `lstm`, chrono"]


def test_a_table_with_many_tasks_and_few_models_has_the_tasks_as_rows():
    runs = [run(model, task, [50]) for model in ("lstm", "gru") for task in ("a", "b", "c", "d", "e")]
    (table,) = zoo_tables(runs)
    assert table.splitlines()[0] == "| task | `gru` | `lstm` |"
    assert table.splitlines()[2] == "| a T=50 | **1/1** 50 | **1/1** 50 |"
    assert len(table.splitlines()) == 7
