"""Measure speed: the fused recurrences against PyTorch's modules, and training against a plain script.

    python -m rnnlstm.benchmark [--quick] [--json FILE] [--threads N]

Examples
  python -m rnnlstm.benchmark --quick                  three shapes, with the slow contenders, about two minutes
  python -m rnnlstm.benchmark --json speed.json        the whole grid of shapes

Contenders take turns within one process; times are medians with quartiles. Ratios are what to look at: single times
move with whatever else the machine is doing.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from rnnlstm.exits import DONE, guarded
from rnnlstm.options import ConfigError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise ConfigError(f"{message}; see --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    parser = _Parser(
        prog="python -m rnnlstm.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three shapes only, with the slow contenders")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: the machine's cores")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="measured rounds of each contender")
    options = parser.parse_args(arguments)
    for name in ("threads", "rounds"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: must be at least 1")

    import torch

    from rnnlstm.measure.plain import against_plain_scripts
    from rnnlstm.measure.recurrences import BLOCKS, FULL_GRID, QUICK_GRID, measure
    from rnnlstm.measure.timing import matrix_product_rate
    from rnnlstm.recurrence.fused import native

    if options.threads:
        torch.set_num_threads(options.threads)
    kernel = "native kernel" if native.available(torch.float32) else "portable loops (no native kernel)"
    rate = matrix_product_rate()
    print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}", end=", ")
    print(f"{torch.get_num_threads()} threads, {kernel}; large matrix product {rate:.0f} GFLOP/s\n")
    report: dict[str, Any] = {"threads": torch.get_num_threads(), "kernel": kernel, "matrix_product_gflops": rate}

    print("A recurrence forward and backward, ms (quartiles); ratio: torch.nn / fused, share: of the product's rate")
    report["recurrences"] = []
    for cell in BLOCKS:
        ratios = []
        for B, T, H in QUICK_GRID if options.quick else FULL_GRID:
            result = measure(cell, B, T, H, options.rounds, loops=options.quick)
            ratios.append(result.ratio)
            report["recurrences"].append(result.as_dict())
            times = "   ".join(f"{n} {t.median:.1f} ({t.low:.1f}…{t.high:.1f})" for n, t in result.times.items())
            print(
                f"  {cell:<5}B={B:<4}T={T:<4}H={H:<4} ratio {result.ratio:5.2f}"
                f"  share {result.rate / rate:4.0%}   {times}"
            )
        mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
        report[f"{cell}_ratio"] = {"geometric_mean": mean, "least": min(ratios)}
        print(f"  {cell} geometric mean {mean:.2f}, least {min(ratios):.2f}\n")

    print("Training: an update in lockstep against plain scripts in turn, ms (keyword recall, T=100, B=64, H=64)")
    report["training"] = []
    for model in ("rnn", "lstm", "gru"):
        for seeds in (1, 8):
            times_of = against_plain_scripts(model, seeds, options.rounds)
            ratio = times_of["plain scripts"].median / times_of["lockstep"].median
            report["training"].append({"model": model, "seeds": seeds, "ratio": ratio})
            times = "   ".join(f"{n} {t.median:.1f} ({t.low:.1f}…{t.high:.1f})" for n, t in times_of.items())
            print(f"  {model:<5}seeds={seeds}  ratio {ratio:5.2f}   {times}")
    if options.json:
        from pathlib import Path

        from rnnlstm.record.files import write_json

        write_json(Path(options.json), report)
        print(f"\nWritten: {options.json}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
