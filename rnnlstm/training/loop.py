"""The loop of a run: training steps, and everything that is measured and recorded on the way.

`train_run` trains a configuration's seeds in one folder. `Loop` trains one group of seeds in lockstep: steps,
logging, probes, evaluations, checkpoints, and the end of each replica.
"""

from __future__ import annotations

import io
import logging
import math
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from rnnlstm.config.errors import JobError, enough_memory, writing
from rnnlstm.config.schema import ClipOptions
from rnnlstm.record.aggregate import Aggregate
from rnnlstm.record.environment import note_command, note_environment, noted_threads, plugin_sources
from rnnlstm.record.files import locked, room_for_files, write_whole
from rnnlstm.record.folders import AGGREGATE, BEST_WEIGHTS, WEIGHTS, seed_folder
from rnnlstm.record.summary import summaries
from rnnlstm.tasks import TASKS
from rnnlstm.training.checkpoint import (
    BranchState,
    CheckpointClock,
    ClockState,
    RunState,
    drop_checkpoints,
    group_name,
    save_branch,
    save_checkpoint,
)
from rnnlstm.training.device import describe, own_settings
from rnnlstm.training.evaluation import evaluations
from rnnlstm.training.observe import Instruments
from rnnlstm.training.plan import Plan
from rnnlstm.training.progress import Progress
from rnnlstm.training.replica import Replica
from rnnlstm.training.resume import SeedGroup, groups_to_train, load_trainer, prepare_folder, seeds_left
from rnnlstm.training.signals import Outcome, StopFlag
from rnnlstm.training.step import Trainer, Update
from rnnlstm.training.weights import starting_weights

LOG = logging.getLogger("rnnlstm")

TIMED_UPDATES, TIMED_SECONDS = 5, 1.0  #: to choose threads: at most so many updates, and about so long
ALMOST_EVERY = 0.95  #: share of updates from which clipping sets the size of every step
ENOUGH, MANY = 100, 500  #: updates before "almost every", and before "never", is worth a warning


def train_run(plan: Plan, folder: Path, progress: Progress, command: str = "") -> Outcome:
    """Train, evaluate and record the replicas of `plan` in `folder`.

    Seeds that have finished there are skipped, others resume from their last good checkpoint; with `overwrite` all
    start again. `command` is what was typed, for the record. Raises: DiskError if the record can't be written;
    BusyError if another process has the folder; CheckpointError if there are checkpoints and none is good;
    OptionError if it takes more open files than the system allows.
    """
    seeds = plan.config.seed_numbers
    with (
        own_settings(plan.config.threads),
        room_for_files(seeds_left(plan.config, folder)),
        writing(f"results in {folder}"),
        locked(folder),
    ):
        groups = groups_to_train(folder, plan.config)
        if groups:
            threads = choose_threads(plan, folder, groups, progress)
            note_command(folder, plan.config.seed, plan.config.seeds, command, threads)
        stopped = None
        for group in groups:
            with enough_memory(plan.sizes), ExitStack() as files:
                stopped = Loop(plan, group, folder, files, progress).complete()
            if stopped is not None:
                break
        return Outcome(folder, summaries(folder, seeds), stopped, trained=bool(groups))


def choose_threads(plan: Plan, folder: Path, groups: Sequence[SeedGroup], progress: Progress) -> int:
    """Set PyTorch's number of threads for a run, and return it. It ends with `own_settings`.

    Without `threads=`, a run that began earlier keeps its number; a new one on the CPU takes one thread or all that
    PyTorch has here, whichever makes an update faster. Updates of a trainer of its own are timed, and thrown away:
    the run's state is untouched.
    """
    if plan.config.threads is not None:
        return plan.config.threads
    every, known = torch.get_num_threads(), None if plan.config.overwrite else noted_threads(folder)
    machines = [group.state["machine"].get("threads") for group in groups if group.state is not None]
    if known is None and machines:  # the run began before its threads were noted
        known = int(machines[0] or every)
    if known is None and every > 1 and plan.device.type == "cpu":
        one, all_ = update_times(plan, groups[0].seeds, every)
        known = 1 if one <= all_ else every
        progress.note(f"threads={known}: an update takes {1e3 * one:.3g} ms with 1, {1e3 * all_:.3g} ms with {every}")
    if known is not None:
        torch.set_num_threads(known)
    return torch.get_num_threads()


