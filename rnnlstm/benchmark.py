"""Measure speed: the fused recurrences against PyTorch's modules, and training against a plain script.

    python -m rnnlstm.benchmark [--quick] [--json FILE] [--figure FILE] [--threads N] [--rounds N] [--device NAME]

Examples
  python -m rnnlstm.benchmark --quick                  three shapes, with the slow contenders, some minutes
  python -m rnnlstm.benchmark --json speed.json        the whole grid of shapes
  python -m rnnlstm.benchmark --device cuda            training on a GPU: 1, 64 and 256 replicas, and nothing else

Contenders take turns within one process; times are medians with quartiles. Ratios are what to look at: single times
move with whatever else the machine is doing.
"""

from __future__ import annotations

import math
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnlstm.cli.arguments import Parser, check_writable
from rnnlstm.cli.exits import DONE, guarded
from rnnlstm.config.errors import ConfigError, DiskError

if TYPE_CHECKING:
    from rnnlstm.benchmarks.recurrences import Result
    from rnnlstm.benchmarks.timing import Timing

MODELS = ("rnn", "lstm", "gru")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return guarded(lambda: _main(arguments))


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


def _main(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    for name in ("threads", "rounds"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}: must be at least 1")
    if options.device is not None and options.figure is not None:
        raise ConfigError("--figure draws the recurrences, which --device leaves out")
    for name in ("json", "figure"):  # now, and not after minutes of measuring
        path = getattr(options, name)
        if path is not None:
            check_writable(path)

    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device is not None:
        report = _on_device(options.device, options.quick, options.rounds)
    else:
        report = _machine()
        report |= _recurrences(options.quick, options.rounds)
        report |= _training(options.rounds)
        report |= _instruments()
        report |= _batches(3 * options.rounds)
        report |= _growth_and_load(options.rounds)
    try:
        if options.json:
            from rnnlstm.record.files import write_json

            write_json(Path(options.json), report)
            print(f"\nWritten: {options.json}")
        if options.figure:
            from rnnlstm.reporting.figures import speed_figure

            speed_figure(report["recurrences"], Path(options.figure))
            print(f"\nDrawn: {options.figure}")
    except OSError as error:
        raise DiskError(f"can't write {error.filename}: {error.strerror}") from None
    return DONE


def _machine() -> dict[str, Any]:
    import torch

    from rnnlstm.benchmarks.recurrences import multiply_add_peak
    from rnnlstm.benchmarks.timing import matrix_product_rate
    from rnnlstm.recurrence.fused import native

    kernel = "native kernel" if native.available(torch.float32) else "portable loops (no native kernel)"
    rate, peak = matrix_product_rate(), multiply_add_peak()
    print(f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}", end=", ")
    print(f"{torch.get_num_threads()} threads, {kernel}")
    shown = f"{peak:.0f}" if peak else "not measured"
    print(f"GFLOP/s: large matrix product {rate:.0f}, multiply-add peak {shown}\n")
    return {
        "threads": torch.get_num_threads(),
        "kernel": kernel,
        "matrix_product_gflops": rate,
        "peak_gflops": peak,
    }


def _recurrences(quick: bool, rounds: int) -> dict[str, Any]:
    from rnnlstm.benchmarks.recurrences import FULL_GRID, QUICK_GRID, RECURRENCES, measure

    print("Recurrences forward and backward, ms (quartiles); ratio: torch.nn / fused; peak: of multiply-adds;")
    print(
        "bound: share of the least time that arithmetic, weights or tensors allow (rnnlstm/benchmarks/recurrences.py)"
    )
    found: dict[str, Any] = {"recurrences": []}
    for cell in RECURRENCES:
        ratios = []
        for B, T, H in QUICK_GRID if quick else FULL_GRID:
            result = measure(cell, B, T, H, rounds, loops=quick)
            held, shown = _against_ceilings(result)
            ratios.append(result.ratio)
            found["recurrences"].append(result.as_dict() | held)
            line = f"  {cell:<5}B={B:<4}T={T:<4}H={H:<4} ratio {result.ratio:5.2f}  {shown}"
            print(f"{line}  {result.rate:4.0f} GFLOP/s   {_shown(result.times)}", flush=True)
        mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
        found[f"{cell}_ratio"] = {"geometric_mean": mean, "least": min(ratios)}
        print(f"  {cell} geometric mean {mean:.2f}, least {min(ratios):.2f}\n")
    return found


def _against_ceilings(result: Result) -> tuple[dict[str, Any], str]:
    """Ceilings are measured again beside each shape, as they move with the machine's other work."""
    from rnnlstm.benchmarks.recurrences import INPUTS, bound, ceilings, least_time

    now = ceilings(3)
    if now is None:
        return {}, "no kernel, no ceilings"
    parts = bound(result.cell.lower(), result.B, result.T, result.H, INPUTS, now)
    least, limit = least_time(parts)
    fused, theirs = result.times["fused"].median, result.times["torch.nn"].median
    peak = now.gflops * now.threads
    held = {
        "peak_gflops": peak,
        "share": result.rate / peak,
        "bound_ms": parts,
        "limit": limit,
        "share_of_bound": least / fused,
        "torch_share_of_bound": least / theirs,
    }
    return (
        held,
        f"peak {held['share']:4.0%}  bound {held['share_of_bound']:4.0%} ({limit}; torch.nn {least / theirs:.0%})",
    )


def _training(rounds: int) -> dict[str, Any]:
    from rnnlstm.benchmarks.training import against_plain_scripts, two_at_a_time

    print("Training: an update in lockstep against plain scripts in turn, ms (keyword recall, T=100, B=64, H=64)")
    found = []
    for model in MODELS:
        for seeds in (1, 8):
            times = against_plain_scripts(model, seeds, rounds)
            entry: dict[str, Any] = {"model": model, "seeds": seeds, "times": _plain(times)}
            best, also = times["plain scripts"].median, ""
            if seeds > 1:
                entry["two_at_a_time"] = pairs = two_at_a_time(model, seeds, rounds)
                best, also = min(best, pairs), f"   two at a time {pairs:.1f}"
            entry["ratio"] = best / times["lockstep"].median
            found.append(entry)
            print(f"  {model:<5}seeds={seeds}  ratio {entry['ratio']:5.2f}   {_shown(times)}{also}", flush=True)
    return {"training": found}


def _on_device(name: str, quick: bool, rounds: int) -> dict[str, Any]:
    from rnnlstm.benchmarks import training as on_device

    device = on_device.checked_device(name)
    shown = on_device.device_name(device)
    print(f"{shown}\nTraining: an update in lockstep against plain scripts over PyTorch's module in turn, ms")
    found = []
    for model in MODELS:
        for replicas in on_device.QUICK_REPLICAS if quick else on_device.REPLICAS:
            times = on_device.training_on(device, model, replicas, rounds)
            ratio = times["plain scripts"].median / times["lockstep"].median
            found.append({"model": model, "seeds": replicas, "times": _plain(times), "ratio": ratio})
            print(f"  {model:<5}seeds={replicas:<4} ratio {ratio:5.2f}   {_shown(times)}", flush=True)
    return {"device": shown, "training_on_device": found}


def _instruments() -> dict[str, Any]:
    from rnnlstm.benchmarks.costs import instruments_share

    print("\nInstruments at their default cadence, share of the training time over 300 updates")
    shares = {model: instruments_share(model) for model in MODELS}
    print("  " + "   ".join(f"{model} {share:.1%}" for model, share in shares.items()))
    return {"instruments_share": shares}


def _batches(rounds: int) -> dict[str, Any]:
    from rnnlstm.benchmarks.costs import STEP, B, H, T, batch_costs

    print(f"\nMaking a batch, ms, and its share of a step of the {STEP} (B={B}, T={T}, H={H})")
    costs = batch_costs(rounds)
    step = costs.pop(STEP)
    print(f"  {'the step':<28} {step.median:6.2f} ({step.low:.2f}…{step.high:.2f})")
    for name, t in costs.items():
        print(f"  {name:<28} {t.median:6.2f} ({t.low:.2f}…{t.high:.2f})  {t.median / step.median:5.1%}")
    return {"batches": {"step": asdict(step), **_plain(costs)}}


def _growth_and_load(rounds: int) -> dict[str, Any]:
    from rnnlstm.benchmarks.costs import growth, under_load

    print("\nGrowth of an LSTM's step, ms")
    grown = growth(rounds)
    for name, timing in grown.items():
        print(f"  {name:<24} {timing.median:6.1f} ({timing.low:.1f}…{timing.high:.1f})")
    print("\nAn LSTM's step with a busy neighbour, ms (B=20, T=200, H=128)")
    loaded = under_load(rounds)
    for name, times in loaded.items():
        print(f"  {name:<24} {_shown(times)}")
    return {"growth": _plain(grown), "under_load": {name: _plain(times) for name, times in loaded.items()}}


def _shown(times: Mapping[str, Timing]) -> str:
    return "   ".join(f"{name} {t.median:.1f} ({t.low:.1f}…{t.high:.1f})" for name, t in times.items())


def _plain(times: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    return {name: asdict(timing) for name, timing in times.items()}


if __name__ == "__main__":
    sys.exit(main())
