"""The command that measures speed."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Measure speed: the fused recurrences against PyTorch's modules, and training against scripts.

    python -m rnnlstm.benchmark [--quick] [--json FILE] [--figure FILE] [--threads N] [--rounds N]
    python -m rnnlstm.benchmark --device NAME [--check] [--quick] [--json FILE] [--rounds N]
    python -m rnnlstm.benchmark [--training] [--compile [SECONDS]] [--update] [--growth] [--start-up] [--sweep [JOBS]]

Examples
  python -m rnnlstm.benchmark --quick                  three shapes, with the slow contenders, some minutes
  python -m rnnlstm.benchmark --json speed.json        the whole grid of shapes
  python -m rnnlstm.benchmark --training --threads 1   training alone, against scripts in PyTorch and JAX
  python -m rnnlstm.benchmark --start-up --sweep       what a run takes before its first update, and a job of a sweep
  python -m rnnlstm.benchmark --device cuda --check    a GPU's kernels, all compiled, and what they compute
  python -m rnnlstm.benchmark --device cuda            then against cuDNN and JAX: layers, and 1 to 256 replicas

Contenders take turns within one process; times are medians with quartiles. Compare the ratios: single times change
with the other work of the machine.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rnnlstm.cli.arguments import Parser, check_writable
from rnnlstm.cli.exits import DONE, JOB_FAILED, run_command
from rnnlstm.config.errors import ConfigError, writing

MOST_JOBS = 10_000  #: of a sweep
LONGEST = 86_400  #: seconds that a compiler may be given


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_command(_main, arguments)


def parser() -> Parser:
    """The command's arguments."""
    result = Parser("benchmark", __doc__)
    result.add_argument("--quick", action="store_true", help="three shapes only, with the slow contenders")
    result.add_argument("--json", metavar="FILE", help="write every figure there")
    result.add_argument("--figure", metavar="FILE", help="draw the ratios there, as a PNG")
    result.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: the machine's cores")
    result.add_argument("--rounds", type=int, default=9, metavar="N", help="measured rounds of each contender")
    result.add_argument("--device", metavar="NAME", help="recurrences and replicas there: cuda, cuda:1, cpu")
    result.add_argument("--check", action="store_true", help="with --device: compile and test instead of timing")
    only = result.add_argument_group("parts", "With any of these, those named and nothing else")
    only.add_argument("--training", action="store_true", help="an update of training against scripts of the same")
    only.add_argument(
        "--compile", type=float, nargs="?", const=120.0, metavar="SECONDS",
        help="training, also against torch.compile, given up after so many seconds; 120 unless given",
    )  # fmt: skip
    only.add_argument("--update", action="store_true", help="the parts of an update: data, forward, … optimiser")
    only.add_argument("--growth", action="store_true", help="a step of larger shapes, and one beside a busy process")
    only.add_argument("--start-up", action="store_true", help="from the command to its first update, by parts")
    only.add_argument(
        "--sweep", type=int, nargs="?", const=100, metavar="JOBS", help="a sweep of tiny jobs; 100 unless given"
    )
    return result


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    for name in ("threads", "rounds", "sweep"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: must be at least 1")
    if options.sweep is not None and options.sweep > MOST_JOBS:
        raise ConfigError(f"--sweep {options.sweep}: must be at most {MOST_JOBS:,}")
    if options.compile is not None and not 0 < options.compile <= LONGEST:
        raise ConfigError(f"--compile {options.compile:g}: must be above 0 and at most {LONGEST:,} seconds")
    named = {
        "training": options.training or options.compile is not None,
        "update": options.update,
        "growth": options.growth,
        "start_up": options.start_up,
        "sweep": options.sweep is not None,
    }
    parts = [part for part, chosen in named.items() if chosen]
    if options.device is not None and parts:
        raise ConfigError("--device measures recurrences and replicas there, and no other part")
    if options.check and options.device is None:
        raise ConfigError("--check needs --device NAME")
    if options.figure is not None and (parts or options.device is not None):
        raise ConfigError("--figure draws the recurrences, which --device and the options for parts leave out")
    for name in ("json", "figure"):  # checked before minutes of measuring
        path = getattr(options, name)
        if path is not None:
            check_writable(path)

    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device is not None:  # without Hydra, which a machine that is lent for measuring may lack
        from rnnlstm.benchmarks.device import check, measure

        if options.check:
            figures = check(options.device, options.quick)
        else:
            figures = measure(options.device, options.quick, options.rounds)
    else:
        from rnnlstm.benchmarks.tables import USUAL, measure_parts

        figures = measure_parts(parts or USUAL, options.quick, options.rounds, options.compile, options.sweep or 0)
    if options.json:
        from rnnlstm.record.files import json_bytes, write_output

        with writing(options.json):
            write_output(Path(options.json), json_bytes(figures))
        print(f"\nWritten: {options.json}")
    if options.figure:
        from rnnlstm.reporting.figures import speed_figure

        with writing(options.figure):
            speed_figure(figures["recurrences"], Path(options.figure))
        print(f"\nDrawn: {options.figure}")
    return JOB_FAILED if figures.get("faults") else DONE


if __name__ == "__main__":
    sys.exit(main())
