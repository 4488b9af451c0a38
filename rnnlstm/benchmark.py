"""The command that measures speed."""

from __future__ import annotations

# The text of --help. It is assigned, since python -OO drops docstrings.
__doc__ = """\
Measure speed: the fused recurrences against PyTorch's modules, and training against a plain script.

    python -m rnnlstm.benchmark [--quick] [--json FILE] [--figure FILE] [--threads N] [--rounds N] [--device NAME]

Examples
  python -m rnnlstm.benchmark --quick                  three shapes, with the slow contenders, some minutes
  python -m rnnlstm.benchmark --json speed.json        the whole grid of shapes
  python -m rnnlstm.benchmark --device cuda            training on a GPU: 1, 64 and 256 replicas, and nothing else

Contenders take turns within one process; times are medians with quartiles. Compare the ratios: single times change
with the other work of the machine.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rnnlstm.cli.arguments import Parser, check_writable
from rnnlstm.cli.exits import DONE, run_command
from rnnlstm.config.errors import ConfigError, writing


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
    result.add_argument("--device", metavar="NAME", help="only training there, with many replicas: cuda, cuda:1, cpu")
    return result


def _main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    for name in ("threads", "rounds"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: must be at least 1")
    if options.device is not None and options.figure is not None:
        raise ConfigError("--figure draws the recurrences, which --device leaves out")
    for name in ("json", "figure"):  # checked before minutes of measuring
        path = getattr(options, name)
        if path is not None:
            check_writable(path)

    import torch

    from rnnlstm.benchmarks.tables import measure_everything, measure_on_device

    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device is not None:
        figures = measure_on_device(options.device, options.quick, options.rounds)
    else:
        figures = measure_everything(options.quick, options.rounds)
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
    return DONE


if __name__ == "__main__":
    sys.exit(main())