def update_times(plan: Plan, seeds: Sequence[int], every: int) -> tuple[float, float]:
    """Seconds of an update with one thread, and with `every`: the least of a few, taken in turn."""
    trainer, best = Trainer(plan, seeds), {1: math.inf, every: math.inf}
    began, step = time.perf_counter(), 0
    for timed in range(-1, TIMED_UPDATES):
        for threads in (1, every):
            torch.set_num_threads(threads)
            step += 1
            started = time.perf_counter()
            trainer.step(step)
            if timed >= 0:
                best[threads] = min(best[threads], time.perf_counter() - started)
        if timed >= 0 and time.perf_counter() - began > TIMED_SECONDS:
            break
    return best[1], best[every]


class Loop:
    """Trains the seeds of `group` in lockstep, from the group's checkpoint or from the start, in `folder`."""

    def __init__(self, plan: Plan, group: SeedGroup, folder: Path, files: ExitStack, progress: Progress) -> None:
        """`files` closes every file of the record, however the loop ends."""
        self.plan, self.folder, self.progress, self.seeds = plan, folder, progress, group.seeds
        self.trainer = Trainer(plan, group.seeds)
        if group.state is None:
            prepare_folder(folder, plan.config, group.seeds)
            if (weights := starting_weights(plan, group.seeds)) is not None:
                self.trainer.start_from(weights)
            own = {"plugins": plugin_sources(plan.config.plugins)} if plan.config.plugins else {}
            note_environment(folder, group.seeds, {**describe(plan.device), "device": plan.device.type, **own})
        else:
            load_trainer(self.trainer, group.state)
        model, states = self.trainer.model, group.state["replicas"] if group.state else [None] * len(group.seeds)
        self.replicas = [
            Replica(plan, seed, seed_folder(folder, seed), files, model.parameters_each, state)
            for seed, state in zip(group.seeds, states, strict=True)
        ]
        self.instruments = [Instruments(plan, model, r, rep.seed, rep.record) for r, rep in enumerate(self.replicas)]
        self.plateaus = {f"baseline/{name.replace(' ', '_')}": loss for name, loss in plan.task.plateaus.items()}
        self.baselines = {"baseline/loss": plan.task.baseline, **self.plateaus} | {
            f"{prefix.replace('eval', 'baseline')}/loss": task.baseline for prefix, task in plan.variations.items()
        }
        headlines = [TASKS[name].metric_name for name in TASKS]
        self.aggregate = Aggregate(
            folder / AGGREGATE, plan.task.name, plan.task.metric_name, list(self.plateaus), headlines
        )
        files.callback(self.aggregate.close)
        self.clock = Clock()
        self.checkpoint_clock = CheckpointClock(plan.config.checkpoint)
        self._logged = (0, 0.0)  # step and seconds of training at the last line
        self._first = 1  # the update that comes next
        self._branched = False  # the state that longer runs continue from has been kept
        self._pending: dict[int, dict[str, float]] = {}  # lines of the last update that the record lacks, by replica
        self.resumed: str | None = None  #: a line on where it goes on
        if group.state is not None:
            self._load_state(group.state)

    def _load_state(self, state: RunState | BranchState) -> None:
        """All but the trainer's and the replicas' own."""
        self._first = state["step"] + 1
        for instruments, shown in zip(self.instruments, state["instruments"], strict=True):
            instruments.load_state(shown)
        self.clock.load_state(state["clock"])
        step, seconds = state["logged"]
        self._logged = (int(step), seconds)
        self._branched = any(replica.status == "done" for replica in self.replicas)
        self._pending = {r: values for r, values in enumerate(cast(BranchState, state).get("pending", [])) if values}
        self.aggregate.rebuild(self.folder)
        self.resumed = f"resumed at update {state['step']:,}"
        LOG.info("%s: %s", self.folder, self.resumed)

    def _state(self, step: int) -> RunState:
        return {
            "seeds": list(self.seeds),
            "step": step,
            "trainer": self.trainer.state(),
            "replicas": [replica.state() for replica in self.replicas],
            "instruments": [instruments.state() for instruments in self.instruments],
            "clock": self.clock.state(),
            "logged": list(self._logged),
            "machine": describe(self.plan.device),
        }

    def _branch(self, step: int, lines: Mapping[int, dict[str, float]]) -> None:
        """Keep the state that longer runs share with this one: before a replica stops that has solved the task, whose
        `lines` are not written yet, and before the last update, at which everything is logged and evaluated."""
        pending = [lines.get(r, {}) for r in range(len(self.replicas))]
        save_branch(self.folder, self.seeds, {**self._state(step), "pending": pending})
        self._branched = True

    def _save(self, step: int) -> None:
        save_checkpoint(self.folder, self.seeds, step, self._state(step))
        for replica in self.replicas:
            replica.saved(step)
        self.checkpoint_clock.saved(step)

    def complete(self) -> signal.Signals | None:
        """Train to the end, or until a signal, which is returned."""
        status, reason = "failed", None
        with StopFlag() as stop, self.progress:
            self.progress.note(self.resumed or f"starts, {self.plan.config.train.steps:,} updates at most")
            try:
                with enough_memory(self.plan.sizes):
                    self._train(stop)
                status = "done" if stop.signal is None else "interrupted"
            except KeyboardInterrupt:
                stop.signal, status = stop.signal or signal.SIGINT, "interrupted"
            except Exception as error:
                reason = str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
                raise
            finally:
                for r, replica in enumerate(self.replicas):
                    if replica.running:
                        self._finish(r, status, reason)
                self._finish_aggregate()
        if status == "done" and (advice := clip_advice(self.plan.config.clip, self.replicas)):
            LOG.warning("%s: %s", self.folder, advice)
        if status == "done":
            drop_checkpoints(self.folder, group_name(self.seeds))
        return stop.signal

    def _train(self, stop: StopFlag) -> None:
        config = self.plan.config
        last = config.train.steps
        lines: dict[int, dict[str, float]] = {r: {} for r in range(len(self.replicas))}  # a step's record, by replica
        if self._first == 1:
            self._observe(0, lines)
            self._evaluate(0, lines)
            self._write(0, lines)
        elif self._pending:
            self._write_pending(self._first - 1)
        for step in range(self._first, last + 1):
            with self.clock.on("training"):
                update = self.trainer.step(step)

            live = [r for r, replica in enumerate(self.replicas) if replica.running and r not in update.broken]
            lines = {r: {} for r in live}
            with self.clock.on("instruments"):
                for r in live:
                    self.replicas[r].updated(update.clips[r])
                if step == 1 or step % config.log.every == 0 or step == last:
                    self._log(update, lines)
                self._observe(step, lines)
            if evaluated := step % config.eval.every == 0 or step == last:
                with self.clock.on("evaluation"):
                    self._evaluate(step, lines)
            if evaluated and step < last and not self._branched and any(map(self._ends_solved, lines)):
                self._branch(step, lines)
            with self.clock.on("instruments"):
                for r, values in lines.items():
                    if step == last or (evaluated and self._ends_solved(r)):
                        values |= self.replicas[r].values_since_line() | self.instruments[r].at_end()
                self._write(step, lines)
            for r, what in update.broken.items():
                if self.replicas[r].running:
                    self._finish(r, "diverged", f"{what} at step {step}")
            if evaluated:
                self._end_solved(lines)
            if step == last - 1 and not self._branched:
                self._branch(step, {})
            self.progress.show(step, update, self.replicas)
            if stop.signal is not None or (step < last and self.checkpoint_clock.due(step)):
                self._save(step)
            if stop.signal is not None or not any(replica.running for replica in self.replicas):
                return

    def _write_pending(self, step: int) -> None:
        """What followed the evaluation of a `_branch` in the run that this one continues."""
        lines = self._pending
        for r, values in lines.items():
            if self._ends_solved(r):
                values |= self.replicas[r].values_since_line() | self.instruments[r].at_end()
        self._write(step, lines)
        self._end_solved(lines)
        self.aggregate.rebuild(self.folder)

    def _log(self, update: Update, lines: dict[int, dict[str, float]]) -> None:
        """Losses, metrics, gradient norms, clipping and speed of an update."""
        step, seconds = self._logged
        speed = (update.step - step) / (self.clock.training - seconds)
        for r, values in lines.items():
            metrics = update.tasks[r].metrics(update.outputs[r], update.batches[r])
            values |= self.replicas[r].training_values(update.losses[r], metrics, update.clips[r])
            values |= {"time/steps_per_second": speed, "time/instruments_share": self.clock.instruments_share}
            if not self.trainer.curriculum.fixed:
                values["curriculum/length"] = float(self.trainer.curriculum.length(r, update.step))
        self._logged = (update.step, self.clock.training)

    def _observe(self, step: int, lines: dict[int, dict[str, float]]) -> None:
        for r, values in lines.items():
            if self.instruments[r].due(step):
                values |= self.instruments[r].observe(step)

    def _evaluate(self, step: int, lines: dict[int, dict[str, float]]) -> None:
        """Scores on held-out sequences, at the training length and elsewhere; a solved curriculum length grows."""
        curriculum = self.trainer.curriculum
        for r, values in lines.items():
            replica = self.replicas[r]
            current = curriculum.current(r)
            by_prefix = evaluations(self.plan, self.trainer.model, r, replica.seed, current)
            for prefix, scores in by_prefix.items():
                values |= {f"{prefix}/{name}": score for name, score in scores.items()}
            values |= self.baselines
            replica.evaluated(step, by_prefix["eval"], by_prefix.get("precision", {}), self.trainer.model.weights(r))
            if current is not None:
                values["baseline_current/loss"] = current.baseline
                curriculum.grow_if_solved(r, by_prefix["eval_current"])
            values |= replica.clipping_values()
        if lines:
            self.aggregate.add(step, {self.replicas[r].seed: values for r, values in lines.items()})

    def _end_solved(self, lines: dict[int, dict[str, float]]) -> None:
        """After an evaluation: finish the replicas that have solved the task, and update the others' summaries."""
        for r in lines:
            replica = self.replicas[r]
            replica.speed = replica.updates / self.clock.training
            if self._ends_solved(r):
                self._finish(r, "done")
            else:
                replica.write_summary()

    def _ends_solved(self, r: int) -> bool:
        """Whether the replica stops now, having solved the task."""
        return self.replicas[r].steps_to_solve is not None and self.plan.config.train.stop_when_solved

    def _write(self, step: int, lines: dict[int, dict[str, float]]) -> None:
        for r, values in lines.items():
            if values:
                self.replicas[r].record.scalars(step, values)

    def _finish(self, r: int, status: str, reason: str | None = None) -> None:
        replica = self.replicas[r]
        self.trainer.freeze(r)
        if status == "diverged" and (values := replica.values_since_line()):
            replica.record.scalars(replica.updates, values)  # what led to it: no other line would hold it
        if replica.updates:
            replica.speed = replica.updates / self.clock.training
        if status != "failed":
            self.instruments[r].decode(replica.updates)
        _write_weights(replica.record.folder / WEIGHTS, self.trainer.model.weights(r))
        if replica.best is not None:
            _write_weights(replica.record.folder / BEST_WEIGHTS, replica.best[1])
        replica.finish(status, reason)

    def _finish_aggregate(self) -> None:
        """Seeds of earlier commands belong to the aggregate, too."""
        if len(list(self.folder.glob("seed_*"))) > len(self.replicas):
            self.aggregate.rebuild(self.folder)
        self.aggregate.close()
        self.aggregate.refresh_columns()


