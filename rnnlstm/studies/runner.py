"""Runs studies: tuning seeds at every learning rate, fresh seeds at the chosen rate, then files, table and verdict.

The project's own trainer trains one run at a time, its seeds in lockstep. The same command resumes an interrupted
study: it reads finished runs and resumes an unfinished one from its checkpoint.

The learning rate is chosen by the same rule for every arm, from the tuning seeds alone: the rate at which most seeds
solve the task. Ties are broken by the least mean of updates to solve (a seed that does not solve counts with the
whole budget), then by the lowest median held-out loss (a diverged seed counts as infinite), then by the smallest
rate.
"""

from __future__ import annotations

import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rnnlstm.config.compose import Composer
from rnnlstm.config.errors import CheckpointError, JobError, writing
from rnnlstm.config.schema import read_config
from rnnlstm.jobs.failures import failure_log, failure_reason
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.listener import Listener
from rnnlstm.jobs.sweep import train_jobs
from rnnlstm.record.files import LineWriter, read_json, read_lines, write_json
from rnnlstm.record.folders import METRICS, SUMMARY, WEIGHTS, run_folder, seed_folder
from rnnlstm.studies.results import result, text_table, write
from rnnlstm.studies.study import Arm, Row, Setting, Study, Sweep
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress, progress_on

if TYPE_CHECKING:
    from rnnlstm.training.signals import Outcome

SECONDS, MEASURED = "seconds.jsonl", "measured.json"
Say = Callable[[str], None]


class StoppedError(Exception):
    """A signal ended a run after it had saved."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name}")
        self.signal = by


def reproduce(chosen: Sequence[Study], size: str, runs: Path, out: Path) -> signal.Signals | None:
    """Run the studies one after another and print their progress; returns the signal that stopped them, or None.

    Raises: ConfigError, JobError, BusyError, CheckpointError, DiskError.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 180

    def progress(job: Job) -> Progress:
        return progress_on(console, job.config)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    for study in chosen:
        say(f"== {study.name} ({size}): {study.title}")
        began = time.monotonic()
        runner = Runner(study, size, runs / study.name / size, say, progress)
        try:
            rows = runner.rows()
        except StoppedError as stopped:
            print(
                f"stopped by {stopped.signal.name}; what was reached is saved, the same command resumes",
                file=sys.stderr,
            )
            return stopped.signal
        trained = study.sweep(size) is not None
        seconds = runner.seconds() if trained else time.monotonic() - began
        data = result(study, size, rows, seconds)
        paths = write(study, data, out)
        _show(console, study, rows)
        for check in data["checks"]:
            say(f"{'pass' if check['passed'] else 'MISS'}  {check['text']}: {check['measured']}")
        say(f"{study.name} ({size}): {data['verdict'].upper()}, {seconds:.0f} s of training; {paths[1].parent}\n")
    return None


def _show(console: Console, study: Study, rows: Sequence[Row]) -> None:
    head, *lines = text_table(rows, study.columns)
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for line in lines:
        table.add_row(*line)
    console.print(table, markup=False)


@dataclass(frozen=True)
class Condition:
    """One arm in one setting. `tree` is its configuration; `defaults` has the same groups without the overrides."""

    setting: Setting
    arm: Arm
    tree: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.setting.name, self.arm.name

    def job(self, rate: float, seeds: range, samples: int | None = None) -> Job:
        """Its run at a learning rate with these seeds. `samples`: held-out sequences; None: those of its
        configuration."""
        optimizer, tested = {**self.tree["optimizer"], "lr": rate}, dict(self.tree["eval"])
        if samples is not None:
            tested["samples"] = samples
        tree = {**self.tree, "optimizer": optimizer, "eval": tested, "seed": seeds.start, "seeds": len(seeds)}
        return Job(read_config(tree), run_folder(tree, self.defaults))


def compose(study: Study, size: str, sweep: Sweep, folder: Path) -> list[Condition]:
    """Every condition of the sweep, composed and checked before anything is trained. Raises: ConfigError."""
    from rnnlstm.training.match import matched_hidden_size

    asked = [
        (setting, arm, study.resolved(size, (*sweep.common, *setting.overrides, *arm.overrides), folder))
        for setting in sweep.settings
        for arm in setting.arms
    ]
    conditions = []
    with Composer().active() as composer:
        trees = {overrides: composer.compose(overrides) for _, _, overrides in asked}  # a quarter of a second each
        for setting, arm, overrides in asked:
            tree = trees[overrides] | {"runs_root": str(folder)}
            tree["train"] = {**tree["train"], "steps": setting.steps}
            config = read_config(tree)
            if config.match != "none":
                tree["model"] = {**tree["model"], "hidden_size": matched_hidden_size(config)}
            conditions.append(Condition(setting, arm, tree, composer.defaults_of(tree)))
    return conditions


