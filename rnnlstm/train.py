"""The command that trains."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Train recurrent networks on long-range tasks.

    python -m rnnlstm.train [-m] [key=value …]

Options
  -m, --multirun       values separated by commas make a sweep
  --cfg job            print the whole configuration, every key with its value, and stop
  --config-dir DIR     a folder with YAML files of your own (task/, model/, experiment/, …)
  --completion=bash    print a script for Tab completion; with eval in ~/.bashrc, for the command rnnlstm-train
  --version            print the version and stop
  --help               this text

Examples
  python -m rnnlstm.train                                      first keyword recall with an LSTM
  python -m rnnlstm.train task=adding model=rnn optimizer.lr=1e-3 seeds=4
  python -m rnnlstm.train -m task=copy,adding,keyword model=rnn,lstm       a sweep: every combination
  python -m rnnlstm.train -m model.backend=reference,torch     from scratch beside PyTorch's own
  python -m rnnlstm.train -m model=rnn,lstm launcher=local     jobs beside each other; also slurm, ray
  python -m rnnlstm.train -m search=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-2))' seeds=3    the lowest loss
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rnnlstm.cli.exits import DONE, run_command
from rnnlstm.config.errors import ConfigError, did_you_mean, show

FLAGS = ("-m", "--multirun", "--cfg", "-c", "--config-dir", "-cd", "--help", "-h", "--version", "--completion")


@dataclass
class Request:
    """A parsed command line."""

    overrides: list[str] = field(default_factory=list)
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
    """A suggestion for an unknown flag: a key (`--steps 5`), or a flag of the command."""
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

    from rnnlstm.cli.progress import TerminalListener
    from rnnlstm.jobs.train import train

    with TerminalListener() as listener:
        ranking = train(request.overrides, request.sweep, listener, apart=True, config_dir=request.config_dir)
    for line in ranking:
        listener.console.print(line, markup=False)
    return listener.code


def _completion() -> str:
    """The script for Tab completion of every command."""
    from rnnlstm import benchmark, compare, events, export, reproduce
    from rnnlstm.cli.help import bash_script

    commands = {
        "compare": compare, "events": events, "export": export, "benchmark": benchmark, "reproduce": reproduce,
    }  # fmt: skip
    return bash_script({name: command.parser() for name, command in commands.items()})


def _help() -> str:
    """The module's docstring, and every key with its meaning. Does not import torch."""
    from rnnlstm.cli.help import keys

    return f"{__doc__.strip()}\n\n{keys()}"


if __name__ == "__main__":
    sys.exit(main())
