"""Runs studies, network by network: tuning seeds at every learning rate, then fresh seeds at the rate chosen.

The files of a study are written after each network of a setting.

The project's own trainer trains one run at a time, its seeds in lockstep. The same command resumes an interrupted
study: rows that are in the study's file already count as done, and so do finished runs; an unfinished run is resumed
from its checkpoint.

The learning rate is chosen by the same rule for every arm, from the tuning seeds alone: the rate at which most seeds
solve the task. Ties are broken by the least mean of updates to solve (a seed that does not solve counts with the
whole budget), then by the lowest median held-out loss (a diverged seed counts as infinite), then by the smallest
rate.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
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
from rnnlstm.record.folders import METRICS, SUMMARY, WEIGHTS, identity, run_folder, seed_folder
from rnnlstm.reporting.selection import held_out_loss, rank
from rnnlstm.reporting.tables import table_console
from rnnlstm.studies.results import BEFORE, read, result, text_table, write
from rnnlstm.studies.study import ABOVE, FIRST_FINAL, GIVES_UP_ABOVE, GIVES_UP_AT, Arm, Row, Setting, Study, Sweep
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress, progress_on
from rnnlstm.training.signals import stop_line

if TYPE_CHECKING:
    from rnnlstm.training.signals import Outcome

SECONDS, MEASURED = "seconds.jsonl", "measured.json"
Say = Callable[[str], None]


class StoppedError(Exception):
    """A signal ended a run after it had saved."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name}")
        self.signal = by


def reproduce(
    chosen: Sequence[Study], size: str, runs: Path, out: Path, setting: str | None = None
) -> signal.Signals | None:
    """Run the studies one after another, or one `setting` of theirs, and print their progress; returns the signal
    that stopped them, or None.

    Raises: ConfigError, JobError, BusyError, CheckpointError, DiskError.
    """
    console = table_console(180)

    def progress(job: Job) -> Progress:
        return progress_on(console, job.config)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    for study in chosen:
        say(f"== {study.name} ({size}): {study.title}")
        before = read(study.name, size, out)
        runner = Runner(study, size, runs / study.name / size, say, progress, before)
        try:
            for rows in runner.rows(setting):
                data = result(study, size, rows, runner.setting_seconds, before, runner.lacking)
                paths = write(study, data, out)
        except StoppedError as stopped:
            print(stop_line(stopped.signal), file=sys.stderr)
            return stopped.signal
        _show(console, study, rows)
        for check in data["checks"]:
            say(f"{'pass' if check['passed'] else 'MISS'}  {check['text']}: {check['measured']}")
        told = f"{data['verdict'].upper()}, {data['seconds']:.0f} s of training"
        say(f"{study.name} ({size}): {told}; {paths[1].parent}\n")
    return None


def _show(console: Console, study: Study, rows: Sequence[Row]) -> None:
    head, *lines = text_table(rows, study.columns)
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for line in lines:
        table.add_row(*line)
    console.print(table, markup=False)


@dataclass(frozen=True, eq=False)
class Condition:
    """One arm in one setting. `tree` is its configuration; `defaults` has the same groups without the overrides."""

    setting: Setting
    arm: Arm
    tree: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.setting.name, self.arm.name

    def job(self, rate: float, seeds: range, samples: int | None = None, share: float = 1) -> Job:
        """Its run at a learning rate with these seeds, for a share of its updates. `samples`: held-out sequences;
        None: those of its configuration."""
        optimizer, tested, train = {**self.tree["optimizer"], "lr": rate}, dict(self.tree["eval"]), self.tree["train"]
        if samples is not None:
            tested["samples"] = samples
        train = {**train, "steps": math.ceil(train["steps"] * share)}
        sections = {"optimizer": optimizer, "eval": tested, "train": train}
        tree = {**self.tree, **sections, "seed": seeds.start, "seeds": len(seeds)}
        return Job(read_config(tree), run_folder(tree, self.defaults))

    def identity(self, sweep: Sweep) -> str:
        """A hash of everything that its row depends on."""
        protocol = {field.name: getattr(sweep, field.name) for field in fields(sweep) if field.name != "settings"}
        if sweep.first_final == FIRST_FINAL:  # a later key, which leaves earlier rows theirs
            del protocol["first_final"]
        return identity({**self.tree, "protocol": repr(protocol), "rate": [self.setting.rate, self.setting.rates_of]})


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
    given_up: bool = False  #: stopped early, as no seed had made progress

    @classmethod
    def of(cls, summaries: Sequence[Mapping[str, Any]], steps: int, given_up: bool = False) -> Trial:
        """From the seeds' summaries."""
        return cls(steps, [s["steps_to_solve"] for s in summaries], [held_out_loss(s) for s in summaries], given_up)

    @property
    def rank(self) -> tuple[float, float, float]:
        """Lower is better."""
        return rank(self.steps_to_solve, [self.steps] * len(self.loss), self.loss)

    def as_data(self) -> dict[str, Any]:
        loss = [None if math.isinf(loss) else loss for loss in self.loss]
        return {"steps_to_solve": self.steps_to_solve, "loss": loss} | ({"given_up": True} if self.given_up else {})