@dataclass(frozen=True)
class Trial:
    """The outcome at one learning rate: a value for each tuning seed."""

    steps: int  #: the budget
    steps_to_solve: list[int | None]
    loss: list[float]  #: infinite where the seed diverged

    @classmethod
    def of(cls, summaries: Sequence[Mapping[str, Any]], steps: int) -> Trial:
        """From the seeds' summaries."""
        return cls(steps, [s["steps_to_solve"] for s in summaries], [_loss(s) for s in summaries])

    @property
    def rank(self) -> tuple[float, float, float]:
        """Lower is better."""
        solved = sum(step is not None for step in self.steps_to_solve)
        spent = [self.steps if step is None else step for step in self.steps_to_solve]
        return -solved / len(spent), statistics.fmean(spent), statistics.median(self.loss)

    def as_data(self) -> dict[str, Any]:
        return {
            "steps_to_solve": self.steps_to_solve,
            "loss": [None if math.isinf(loss) else loss for loss in self.loss],
        }


def choose(trials: Mapping[float, Trial]) -> float:
    """The learning rate by the rule above."""
    return min(trials, key=lambda rate: (*trials[rate].rank, rate))


def _loss(summary: Mapping[str, Any]) -> float:
    loss = summary.get("loss")
    if summary["status"] == "diverged" or loss is None or not math.isfinite(loss):
        return math.inf
    return float(loss)


