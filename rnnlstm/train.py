"""Train recurrent networks on long-range tasks.

    python -m rnnlstm.train [-m] [key=value …]

Options
  -m, --multirun       values separated by commas make a sweep
  --cfg job            print the whole configuration, every key with its value, and stop
  --config-dir DIR     a folder with YAML files of your own (task/, model/, experiment/, …)
  --completion=bash    print a script for Tab completion; with eval in ~/.bashrc, for the command rnnlstm-train
  --help               this text

Examples
  python -m rnnlstm.train                                      first keyword recall with an LSTM
  python -m rnnlstm.train task=adding model=rnn optimizer.lr=1e-3 seeds=4
  python -m rnnlstm.train -m task=copy,adding,keyword model=rnn,lstm       a sweep: every combination
  python -m rnnlstm.train -m model.backend=reference,torch     from scratch beside PyTorch's own
  python -m rnnlstm.train -m model=rnn,lstm launcher=local     jobs beside each other; also slurm, ray
  python -m rnnlstm.train -m search=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-2))' seeds=3    the lowest loss
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rnnlstm.cli.exits import DONE, INTERRUPTED, JOB_FAILED, TERMINATED, fail, guarded
from rnnlstm.config.errors import ConfigError, did_you_mean, show

if TYPE_CHECKING:
    from rnnlstm.jobs.job import Job
    from rnnlstm.jobs.launchers.standing import Standing
    from rnnlstm.training.progress import Progress
    from rnnlstm.training.signals import Outcome

FLAGS = ("-m", "--multirun", "--cfg", "-c", "--config-dir", "-cd", "--help", "-h", "--completion")


@dataclass
class Request:
    """A command line, taken apart."""

    overrides: list[str] = field(default_factory=list)
    sweep: bool = False
    show_config: bool = False
    help: bool = False
    completion: bool = False
    config_dir: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return guarded(lambda: _main(sys.argv[1:] if arguments is None else arguments))


def parse(arguments: Sequence[str]) -> Request:
    """Raises: ConfigError for a flag that is not on the short list: Hydra has some that run code."""
    request = Request()
    rest = iter(arguments)
    for argument in rest:
        flag, _, attached = argument.partition("=")
        if argument in ("-m", "--multirun"):
            request.sweep = True
        elif argument in ("-h", "--help"):
            request.help = True
        elif flag in ("--cfg", "-c"):
            what = attached or next(rest, "")
            if what != "job":
                raise ConfigError(f"{flag} {show(what)}: only --cfg job is known")
            request.show_config = True
        elif flag in ("--config-dir", "-cd"):
            request.config_dir = attached or next(rest, "")
            if not request.config_dir:
                raise ConfigError(f"{flag}: needs a folder")
        elif flag == "--completion":
            if (attached or next(rest, "")) != "bash":
                raise ConfigError("--completion: only bash is known; zsh reads that, too, after bashcompinit")
            request.completion = True
        elif argument.startswith("-"):
            raise ConfigError(f"unknown option {show(argument)}{_instead(flag, attached or next(rest, ''))}")
        else:
            request.overrides.append(argument)
    return request


def _instead(flag: str, value: str) -> str:
    """What an unknown flag may have meant: a key (`--steps 5`), or a flag."""
    from rnnlstm.config.schema import every_key

    word = flag.lstrip("-").replace("-", "_")
    meant = [key for key in every_key() if word in (key, key.rpartition(".")[2])]
    if meant and value and not value.startswith("-") and "=" not in value:
        return f": options are written key=value: {meant[0]}={show(value)}; --help lists them"
    return f"{did_you_mean(flag, FLAGS)}; see --help"


def _main(arguments: Sequence[str]) -> int:
    request = parse(arguments)
    if request.help:
        print(_help())
        return DONE
    if request.completion:
        print(_completion(), end="")
        return DONE
    if request.show_config:
        import yaml

        from rnnlstm.jobs.job import compose_tree

        print(yaml.safe_dump(compose_tree(request.overrides, request.config_dir), sort_keys=False), end="")
        return DONE

    from rnnlstm.jobs.job import compose_jobs
    from rnnlstm.jobs.launch import train_jobs

    if request.sweep and any(text.startswith("search") for text in request.overrides):
        from rnnlstm.jobs.search import wanted

        if wanted(request.overrides):
            return _search(request)
    jobs = compose_jobs(request.overrides, request.sweep, request.config_dir)
    report = _Report(len(jobs))
    with report:
        train_jobs(jobs, report.started, report.ended, report.progress, True, report.watching)
    return report.code


def _search(request: Request) -> int:
    from rnnlstm.jobs.search import Search, ranking

    search = Search(request.overrides, request.config_dir)
    report = _Report(search.options.trials, summarise=False)
    with report:
        search.run(report.started, report.ended, report.progress, True, report.watching)
    for line in ranking(search, request.config_dir):
        report.console.print(line, markup=False)
    return report.code


class _Report:
    """What the terminal shows of the jobs, and the exit code they add up to."""

    def __init__(self, jobs: int, summarise: bool = True) -> None:
        from rich.console import Console

        from rnnlstm.cli.progress import SweepProgress

        self.jobs, self.code, self.summarise = jobs, DONE, summarise
        self.stopped = False
        self.failed = 0
        self.console = Console(highlight=False, soft_wrap=True)
        self.standing = SweepProgress(self.console)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.standing.close(self.failed, summarise=kind is None and self.summarise)

    def started(self, number: int, job: Job) -> None:
        count = f"[{number + 1}/{self.jobs}] " if self.jobs > 1 else ""
        self.console.print(f"{count}{os.fspath(job.folder)}", markup=False)

    def progress(self, job: Job) -> Progress:
        from rnnlstm.training.progress import progress_on

        return progress_on(self.console, job.config)

    def watching(self, standing: Standing) -> None:
        """How a sweep on a launcher stands."""
        self.standing.show(standing, self.failed)

    def ended(self, number: int, job: Job, outcome: Outcome | Exception) -> None:
        from rnnlstm.jobs.failures import failure_log, failure_reason, requeue

        if isinstance(outcome, Exception):
            self.failed += 1
            sys.stderr.write(failure_log(outcome))
            self.code = fail(f"{job.folder}: {failure_reason(outcome)}", JOB_FAILED)
            return
        if not outcome.trained:
            self.console.print("  finished already; overwrite=true trains it anew", markup=False)
        for summary in outcome.summaries:
            self.console.print(f"  {_line(summary)}", markup=False)
        if outcome.stopped_by is not None and not self.stopped:
            self.stopped = True
            self.code = INTERRUPTED if outcome.stopped_by.name == "SIGINT" else TERMINATED
            print(f"stopped by {outcome.stopped_by.name}; what was reached is saved", file=sys.stderr)
            requeue(outcome.stopped_by)


def _line(s: dict[str, Any]) -> str:
    """One replica's end, in a line."""
    if s["status"] == "diverged":
        end = f"diverged: {s['reason']}"
    elif s["solved"]:
        end = f"solved at step {s['steps_to_solve']:,}"
    else:
        end = f"{s['status']}, not solved in {s['steps']:,} steps"
    parts = [f"seed {s['seed']}", end]
    if s["metric"] is not None:
        parts += [f"{s['metric_name']} {s['metric']:.4g}", f"loss {s['loss']:.4g} (baseline {s['baseline']:.4g})"]
    parts.append(f"clipped {s['clip_rate']:.0%}")
    if s["steps_per_second"]:
        parts.append(f"{s['steps_per_second']:.1f} steps/s")
    return "   ".join(parts)


def _completion() -> str:
    """The script for Tab completion of every command."""
    from rnnlstm import benchmark, compare, events, reproduce
    from rnnlstm.cli.help import bash_script

    commands = {"compare": compare, "events": events, "benchmark": benchmark, "reproduce": reproduce}
    return bash_script({name: command.parser() for name, command in commands.items()})


def _help() -> str:
    """The text above and every key with its meaning, without importing torch."""
    from rnnlstm.cli.help import keys

    return f"{(__doc__ or '').strip()}\n\n{keys()}"


if __name__ == "__main__":
    sys.exit(main())
