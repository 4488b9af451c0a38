"""A training loop for studies that change what the trainer does, and the rows that it has made so far.

The project's own step and evaluation, without the run folder: no checkpoints, no record. What is kept is a finished
row.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.studies.study import Row

if TYPE_CHECKING:
    from rnnlstm.training.plan import Plan
    from rnnlstm.training.step import Trainer, Update

KEPT = "rows.json"
#: Norms that are kept of the last updates before a divergence.
RECENT = 10


def kept_rows(folder: Path, wanted: Mapping[str, Callable[[], Row]]) -> list[Row]:
    """The rows by name: read from `folder`, or made and kept there one by one. A name says all that a row depends on.

    Raises: DiskError.
    """
    from rnnlstm.config.errors import writing
    from rnnlstm.record.files import read_json, write_json

    with writing(f"in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        kept = read_json(folder / KEPT) or {}
        for name, make in wanted.items():
            if name not in kept:
                kept[name] = make().as_data()
                write_json(folder / KEPT, kept)
    return [Row.from_data(kept[name]) for name in wanted]


def plan_of(*overrides: str) -> Plan:
    """The plan of a run with these overrides, which is not recorded."""
    from rnnlstm.jobs.job import compose_jobs
    from rnnlstm.training.plan import make_plan

    (job,) = compose_jobs(list(overrides), to_train=False)
    return make_plan(job.config)


def train_row(
    plan: Plan,
    setting: str,
    arm: str,
    *,
    change: Callable[[Trainer], None] = lambda trainer: None,
    watch: Callable[[Trainer, Update], None] = lambda trainer, update: None,
    confirm: int = 0,
    inside: Callable[[Trainer, int], Mapping[str, float]] = lambda trainer, r: {},
) -> Row:
    """Train all seeds of a plan in lockstep, each until it solves the task or diverges; the row.

    `change` is applied to the trainer before the first update, `watch` after each. A seed that seems to have solved
    the task has to do so on `confirm` sequences, too, if that is more than `eval.samples`. `inside(trainer, r)`
    measures replica r after training; its values become scores, as do the gradient's norms in the updates before a
    divergence, `norm_before_1` and so on.
    """
    from rnnlstm.training.device import own_settings
    from rnnlstm.training.evaluation import evaluate
    from rnnlstm.training.step import Trainer

    config, task, seeds = plan.config, plan.task, list(plan.config.seed_numbers)
    R = len(seeds)
    scores: list[dict[str, float]] = [{} for _ in seeds]
    steps_to_solve: list[int | None] = [None] * R
    diverged, fired, updates = [False] * R, [0] * R, [0] * R
    norms = [deque[float](maxlen=RECENT + 1) for _ in seeds]
    with own_settings(config.threads):
        trainer = Trainer(plan, seeds)
        change(trainer)
        for step in range(1, config.train.steps + 1):
            running = [r for r in range(R) if r not in trainer.frozen]
            update = trainer.step(step)
            watch(trainer, update)
            for r in running:
                norms[r].append(update.clips[r].norm_before)
            for r in update.broken:
                diverged[r] = True
            live = [r for r in range(R) if r not in trainer.frozen]
            for r in live:
                updates[r], fired[r] = step, fired[r] + update.clips[r].fired
            if step % config.eval.every == 0 or step == config.train.steps:
                for r in live:
                    network = functools.partial(trainer.model.one, r)
                    scores[r], _ = evaluate(network, task, seeds[r], config.eval.samples)
                    if confirm > config.eval.samples and task.solved(scores[r]):
                        scores[r], _ = evaluate(network, task, seeds[r], confirm)
                    if task.solved(scores[r]):
                        steps_to_solve[r] = step
                        trainer.freeze(r)
            if len(trainer.frozen) == R:
                break
        measured = [{} if diverged[r] else dict(inside(trainer, r)) for r in range(R)]
    for r in range(R):
        if diverged[r]:  # the last norm is that of the update that broke
            before = list(norms[r])[:-1][::-1]
            measured[r] = {f"norm_before_{k}": norm for k, norm in enumerate(before, 1)}
    return Row(
        setting=setting,
        arm=arm,
        metric_name=task.metric_name,
        rate=config.optimizer.lr,
        steps=config.train.steps,
        batch_size=config.train.batch_size,
        hidden_size=config.network.hidden_size,
        parameters=plan.cost.parameters,
        baseline=task.baseline,
        seeds=seeds,
        solved=[step is not None for step in steps_to_solve],
        diverged=diverged,
        steps_to_solve=steps_to_solve,
        metric=[values.get(task.metric_name) for values in scores],
        loss=[values.get("loss") for values in scores],
        clip_rate=[fired[r] / max(updates[r], 1) for r in range(R)],
        scores={name: [v.get(name) for v in measured] for name in dict.fromkeys(n for v in measured for n in v)},
    )
