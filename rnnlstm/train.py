"""The command that trains."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Train recurrent networks on long-range tasks.

    python -m rnnlstm.train [-m] [from=RUN [from_weights=last|best]] [key=value …] [-- key=value …]

Options
  -m, --multirun       values separated by commas make a sweep
  --                   a group of settings on top of what stands before the first --; each has jobs of its own
  --cfg job            print the configuration, every key with its value, and stop; with -m the jobs of the sweep
  --config-dir DIR     a folder with YAML files of your own (task/, model/, experiment/, …)
  --completion=bash    print a script for Tab completion; with eval in ~/.bashrc, for the command rnnlstm-train
  --version            print the version and stop
  --help               this text; with --config-dir and plugins=[…] also what is your own
  from=RUN             a run's configuration, changed by the keys that follow; a larger train.steps alone continues
                       the run, bit for bit; from_weights=last or best starts from its weights, with a new optimiser

Examples
  python -m rnnlstm.train                                      first keyword recall with an LSTM
  python -m rnnlstm.train task=adding model=rnn optimizer.lr=1e-3 seeds=4
  python -m rnnlstm.train -m task=copy,adding,keyword model=rnn,lstm       a sweep: every combination
  python -m rnnlstm.train task=adding -- model=rnn model.nonlinearity=tanh,relu -- model=lstm    three networks
  python -m rnnlstm.train -m model.backend=reference,torch     from scratch beside PyTorch's own
  python -m rnnlstm.train -m model=rnn,lstm launcher=local     jobs beside each other; also slurm, ray
  python -m rnnlstm.train -m search=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-2))' seeds=3    the lowest loss
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rnnlstm.cli.exits import DONE, run_command
from rnnlstm.config.errors import ConfigError, did_you_mean, show

FLAGS = (
    "-m", "--multirun", "--cfg", "-c", "--resolve", "--config-dir", "-cd", "--version", "--help", "-h",
    "--completion",
)  # fmt: skip


@dataclass
class Request:
    """A parsed command line."""

    overrides: list[str] = field(default_factory=list)  #: with the `--` between groups of settings
    sweep: bool = False
    show_config: bool = False
    help: bool = False
    completion: bool = False
    config_dir: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def parse(arguments: Sequence[str]) -> Request:
    """Raises: ConfigError for a flag that is not listed above: Hydra has flags that run code."""
    request = Request()
    rest = iter(arguments)
    for argument in rest:
        flag, _, attached = argument.partition("=")
        if argument in ("-m", "--multirun"):
            request.sweep = True
        elif argument in ("-h", "--help"):
            request.help = True
        elif argument == "--resolve":  # --cfg prints references resolved in any case
            continue
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
        elif argument.startswith("-") and argument != "--":
            raise ConfigError(f"unknown option {show(argument)}{_instead(flag, attached or next(rest, ''))}")
        else:
            request.overrides.append(argument)
    return request


def _instead(flag: str, value: str) -> str:
    """A suggestion for an unknown flag: a key (`--steps 5`), or a flag of the command."""
    from rnnlstm.config.hydra_habits import instead_of_flag
    from rnnlstm.config.schema import every_key

    if instead := instead_of_flag(flag):
        return f" of Hydra's; {instead}"
    word = flag.lstrip("-").replace("-", "_")
    meant = [key for key in every_key() if word in (key, key.rpartition(".")[2])]
    if meant and value and not value.startswith("-") and "=" not in value:
        return f": options are written key=value: {meant[0]}={show(value)}; --help lists them"
    return f"{did_you_mean(flag, FLAGS)}; see --help"


def _main(arguments: Sequence[str]) -> int:
    request = parse(arguments)
    if request.help:
        print(_help(request))
        return DONE
    if request.completion:
        print(_completion(), end="")
        return DONE
    if request.show_config:
        _show_configuration(request)
        return DONE

    from rnnlstm.cli.progress import TerminalListener
    from rnnlstm.jobs.train import train

    with TerminalListener() as listener:
        typed = shlex.join(["python", "-m", "rnnlstm.train", *arguments])
        ranking = train(request.overrides, request.sweep, listener, True, request.config_dir, typed)
    for line in [*ranking, *listener.how_to_look()]:
        listener.console.print(line, markup=False)
    return listener.code


def _show_configuration(request: Request) -> None:
    """Print the configuration of a job; of a sweep, its jobs, of which none starts. What training refuses is refused,
    too."""
    import yaml

    from rnnlstm.jobs.job import compose_tree

    if request.overrides or request.sweep:  # the defaults need no check, which would import torch
        from rnnlstm.jobs.search import Search
        from rnnlstm.jobs.train import dry_run

        asked = dry_run(request.overrides, request.sweep, request.config_dir)
        if isinstance(asked, Search):
            keys = ", ".join(asked.space.dimensions)
            print(f"a search in {asked.folder}: {asked.options.trials:,} trials that choose {keys}")
            return
        if request.sweep or "--" in request.overrides:
            for number, job in enumerate(asked, 1):
                seeds = job.config.seed_numbers
                several = f"seeds {seeds[0]} … {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
                finished = ", finished already" if job.finished() and not job.config.overwrite else ""
                print(f"[{number}/{len(asked)}] {job.folder}  {several}{finished}")
            return
    tree = compose_tree(request.overrides, request.config_dir)
    print(yaml.safe_dump(tree, sort_keys=False), end="")


def _completion() -> str:
    """The script for Tab completion of every command."""
    from rnnlstm import benchmark, compare, events, export, reproduce
    from rnnlstm.cli.help import bash_script

    commands = {
        "compare": compare, "events": events, "export": export, "benchmark": benchmark, "reproduce": reproduce,
    }  # fmt: skip
    return bash_script({name: command.parser() for name, command in commands.items()})


def _help(request: Request) -> str:
    """The module's docstring, and every key with its meaning. Imports torch for plugins only."""
    from rnnlstm.cli.help import keys

    if any(word.startswith("plugins=") for word in request.overrides):
        from rnnlstm.jobs.job import take_plugins

        take_plugins(request.overrides)
    return f"{__doc__.strip()}\n\n{keys(request.config_dir)}"


if __name__ == "__main__":
    sys.exit(main())
