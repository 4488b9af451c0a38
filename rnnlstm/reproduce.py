"""The command that repeats published experiments."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Repeat published experiments, each with one command, a criterion that was fixed beforehand, and a verdict.

    python -m rnnlstm.reproduce --list [NAME…]
    python -m rnnlstm.reproduce NAME… [--quick | --long] [--setting S] [--runs FOLDER] [--out FOLDER]

Examples
  python -m rnnlstm.reproduce --list               the studies: what they ask, how long they take
  python -m rnnlstm.reproduce --list adding        one of them in full: what was published, the criterion
  python -m rnnlstm.reproduce adding --quick       smaller sizes with a criterion of their own, within a minute or so
  python -m rnnlstm.reproduce all --quick          every study, about a quarter of an hour on one core
  python -m rnnlstm.reproduce adding copy          two studies at the sizes of the page, one after the other
  python -m rnnlstm.reproduce adding --setting T=50                  one setting of a study; --list adding names them

The rows of each setting are written as soon as it has ended, and rows that are in the folder of --out are not run
again. After an interrupt, the same command resumes. The exit code is 0 for a pass and for a miss: a miss is a
result. Two commands for different studies can run side by side, each with OMP_NUM_THREADS=1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnnlstm.cli.arguments import Parser, check_writable
from rnnlstm.cli.exits import DONE, code_of, run_command
from rnnlstm.config.errors import ConfigError, did_you_mean, show

if TYPE_CHECKING:
    from rnnlstm.studies.study import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def parser() -> Parser:
    parser = Parser("reproduce", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies, or all")
    parser.add_argument("--list", action="store_true", help="list the studies, or describe those named, and stop")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", const="quick", dest="size", help="smaller sizes")
    sizes.add_argument("--long", action="store_const", const="long", dest="size", help="longer sequences")
    parser.add_argument("--setting", metavar="S", help="one setting of the study, instead of all")
    parser.add_argument(
        "--runs", metavar="FOLDER", default="results_runs", help="training runs (default results_runs)"
    )
    parser.add_argument("--out", metavar="FOLDER", default="results", help="tables and figures (default results)")
    return parser


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    size = options.size or "standard"
    if options.list:
        _list(options.names)
        return DONE
    chosen = _chosen(options.names, size)
    if not chosen:
        raise ConfigError("which study? --list names them; all takes every one")
    if options.setting is not None:
        _check_setting(chosen, size, options.setting)
    out, runs = Path(options.out).expanduser(), Path(options.runs).expanduser()
    check_writable(options.out, folder=True)
    check_writable(options.runs, folder=True)

    from rnnlstm.studies.runner import reproduce

    stopped = reproduce(chosen, size, runs, out, options.setting)
    return DONE if stopped is None else code_of(stopped)


def _chosen(names: Sequence[str], size: str | None = None) -> list[Study]:
    """The studies with these names. Raises: ConfigError for an unknown name, or a study without this size."""
    from rnnlstm.studies import studies

    known = studies()
    if list(names) == ["all"]:
        return [study for study in known.values() if size is None or size in study.sizes]
    for name in names:
        if name not in known:
            hint = "; separate studies by spaces" if "," in name else did_you_mean(name, [*known, "all"])
            raise ConfigError(f"no study {show(name)}: must be one of {', '.join(known)}{hint}")
        if size is not None and size not in known[name].sizes:
            raise ConfigError(f"{name} has no --{size}; it has {', '.join(known[name].sizes)}")
    return [known[name] for name in dict.fromkeys(names)]


def _check_setting(chosen: Sequence[Study], size: str, setting: str) -> None:
    """Raises: ConfigError unless it is one of a single study's."""
    if len(chosen) > 1:
        raise ConfigError(f"--setting {show(setting)} is of one study; {len(chosen)} are named")
    known = chosen[0].settings(size)
    if setting not in known:
        hint = did_you_mean(setting, known)
        raise ConfigError(f"{chosen[0].name} has no setting {show(setting)}: must be one of {', '.join(known)}{hint}")


def _list(names: Sequence[str]) -> None:
    """Print a line for each study, or everything about those named. Raises: ConfigError for an unknown name."""
    if not names:
        from rnnlstm.studies import studies

        print("About how long each takes on one core: quick, standard.\n")
        for study in studies().values():
            times = " ".join(f"{_time(study, size):>7}" for size in ("quick", "standard"))
            print(f"{study.name:<18}{times}  {study.question}")
        print("\nWhat was published, and the criterion: --list NAME")
        return
    for study in _chosen(names):
        print(f"{study.name:<12} {study.title}: {study.question}")
        print(f"{'':<12} published: {study.reference}")
        for size in study.sizes:
            for check in study.checks(size):
                print(f"{'':<12} {size}: {check.text}")
            print(f"{'':<12} {size}, settings: {', '.join(study.settings(size))}")
        times = ", ".join(f"{size} {_time(study, size)}" for size in study.sizes)
        print(f"{'':<12} time on one core, about: {times}\n")


def _time(study: Study, size: str) -> str:
    minutes = getattr(study.minutes, size)
    if minutes is None:
        return "-"
    return f"{minutes * 60:.0f} s" if minutes < 1.5 else f"{minutes:.0f} min"


if __name__ == "__main__":
    sys.exit(main())
