"""Running a study: the tuning seeds at every rate, then fresh seeds at the rate chosen; what is done is only read.

The project's own trainer does the work, one run at a time with its seeds in lockstep. Interrupted, the same command
goes on: finished runs are read, an unfinished one continues from its checkpoint.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.config.errors import CheckpointError, DiskError, JobError
from rnnlstm.jobs.failures import failure_log, failure_reason
from rnnlstm.jobs.job import Job, Listener
from rnnlstm.jobs.launch import train_jobs
from rnnlstm.record.files import LineWriter, read_json, read_lines, write_json
from rnnlstm.record.folders import METRICS, SUMMARY, WEIGHTS, seed_folder
from rnnlstm.studies.composing import Cell, compose
from rnnlstm.studies.rows import Row
from rnnlstm.studies.study import Study, Sweep
from rnnlstm.studies.tuning import Trial, choose

if TYPE_CHECKING:
    from rnnlstm.training.progress import Progress
    from rnnlstm.training.signals import Outcome

SECONDS, MEASURED = "seconds.jsonl", "measured.json"
Say = Callable[[str], None]


class StoppedError(Exception):
    """A signal ended a run after it had saved."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(f"stopped by {by.name}")
        self.signal = by


class Runner:
    """One study at one size, in `folder`."""

    def __init__(self, study: Study, size: str, folder: Path, say: Say, progress: Callable[[Job], Progress]) -> None:
        self.study, self.size, self.folder, self._say, self._progress = study, size, folder, say, progress

    def rows(self) -> list[Row]:
        """Everything trained that has not been, and the table's rows.

        Raises: StoppedError at a signal; JobError if a run failed, after the others; ConfigError; DiskError.
        """
        sweep = self.study.sweep(self.size)
        if sweep is None:
            return self.study.measured(self.size)
        self._make_folder()
        _use_threads(sweep)
        cells = compose(self.study, self.size, sweep, self.folder)
        tuned = [cell for cell in cells if cell.setting.rate is None and cell.setting.rates_of is None]
        tuning = {
            (cell.key, rate): cell.job(rate, sweep.tuning, sweep.tuning_samples)
            for cell in tuned
            for rate in sweep.grid
        }
        placeholders = [cell.job(sweep.grid[0], sweep.final) for cell in cells]
        self._total = sum(map(cost, tuning.values())) + sum(map(cost, placeholders))
        self._done, self._spent = 0.0, 0.0
        self._train("tuning", {f"{_name(key)}, lr {rate:g}": job for (key, rate), job in tuning.items()})
        trials = {at: Trial.of(job.summaries(), job.config.train.steps) for at, job in tuning.items()}
        rates = _rates(cells, sweep, trials)
        final = {cell.key: cell.job(rates[cell.key], sweep.final) for cell in cells}
        self._train("final", {f"{_name(key)}, lr {rates[key]:g}": job for key, job in final.items()})
        measured = self._measure(final)
        return [_row(cell, final[cell.key], sweep, trials, measured[cell.key]) for cell in cells]

    def seconds(self) -> float:
        """Time spent on training so far, over all attempts."""
        return sum(line["seconds"] for line in read_lines(self.folder / SECONDS))

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"can't write in {self.folder}: {error.strerror}") from None

    def _train(self, stage: str, jobs: Mapping[str, Job]) -> None:
        todo = {name: job for name, job in jobs.items() if not job.finished()}
        self._total -= sum(cost(job) for job in jobs.values()) - sum(map(cost, todo.values()))
        if not todo:
            self._say(f"{stage}: all {len(jobs)} runs are there")
            return
        number_of = {name: k + 1 for k, name in enumerate(jobs)}
        names = [(name, f"{stage} {number_of[name]}/{len(jobs)}  {name}") for name in todo]
        listener = _StudyListener(self, names)
        train_jobs(list(todo.values()), listener, apart=False)
        if listener.failures:
            reason = f"{self.study.name}: {len(listener.failures)} of {len(jobs)} runs failed"
            raise JobError(reason, "\n".join(listener.failures))

    def _left(self) -> str:
        if not self._done:
            return ""
        minutes = self._spent / self._done * max(0.0, self._total - self._done) / 60
        return f"  (at most about {max(1, round(minutes))} min left)"

    def _note(self, job: Job, seconds: float) -> None:
        try:
            line = LineWriter(self.folder / SECONDS)
            line.write({"run": job.folder.name, "seeds": list(job.config.seed_numbers), "seconds": round(seconds, 2)})
            line.close()
        except OSError as error:
            raise DiskError(f"can't write in {self.folder}: {error.strerror}") from None

    def _measure(self, final: Mapping[tuple[str, str], Job]) -> dict[tuple[str, str], list[dict[str, float]]]:
        """`Study.after` of every seed; kept, since it is asked again whenever the study is."""
        kept = read_json(self.folder / MEASURED) or {}
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for key, job in final.items():
            found[key] = []
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
                found[key].append(kept[name]["values"])
        return found


