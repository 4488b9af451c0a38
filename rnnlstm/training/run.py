"""One run: a configuration's replicas trained to their end, with everything that is kept of them."""

from __future__ import annotations

import io
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from rnnlstm.exits import DiskError
from rnnlstm.record.files import write_whole
from rnnlstm.record.naming import seed_folder
from rnnlstm.record.seed_record import WEIGHTS
from rnnlstm.training.evaluate import evaluate
from rnnlstm.training.plan import Plan
from rnnlstm.training.progress import Progress
from rnnlstm.training.replica import Replica
from rnnlstm.training.step import Trainer, Update
from rnnlstm.training.stopping import StopFlag


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the summaries of its replicas, and the signal that stopped it, if one did."""

    folder: Path
    summaries: list[dict[str, Any]]
    stopped_by: signal.Signals | None = None


def train_run(plan: Plan, folder: Path, progress: Progress) -> Outcome:
    """Train, evaluate and record the replicas of `plan` in `folder`; results of theirs that are there go.

    Raises: DiskError if the record can't be written.
    """
    if plan.config.threads is not None:
        torch.set_num_threads(plan.config.threads)
    seeds = plan.config.seed_numbers
    try:
        return _Run(plan, seeds, folder, progress).complete()
    except OSError as error:
        raise DiskError(f"can't write results in {folder}: {error.strerror or error}") from error


class _Run:
    def __init__(self, plan: Plan, seeds: Sequence[int], folder: Path, progress: Progress) -> None:
        self.plan, self.folder, self.progress = plan, folder, progress
        self.trainer = Trainer(plan, seeds)
        _prepare(folder, plan, seeds)
        parameters = self.trainer.model.parameters_each
        self.replicas = [Replica(plan, seed, seed_folder(folder, seed), parameters) for seed in seeds]
        self.seconds = 0.0  # of training, evaluation and logging left out
        self._logged = (0, 0.0)  # step and seconds at the last line

    def complete(self) -> Outcome:
        status = "failed"
        reason: str | None = None
        with StopFlag() as stop, self.progress:
            try:
                self._train(stop)
                status = "done" if stop.signal is None else "interrupted"
            except KeyboardInterrupt:
                stop.signal, status = stop.signal or signal.SIGINT, "interrupted"
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise
            finally:
                for r, replica in enumerate(self.replicas):
                    if replica.running:
                        self._finish(r, status, reason)
        return Outcome(self.folder, [replica.summary() for replica in self.replicas], stop.signal)

    def _train(self, stop: StopFlag) -> None:
        config = self.plan.config
        last = config.train.steps
        self._evaluate(0, {r: {} for r in range(len(self.replicas))})
        for step in range(1, last + 1):
            started = time.perf_counter()
            update = self.trainer.step(step)
            self.seconds += time.perf_counter() - started

            lines: dict[int, dict[str, float]] = {}  # what this step's record holds, by replica
            due = step == 1 or step % config.log.every == 0 or step == last
            for r, replica in enumerate(self.replicas):
                if replica.running and r not in update.broken:
                    replica.updated(update.clips[r])
                    lines[r] = self._training_line(r, update) if due else {}
            if due:
                self._logged = (step, self.seconds)
            if step % config.eval.every == 0 or step == last:
                self._evaluate(step, lines)
            elif due:
                self._write(step, lines)
            for r, what in update.broken.items():
                if self.replicas[r].running:
                    self._finish(r, "diverged", f"{what} at step {step}")
            self.progress.show(step, update, self.replicas)
            if stop.signal is not None or not any(replica.running for replica in self.replicas):
                return

    def _training_line(self, r: int, update: Update) -> dict[str, float]:
        metrics = self.plan.task.metrics(update.outputs[r], update.batches[r])
        values = self.replicas[r].training_values(update.losses[r], metrics, update.clips[r])
        step, seconds = self._logged
        return values | {"time/steps_per_second": (update.step - step) / (self.seconds - seconds)}

    def _evaluate(self, step: int, lines: dict[int, dict[str, float]]) -> None:
        """Evaluate the running replicas, write their lines, and freeze those that have solved the task."""
        config, task = self.plan.config, self.plan.task
        for r, values in lines.items():
            for prefix, variation in {"eval": task, **self.plan.variations}.items():
                scores = evaluate(self.trainer.model, r, variation, self.replicas[r].seed, config.eval.samples)
                values |= {f"{prefix}/{name}": score for name, score in scores.items()}
                if prefix == "eval":
                    values["baseline/loss"] = task.baseline
                    self.replicas[r].evaluated(step, scores)
        self._write(step, lines)
        for r in lines:
            replica = self.replicas[r]
            replica.speed = step / self.seconds if step else None
            if replica.steps_to_solve is not None and config.train.stop_when_solved:
                self._finish(r, "done")
            else:
                replica.write_summary()

    def _write(self, step: int, lines: dict[int, dict[str, float]]) -> None:
        for r, values in lines.items():
            self.replicas[r].record.scalars(step, values)

    def _finish(self, r: int, status: str, reason: str | None = None) -> None:
        replica = self.replicas[r]
        self.trainer.freeze(r)
        if replica.updates:
            replica.speed = replica.updates / self.seconds
        buffer = io.BytesIO()
        weights = self.trainer.model.weights(r)
        torch.save({name: weight.detach().cpu().clone() for name, weight in weights.items()}, buffer)
        write_whole(replica.record.folder / WEIGHTS, buffer.getvalue())
        replica.finish(status, reason)


def _prepare(folder: Path, plan: Plan, seeds: Sequence[int]) -> None:
    """Make the run folder, clear the seeds' old results, write the configuration without its seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        if seed_folder(folder, seed).exists():
            shutil.rmtree(seed_folder(folder, seed))
    kept = {key: value for key, value in plan.config.tree.items() if key not in ("seed", "seeds")}
    write_whole(folder / "config.yaml", yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode())
