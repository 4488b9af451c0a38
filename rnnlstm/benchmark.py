"""Measure speed: the fused recurrences against PyTorch's modules, and training against a plain script.

    python -m rnnlstm.benchmark [--quick] [--json FILE] [--figure FILE] [--threads N]

Examples
  python -m rnnlstm.benchmark --quick                  three shapes, with the slow contenders, some minutes
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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
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
    parser.add_argument("--figure", metavar="FILE", help="draw the ratios there, as a PNG")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: the machine's cores")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="measured rounds of each contender")
    options = parser.parse_args(arguments)
    for name in ("threads", "rounds"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: must be at least 1")

    import torch

    from rnnlstm.measure.growth import growth, under_load
    from rnnlstm.measure.plain import against_plain_scripts, instruments_share, two_at_a_time
    from rnnlstm.measure.recurrences import BLOCKS, FULL_GRID, QUICK_GRID, measure
    from rnnlstm.measure.timing import Timing, matrix_product_rate, multiply_add_peak
    from rnnlstm.recurrence.fused import native

    def shown(times: Mapping[str, Timing]) -> str:
        return "   ".join(f"{n} {t.median:.1f} ({t.low:.1f}…{t.high:.1f})" for n, t in times.items())

    if options.threads:
        torch.set_num_threads(options.threads)
    kernel = "native kernel" if native.available(torch.float32) else "portable loops (no native kernel)"
    rate, peak = matrix_product_rate(), multiply_add_peak()
    print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}", end=", ")
    print(f"{torch.get_num_threads()} threads, {kernel}")
    print(
        f"GFLOP/s: large matrix product {rate:.0f}, multiply-add peak {f'{peak:.0f}' if peak else 'not measured'}\n"
    )
    report: dict[str, Any] = {"threads": torch.get_num_threads(), "kernel": kernel}
    report |= {"matrix_product_gflops": rate, "peak_gflops": peak, "recurrences": [], "training": []}

    print("A recurrence forward and backward, ms (quartiles); ratio: torch.nn / fused, share: of the peak")
    for cell in BLOCKS:
        ratios = []
        for B, T, H in QUICK_GRID if options.quick else FULL_GRID:
            result = measure(cell, B, T, H, options.rounds, loops=options.quick)
            ceiling = multiply_add_peak(3) or rate  # again beside each shape: it moves with the machine's other work
            ratios.append(result.ratio)
            report["recurrences"].append(result.as_dict() | {"peak_gflops": ceiling, "share": result.rate / ceiling})
            line = (
                f"  {cell:<5}B={B:<4}T={T:<4}H={H:<4} ratio {result.ratio:5.2f}  share {result.rate / ceiling:4.0%}"
            )
            print(f"{line}  {result.rate:4.0f} GFLOP/s   {shown(result.times)}", flush=True)
        mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
        report[f"{cell}_ratio"] = {"geometric_mean": mean, "least": min(ratios)}
        print(f"  {cell} geometric mean {mean:.2f}, least {min(ratios):.2f}\n")

    print("Training: an update in lockstep against plain scripts in turn, ms (keyword recall, T=100, B=64, H=64)")
    for model in ("rnn", "lstm", "gru"):
        for seeds in (1, 8):
            times_of = against_plain_scripts(model, seeds, options.rounds)
            best = times_of["plain scripts"].median
            if seeds == 8:
                best = min(best, pairs := two_at_a_time(model, seeds, options.rounds))
            ratio = best / times_of["lockstep"].median
            entry = {
                "model": model,
                "seeds": seeds,
                "ratio": ratio,
                "times": {k: asdict(t) for k, t in times_of.items()},
            }
            report["training"].append(entry | ({"two_at_a_time": pairs} if seeds == 8 else {}))
            also = f"   two at a time {pairs:.1f}" if seeds == 8 else ""
            print(f"  {model:<5}seeds={seeds}  ratio {ratio:5.2f}   {shown(times_of)}{also}", flush=True)

    print("\nInstruments at their default cadence, share of the training time over 300 updates")
    report["instruments_share"] = {model: instruments_share(model) for model in ("rnn", "lstm", "gru")}
    print("  " + "   ".join(f"{model} {share:.1%}" for model, share in report["instruments_share"].items()))

    print("\nGrowth of an LSTM's step, ms")
    grown = growth(options.rounds)
    for name, timing in grown.items():
        print(f"  {name:<24} {timing.median:6.1f} ({timing.low:.1f}…{timing.high:.1f})")
    print("\nAn LSTM's step with a busy neighbour, ms (B=20, T=200, H=128)")
    loaded = under_load(options.rounds)
    for name, times_by in loaded.items():
        print(f"  {name:<24} {shown(times_by)}")
    report["growth"] = {name: asdict(timing) for name, timing in grown.items()}
    report["under_load"] = {name: {k: asdict(t) for k, t in times_by.items()} for name, times_by in loaded.items()}

    if options.json:
        from rnnlstm.record.files import write_json

        write_json(Path(options.json), report)
        print(f"\nWritten: {options.json}")
    if options.figure:
        from rnnlstm.reporting.speed_figure import draw_ratios

        draw_ratios(report["recurrences"], Path(options.figure))
        print(f"\nDrawn: {options.figure}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