def _write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    buffer = io.BytesIO()
    torch.save({name: weight.detach().cpu().clone() for name, weight in weights.items()}, buffer)
    write_whole(path, buffer.getvalue())


class Clock:
    """Seconds spent so far on training, on instruments (probes, logging, the record), and on evaluation."""

    def __init__(self) -> None:
        self.training = self.instruments = self.evaluation = 0.0

    def state(self) -> ClockState:
        return {"training": self.training, "instruments": self.instruments, "evaluation": self.evaluation}

    def load_state(self, state: ClockState) -> None:
        self.training, self.instruments = state["training"], state["instruments"]
        self.evaluation = state["evaluation"]

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Count the time inside towards `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)

    @property
    def instruments_share(self) -> float:
        """Time on instruments as a share of the time on training."""
        return self.instruments / self.training if self.training else 0.0


def clip_advice(options: ClipOptions, replicas: Sequence[Replica]) -> str | None:
    """A sentence if clipping fired on almost every update of a run, or on none of many; numbers are medians over the
    seeds."""
    if options.name == "none":
        return None
    updates = statistics.median(replica.updates for replica in replicas)
    rate = statistics.median(replica.clip_rate for replica in replicas)
    norms = [median[0] for replica in replicas if (median := replica.norms.quantiles([0.5]))]
    if not norms:
        return None
    numbers = f"median norm {statistics.median(norms):.2g}, threshold {options.threshold:g}"
    if options.norm_type != 2:
        numbers = f"median Euclidean norm {statistics.median(norms):.2g}; the {options.norm_type}-norm is limited"
    if updates >= ENOUGH and rate >= ALMOST_EVERY:
        return f"clipping fired on {rate:.0%} of the updates: it sets the size of every step ({numbers})"
    if updates >= MANY and rate == 0:
        return f"note: clipping never fired in {updates:,.0f} updates: the threshold has no effect ({numbers})"
    return None