def choose(trials: Mapping[float, Trial]) -> float:
    """The learning rate by the rule above."""
    return min(trials, key=lambda rate: (*trials[rate].rank, rate))


class Runner(Listener):
    """One study at one size, in `folder`: trains its jobs, reports what becomes of them, and keeps their times.
    `there`: the study's data from before."""

    def __init__(
        self,
        study: Study,
        size: str,
        folder: Path,
        say: Say,
        progress: Callable[[Job], Progress],
        there: Mapping[str, Any] | None = None,
    ) -> None:
        self.study, self.size, self.folder, self._say, self._progress = study, size, folder, say, progress
        self._there = [Row.from_data(row) for row in there["rows"]] if there else []
        self.setting_seconds: dict[str, float] = dict(there.get("setting_seconds", {})) if there else {}
        if there and not self.setting_seconds:  # of a version that kept the sum only
            self.setting_seconds[BEFORE] = there["seconds"]
        self.lacking = 0  #: rows of the study, beside those that `rows` has yielded
        self._setting = ""  # that is trained
        self._total = self._done = self._spent = 0.0  # cost of all jobs and of those done here, and their seconds
        self._stage: list[str] = []  # the names of the jobs that train
        self._failures: list[str] = []
        self._began = 0.0

    def rows(self, only: str | None = None) -> Iterator[list[Row]]:
        """The rows that are there, after each network that was trained, at least once. `only`: this setting alone.

        Raises: StoppedError at a signal; JobError if a run failed, after the others; ConfigError; DiskError.
        """
        names = self.study.settings(self.size)
        wanted = [name for name in names if only in (None, name)]
        sweep = self.study.sweep(self.size)
        if sweep is None:
            yield from self._measured(names, wanted)
            return
        conditions: dict[str, list[Condition]] = {name: [] for name in names}
        with writing(f"in {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
        _use_threads(sweep)
        for condition in compose(self.study, self.size, sweep, self.folder):
            conditions[condition.setting.name].append(condition)
        done = {
            c.key: row for name in names for c in conditions[name] if (row := self._done_row(c, sweep)) is not None
        }
        todo = {name: [c for c in conditions[name] if c.key not in done] for name in wanted}
        failed: list[JobError] = []
        self._total = sum(_planned(left, sweep) for left in todo.values())
        for name in wanted:
            self._setting = name
            if not todo[name]:
                self._say(f"{name}: its rows are there")
            elif len(todo[name]) < len(conditions[name]):
                self._say(f"{name}: {len(conditions[name]) - len(todo[name])} of its rows are there")
            elsewhere = 0.0 if self.seconds(name) else self.setting_seconds.get(name, 0.0)
            for condition in todo[name]:
                try:
                    done[condition.key] = self._trained(condition, conditions, sweep, done)
                except JobError as error:
                    failed.append(error)
                    continue
                self.setting_seconds[name] = elsewhere + self.seconds(name)
                yield self._in_order(done, conditions)
        if failed:
            raise failed[0]
        if not any(todo.values()):
            yield self._in_order(done, conditions)

    def _measured(self, names: Sequence[str], wanted: Sequence[str]) -> Iterator[list[Row]]:
        """The same for a study with a loop of its own, which measures a setting at once."""
        done = {name: [row for row in self._there if name in ("all", row.setting)] for name in names}
        todo = [name for name in wanted if not done[name]]
        for name in wanted:
            if name not in todo:
                self._say(f"{name}: its rows are there")
                continue
            began = time.monotonic()
            done[name] = self.study.measured(self.size, name, self.folder)
            self.setting_seconds[name] = time.monotonic() - began
            yield [row for rows in done.values() for row in rows]
        if not todo:
            yield [row for rows in done.values() for row in rows]

    def _in_order(
        self, done: Mapping[tuple[str, str], Row], conditions: Mapping[str, Sequence[Condition]]
    ) -> list[Row]:
        keys = [condition.key for each in conditions.values() for condition in each]
        self.lacking = len(keys) - len(done)
        return [done[key] for key in keys if key in done]

    def seconds(self, setting: str) -> float:
        """Time spent on training a setting so far, over all attempts."""
        lines = read_lines(self.folder / SECONDS)
        return float(sum(line["seconds"] for line in lines if line.get("setting", setting) == setting))

    def _done_row(self, condition: Condition, sweep: Sweep) -> Row | None:
        """A condition's row in the study's file."""
        named = [row for row in self._there if (row.setting, row.arm) == condition.key]
        return next((row for row in named if _is_of(row, condition, sweep)), None)

    def _trained(
        self,
        condition: Condition,
        conditions: Mapping[str, Sequence[Condition]],
        sweep: Sweep,
        done: Mapping[tuple[str, str], Row],
    ) -> Row:
        """Train a network in a setting, at the rate that is fixed, that another setting has found, or that is
        tuned now; its row."""
        rate, trials = condition.setting.rate, dict[float, Trial]()
        if rate is None:
            found_in = condition.setting.rates_of or condition.setting.name
            (source,) = (c for c in conditions[found_in] if c.arm.name == condition.arm.name)
            if source.key in done:
                rate = done[source.key].rate
            if rate is None:
                tried = self._tuned(source, sweep)
                rate, trials = choose(tried), tried if source is condition else trials
        final = condition.job(rate, sweep.final)
        self._train("final", {f"{_name(condition.key)}, lr {rate:g}": final})
        return _row(condition, final, sweep, trials, self._measure(final, sweep))

    def _tuned(self, condition: Condition, sweep: Sweep) -> dict[float, Trial]:
        """The outcome of the tuning seeds at each rate."""
        trials = self._tried(condition, sweep, sweep.grid)
        if sweep.one_above and choose(trials) == max(sweep.grid):
            above = min(rate for rate in (ABOVE, 10 * max(sweep.grid)) if rate > max(sweep.grid))
            trials |= self._tried(condition, sweep, (above,))
        return trials

    def _tried(self, condition: Condition, sweep: Sweep, rates: Sequence[float]) -> dict[float, Trial]:
        tried: dict[float, Trial] = {}
        left = list(rates)
        for share in (GIVES_UP_AT, 1.0) if sweep.gives_up else (1.0,):
            jobs = {rate: condition.job(rate, sweep.tuning, sweep.tuning_samples, share) for rate in left}
            part = "tuning" if share == 1 else "tuning, first part"
            self._train(part, {f"{_name(condition.key)}, lr {rate:g}": job for rate, job in jobs.items()})
            left = []
            for rate, job in jobs.items():
                ends = job.summaries()
                hopeless = all(held_out_loss(s) > GIVES_UP_ABOVE * (s["baseline"] or math.inf) for s in ends)
                if share == 1 or hopeless or all(s["steps_to_solve"] is not None for s in ends):
                    tried[rate] = Trial.of(ends, condition.setting.steps, given_up=share < 1 and hopeless)
                else:
                    left.append(rate)
        return tried

    def _train(self, stage: str, jobs: Mapping[str, Job]) -> None:
        todo = {name: job for name, job in jobs.items() if not job.finished()}
        self._total -= sum(_cost(job) for job in jobs.values()) - sum(map(_cost, todo.values()))
        if not todo:
            self._say(f"{stage}: all {len(jobs)} runs are there")
            return
        self._stage = [f"{stage} {k}/{len(jobs)}  {name}" for k, name in enumerate(jobs, 1) if name in todo]
        train_jobs(list(todo.values()), self, apart=False)
        if self._failures:
            failures, self._failures = self._failures, []
            reason = f"{self.study.name}: {len(failures)} of {len(jobs)} runs failed"
            raise JobError(reason, "\n".join(failures))

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
            line = {"run": job.folder.name, "setting": self._setting, "seeds": seeds, "seconds": round(seconds, 2)}
            lines.write(line)
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

    def _measure(self, job: Job, sweep: Sweep) -> list[dict[str, float]]:
        """The scores of every seed on the stream `test`, and those of `Study.after`. Kept on disk with the time of
        the weights, so that a second run of the study only reads them."""
        kept = read_json(self.folder / MEASURED) or {}
        measured = []
        for seed in job.config.seed_numbers:
            place = seed_folder(job.folder, seed)
            weights = (place / WEIGHTS).stat().st_mtime_ns
            name = f"{job.folder.parent.name}/{job.folder.name}/{place.name}"
            if kept.get(name, {}).get("weights") != weights:
                summary = read_json(place / SUMMARY) or {}
                values: dict[str, float] = {}
                if summary["status"] != "diverged":
                    values = _tested(job.folder, seed, sweep.test_samples) if sweep.test_samples else {}
                    values |= self.study.after(self.size, job.folder, seed)
                kept[name] = {"weights": weights, "values": values}
                if values:
                    write_json(self.folder / MEASURED, kept)
            measured.append(kept[name]["values"])
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


def _planned(conditions: Sequence[Condition], sweep: Sweep) -> float:
    """The cost of a setting's runs, tuning included, if none is given up."""
    runs = [c.job(sweep.grid[0], sweep.final) for c in conditions]
    tuned = [c for c in conditions if c.setting.rate is None and c.setting.rates_of is None]
    trials = [c.job(sweep.grid[0], sweep.tuning, sweep.tuning_samples) for c in tuned]
    first = GIVES_UP_AT if sweep.gives_up else 0
    return sum(map(_cost, runs)) + len(sweep.grid) * (1 + first) * sum(map(_cost, trials))


def _is_of(row: Row, condition: Condition, sweep: Sweep) -> bool:
    """Whether a row was made of this condition. Rows of earlier versions only say the budget, seeds and rates."""
    if row.identity:
        return row.identity == condition.identity(sweep)
    grid = {f"{rate:g}" for rate in sweep.grid} if condition.setting.rate is condition.setting.rates_of else set()
    made = (row.steps, row.seeds, set(row.tuning), bool(sweep.test_samples))
    return made == (condition.setting.steps, list(sweep.final), grid, False)


def _tested(folder: Path, seed: int, samples: int) -> dict[str, float]:
    """Scores of a trained network on the stream `test`, by the tags of its evaluations: `eval/loss`,
    `eval_T200/mse`."""
    from rnnlstm.studies.common import network_of
    from rnnlstm.training.evaluation import evaluate

    plan, network = network_of(folder, seed)
    tasks = {"eval": plan.task, **plan.variations}
    found = {prefix: evaluate(network, task, seed, samples, stream="test")[0] for prefix, task in tasks.items()}
    return {f"{prefix}/{name}": value for prefix, scores in found.items() for name, value in scores.items()}


def _row(
    condition: Condition,
    job: Job,
    sweep: Sweep,
    trials: Mapping[float, Trial],
    measured: Sequence[Mapping[str, float]],
) -> Row:
    ends = job.summaries()
    scores = [{**_last_scores(job, s["seed"]), **more} for s, more in zip(ends, measured, strict=True)]
    names = list(dict.fromkeys(name for values in scores for name in values))
    metric = f"eval/{ends[0]['metric_name']}"
    tested = [values if sweep.test_samples else {} for values in measured]
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
        metric=[_finite(values.get(metric, s["metric"])) for s, values in zip(ends, tested, strict=True)],
        loss=[_finite(values.get("eval/loss", s["loss"])) for s, values in zip(ends, tested, strict=True)],
        clip_rate=[s["clip_rate"] for s in ends],
        scores={name: [_finite(values.get(name)) for values in scores] for name in names},
        tuning={f"{rate:g}": trials[rate].as_data() for rate in sorted(trials)},
        identity=condition.identity(sweep),
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