class Runner(Listener):
    """One study at one size, in `folder`: trains its jobs, reports what becomes of them, and keeps their times."""

    def __init__(self, study: Study, size: str, folder: Path, say: Say, progress: Callable[[Job], Progress]) -> None:
        self.study, self.size, self.folder, self._say, self._progress = study, size, folder, say, progress
        self._total = self._done = self._spent = 0.0  # cost of all jobs and of those done here, and their seconds
        self._stage: list[str] = []  # the names of the jobs that train
        self._failures: list[str] = []
        self._began = 0.0

    def rows(self) -> list[Row]:
        """Train what is not trained yet; returns the table's rows.

        Raises: StoppedError at a signal; JobError if a run failed, after the others; ConfigError; DiskError.
        """
        sweep = self.study.sweep(self.size)
        if sweep is None:
            return self.study.measured_in(self.size, self.folder)
        with writing(f"in {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
        _use_threads(sweep)
        conditions = compose(self.study, self.size, sweep, self.folder)
        tuned = [c for c in conditions if c.setting.rate is None and c.setting.rates_of is None]
        tuning = {
            (condition.key, rate): condition.job(rate, sweep.tuning, sweep.tuning_samples)
            for condition in tuned
            for rate in sweep.grid
        }
        placeholders = [condition.job(sweep.grid[0], sweep.final) for condition in conditions]
        self._total = sum(map(_cost, tuning.values())) + sum(map(_cost, placeholders))
        self._train("tuning", {f"{_name(key)}, lr {rate:g}": job for (key, rate), job in tuning.items()})
        trials = {at: Trial.of(job.summaries(), job.config.train.steps) for at, job in tuning.items()}
        rates = _rates(conditions, sweep, trials)
        final = {c.key: c.job(rates[c.key], sweep.final) for c in conditions}
        self._train("final", {f"{_name(key)}, lr {rates[key]:g}": job for key, job in final.items()})
        measured = self._measure(final)
        return [_row(c, final[c.key], sweep, trials, measured[c.key]) for c in conditions]

    def seconds(self) -> float:
        """Time spent on training so far, over all attempts."""
        return sum(line["seconds"] for line in read_lines(self.folder / SECONDS))

    def _train(self, stage: str, jobs: Mapping[str, Job]) -> None:
        todo = {name: job for name, job in jobs.items() if not job.finished()}
        self._total -= sum(_cost(job) for job in jobs.values()) - sum(map(_cost, todo.values()))
        if not todo:
            self._say(f"{stage}: all {len(jobs)} runs are there")
            return
        self._stage = [f"{stage} {k}/{len(jobs)}  {name}" for k, name in enumerate(jobs, 1) if name in todo]
        train_jobs(list(todo.values()), self, apart=False)
        if self._failures:
            reason = f"{self.study.name}: {len(self._failures)} of {len(jobs)} runs failed"
            raise JobError(reason, "\n".join(self._failures))

    def started(self, number: int, job: Job) -> None:
        self._began = time.monotonic()
        self._say(f"{self._stage[number]}{self._left()}")

    def progress(self, job: Job) -> Progress:
        return self._progress(job)

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        seconds = time.monotonic() - self._began
        if isinstance(outcome, Exception) and len(self._stage) == 1:
            raise outcome
        with writing(f"in {self.folder}"), closing(LineWriter(self.folder / SECONDS)) as lines:
            seeds = list(job.config.seed_numbers)
            lines.write({"run": job.folder.name, "seeds": seeds, "seconds": round(seconds, 2)})
        self._done, self._spent = self._done + _cost(job), self._spent + seconds
        if isinstance(outcome, CheckpointError):
            raise outcome
        if isinstance(outcome, Exception):
            self._failures.append(f"{self._stage[number]}: {failure_reason(outcome)}\n{failure_log(outcome)}")
            self._say(f"  failed: {failure_reason(outcome)}")
        elif outcome.stopped_by is not None:
            raise StoppedError(outcome.stopped_by)

    def _left(self) -> str:
        if not self._done:
            return ""
        minutes = self._spent / self._done * max(0.0, self._total - self._done) / 60
        return f"  (at most about {max(1, round(minutes))} min left)"

    def _measure(self, final: Mapping[tuple[str, str], Job]) -> dict[tuple[str, str], list[dict[str, float]]]:
        """`Study.after` of every seed. Kept on disk with the time of the weights, so that a second run of the study
        only reads it."""
        kept = read_json(self.folder / MEASURED) or {}
        measured: dict[tuple[str, str], list[dict[str, float]]] = {}
        for key, job in final.items():
            measured[key] = []
            for seed in job.config.seed_numbers:
                place = seed_folder(job.folder, seed)
                weights = (place / WEIGHTS).stat().st_mtime_ns
                name = f"{job.folder.parent.name}/{job.folder.name}/{place.name}"
                if kept.get(name, {}).get("weights") != weights:
                    summary = read_json(place / SUMMARY) or {}
                    values = {} if summary["status"] == "diverged" else self.study.after(self.size, job.folder, seed)
                    kept[name] = {"weights": weights, "values": values}
                    if values:
                        write_json(self.folder / MEASURED, kept)
                measured[key].append(kept[name]["values"])
        return measured


def _cost(job: Job) -> float:
    """Multiply-adds of a run that takes its whole budget: updates × sequences × time steps × those of the network.

    Only ratios matter, for the time that is left. The reference backend counts three times: it is slower by about
    that.
    """
    config, plan = job.config, make_plan(job.config)
    sequences = config.train.steps * config.seeds * config.train.batch_size
    slower = 3.0 if plan.backend == "reference" else 1.0
    return sequences * plan.task.sequence_length * plan.cost.multiply_adds * slower


def _use_threads(sweep: Sweep) -> None:
    """Use the runs' number of threads in this process too, for what is timed and measured beside them."""
    for override in sweep.common:
        if override.startswith("threads="):
            import torch

            torch.set_num_threads(int(override.removeprefix("threads=")))


def _name(key: tuple[str, str]) -> str:
    return ", ".join(key)


Trials = Mapping[tuple[tuple[str, str], float], Trial]


def _rates(conditions: Sequence[Condition], sweep: Sweep, trials: Trials) -> dict[tuple[str, str], float]:
    """The learning rate of each condition: its setting's fixed one, or the one chosen there or in `rates_of`."""
    rates: dict[tuple[str, str], float] = {}
    for condition in conditions:
        setting, arm = condition.setting, condition.arm.name
        source = (setting.rates_of or setting.name, arm)
        chosen = setting.rate
        if chosen is None:
            chosen = choose({rate: trials[source, rate] for rate in sweep.grid})
        rates[condition.key] = chosen
    return rates


def _row(
    condition: Condition, job: Job, sweep: Sweep, trials: Trials, measured: Sequence[Mapping[str, float]]
) -> Row:
    ends = job.summaries()
    scores = [{**_last_scores(job, s["seed"]), **more} for s, more in zip(ends, measured, strict=True)]
    names = list(dict.fromkeys(name for values in scores for name in values))
    return Row(
        setting=condition.setting.name,
        arm=condition.arm.name,
        metric_name=ends[0]["metric_name"],
        rate=job.config.optimizer.lr,
        steps=job.config.train.steps,
        batch_size=job.config.train.batch_size,
        hidden_size=job.config.network.hidden_size,
        parameters=ends[0]["parameters"],
        baseline=ends[0]["baseline"],
        seeds=[s["seed"] for s in ends],
        solved=[bool(s["solved"]) for s in ends],
        diverged=[s["status"] == "diverged" for s in ends],
        steps_to_solve=[s["steps_to_solve"] for s in ends],
        metric=[_finite(s["metric"]) for s in ends],
        loss=[_finite(s["loss"]) for s in ends],
        clip_rate=[s["clip_rate"] for s in ends],
        scores={name: [_finite(values.get(name)) for values in scores] for name in names},
        tuning={f"{rate:g}": trials[at].as_data() for rate in sweep.grid if (at := (condition.key, rate)) in trials},
    )


def _last_scores(job: Job, seed: int) -> dict[str, float]:
    """Scores of a seed's last evaluation, slices left out: `eval_T200/mse`, `eval/recency_error`."""
    scores: dict[str, float] = {}
    for line in read_lines(seed_folder(job.folder, seed) / METRICS):
        if "eval/loss" in line:
            scores = {tag: value for tag, value in line.items() if tag.startswith("eval")}
    return {tag: value for tag, value in scores.items() if not tag.startswith("eval_slice")}


def _finite(value: float | None) -> float | None:
    """None for infinity and NaN, which JSON does not have; `diverged` says why."""
    return value if value is not None and math.isfinite(value) else None