class _StudyListener(Listener):
    """Reports the runs of a stage, and keeps their times. `names` has the name and the first line of each run."""

    def __init__(self, runner: Runner, names: Sequence[tuple[str, str]]) -> None:
        self._runner, self._names = runner, names
        self._began = time.monotonic()
        self.failures: list[str] = []

    def started(self, number: int, job: Job) -> None:
        self._began = time.monotonic()
        self._runner._say(f"{self._names[number][1]}{self._runner._left()}")

    def progress(self, job: Job) -> Progress:
        return self._runner._progress(job)

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        runner, seconds = self._runner, time.monotonic() - self._began
        if isinstance(outcome, Exception) and len(self._names) == 1:
            raise outcome
        runner._note(job, seconds)
        runner._done, runner._spent = runner._done + cost(job), runner._spent + seconds
        if isinstance(outcome, CheckpointError):
            raise outcome
        if isinstance(outcome, Exception):
            self.failures.append(f"{self._names[number][0]}: {failure_reason(outcome)}\n{failure_log(outcome)}")
            runner._say(f"  failed: {failure_reason(outcome)}")
        elif outcome.stopped_by is not None:
            raise StoppedError(outcome.stopped_by)


def cost(job: Job) -> float:
    """What a run takes at most, in a unit of its own: updates × sequences × time steps, more for gates."""
    config = job.config
    factor = 1.0 if config.cell["name"] in ("rnn", "linear") else 2.5
    if not config.surgery.nothing:
        factor *= 3
    return config.train.steps * config.seeds * config.train.batch_size * (config.task["length"] + 10) * factor


def _use_threads(sweep: Sweep) -> None:
    """As the runs will: what is timed and measured beside them is so as well."""
    for override in sweep.common:
        if override.startswith("threads="):
            import torch

            torch.set_num_threads(int(override.removeprefix("threads=")))


def _name(key: tuple[str, str]) -> str:
    return ", ".join(key)


Trials = Mapping[tuple[tuple[str, str], float], Trial]


def _rates(cells: Sequence[Cell], sweep: Sweep, trials: Trials) -> dict[tuple[str, str], float]:
    """The rate of each cell: its setting's own, chosen there, or chosen where the setting says."""
    rates: dict[tuple[str, str], float] = {}
    for cell in cells:
        setting, arm = cell.setting, cell.arm.name
        source = (setting.rates_of or setting.name, arm)
        chosen = setting.rate
        if chosen is None:
            chosen = choose({rate: trials[source, rate] for rate in sweep.grid})
        rates[cell.key] = chosen
    return rates


def _row(cell: Cell, job: Job, sweep: Sweep, trials: Trials, measured: Sequence[Mapping[str, float]]) -> Row:
    ends = job.summaries()
    scores = [{**_last_scores(job, s["seed"]), **more} for s, more in zip(ends, measured, strict=True)]
    names = list(dict.fromkeys(name for values in scores for name in values))
    return Row(
        setting=cell.setting.name,
        arm=cell.arm.name,
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
        tuning={f"{rate:g}": trials[cell.key, rate].as_data() for rate in sweep.grid if (cell.key, rate) in trials},
    )


def _last_scores(job: Job, seed: int) -> dict[str, float]:
    """The last evaluation of a seed, but for what its summary has: `eval_T200/mse`, `eval/recency_error`."""
    found: dict[str, float] = {}
    for line in read_lines(seed_folder(job.folder, seed) / METRICS):
        if "eval/loss" in line:
            found = {tag: value for tag, value in line.items() if tag.startswith("eval")}
    return {tag: value for tag, value in found.items() if not tag.startswith("eval_slice")}


def _finite(value: float | None) -> float | None:
    """JSON has no infinity; what is not finite is None, and `diverged` says why."""
    return value if value is not None and math.isfinite(value) else None
