"""Runs the benchmarks, prints a table of each, and returns their figures."""

from __future__ import annotations

import importlib.metadata
import itertools
import math
import platform
import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any

import torch

from rnnlstm.benchmarks import costs, training
from rnnlstm.benchmarks.recurrences import (
    FULL_GRID,
    INPUTS,
    QUICK_GRID,
    RECURRENCES,
    Result,
    beside_a_neighbour,
    bound,
    ceilings,
    growth,
    least_time,
    measure,
    multiply_add_peak,
)
from rnnlstm.benchmarks.timing import Timing, as_data, as_line, matrix_product_rate
from rnnlstm.benchmarks.training import MODELS
from rnnlstm.recurrence.fused import native

#: Parts of the benchmark that run unless others are named.
USUAL = ("recurrences", "training", "update", "instruments", "growth", "batches")


def measure_parts(
    parts: Collection[str], quick: bool, rounds: int, compile_limit: float | None, jobs: int
) -> dict[str, Any]:
    """These parts on the CPU. `quick`: three shapes of the recurrences, with the slow contenders. `compile_limit`:
    seconds for torch.compile, which is left out without. `jobs`: of the sweep."""
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "recurrences": lambda: _recurrences(quick, rounds),
        "training": lambda: _training(rounds, quick, compile_limit),
        "update": lambda: _update_parts(3 * rounds),
        "instruments": _instruments,
        "growth": lambda: _growth(rounds),
        "batches": lambda: _batches(3 * rounds),
        "start_up": lambda: _start_up(rounds),
        "sweep": lambda: _sweep(jobs),
    }
    figures = _machine()
    for part, measured in measures.items():
        if part in parts:
            figures |= measured()
    return figures


def _machine() -> dict[str, Any]:
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
    print("Recurrences forward and backward, ms (quartiles); ratio: torch.nn / fused; peak: of multiply-adds;")
    print(
        "bound: share of the least time that arithmetic, weights or tensors allow (rnnlstm/benchmarks/recurrences.py)"
    )
    figures: dict[str, Any] = {"recurrences": []}
    for cell in RECURRENCES:
        ratios = []
        for B, T, H in QUICK_GRID if quick else FULL_GRID:
            result = measure(cell, B, T, H, rounds, loops=quick)
            shares, shown = _against_ceilings(result)
            ratios.append(result.ratio)
            figures["recurrences"].append(result.as_dict() | shares)
            line = f"  {cell:<5}B={B:<4}T={T:<4}H={H:<4} ratio {result.ratio:5.2f}  {shown}"
            print(f"{line}  {result.rate:4.0f} GFLOP/s   {as_line(result.times)}", flush=True)
        mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
        figures[f"{cell}_ratio"] = {"geometric_mean": mean, "least": min(ratios)}
        print(f"  {cell} geometric mean {mean:.2f}, least {min(ratios):.2f}\n")
    return figures


def _against_ceilings(result: Result) -> tuple[dict[str, Any], str]:
    """A shape's share of what the machine could do at best, as figures and as text.

    The ceilings are measured again for each shape, since they change with the machine's other work.
    """
    now = ceilings(3)
    if now is None:
        return {}, "no kernel, no ceilings"
    parts = bound(result.cell.lower(), result.B, result.T, result.H, INPUTS, now)
    least, limit = least_time(parts)
    fused, theirs = result.times["fused"].median, result.times["torch.nn"].median
    peak = now.gflops * now.threads
    shares = {
        "peak_gflops": peak,
        "share": result.rate / peak,
        "bound_ms": parts,
        "limit": limit,
        "share_of_bound": least / fused,
        "torch_share_of_bound": least / theirs,
    }
    shown = f"bound {shares['share_of_bound']:4.0%} ({limit}; torch.nn {least / theirs:.0%})"
    return shares, f"peak {shares['share']:4.0%}  {shown}"


def _training(rounds: int, quick: bool, compile_limit: float | None = None) -> dict[str, Any]:
    print("Training: an update in lockstep against scripts in turn, ms (task.length=100, B=64, H=64);")
    print("ratio: fair script / lockstep; the scripts: rnnlstm/benchmarks/training.py")
    figures: dict[str, Any] = {"training": []}
    if training.jax_installed():
        figures["jax"] = importlib.metadata.version("jax")
        print(f"JAX {figures['jax']} in a process of its own on as many cores as PyTorch has threads")
    else:
        print("no JAX script, as JAX is not installed: pip install 'rnnlstm[jax]'")
    for task, model in itertools.product(training.TASKS[:1] if quick else training.TASKS, MODELS):
        overrides = [f"task={task}", "task.length=100"]
        for seeds in (1, 8):
            with training.rivals(model, seeds, compile_limit, overrides) as (others, missing):
                times = training.against_scripts(model, seeds, rounds, overrides=overrides, others=others)
                entry = {"task": task, **_entry(f"{task} {model}", seeds, times), "model": model}
                entry["compile_seconds"] = {name: rival.first_seconds for name, rival in others.items()}
                entry["missing"] = missing
            notes = [f"{name} compiled in {seconds:.1f} s" for name, seconds in entry["compile_seconds"].items()]
            notes += [f"no {name}: {reason}" for name, reason in missing.items()]
            if seeds > 1 and torch.get_num_threads() > 1 and task == "keyword":
                entry["two_at_a_time"] = training.two_at_a_time(model, seeds, rounds)
                notes.append(f"fair scripts two at a time {entry['two_at_a_time']:.1f}")
            for note in notes:
                print(f"        {note}", flush=True)
            figures["training"].append(entry)
    return figures


def _entry(model: str, seeds: int, times: Mapping[str, Timing]) -> dict[str, Any]:
    """Prints a line. `ratio`: how many times faster than the yardstick; `ratios`: than each contender."""
    ours = times[training.LOCKSTEP].median
    ratios = {name: timing.median / ours for name, timing in times.items() if name != training.LOCKSTEP}
    print(f"  {model:<13}seeds={seeds:<4} ratio {ratios[training.FAIR]:5.2f}   {as_line(times)}", flush=True)
    entry = {"model": model, "seeds": seeds, "times": as_data(times), "ratio": ratios[training.FAIR]}
    return {**entry, "ratios": ratios}


def _update_parts(rounds: int) -> dict[str, Any]:
    print("\nThe parts of an update, ms and share of the whole (keyword recall, T=100, B=64, H=64)")
    print(f"  {'':<15}{'update':>8}" + "".join(f"{part:>16}" for part in costs.PARTS))
    entries = []
    for model in MODELS:
        for seeds in (1, 8):
            times = costs.update_parts(model, seeds, rounds)
            whole = times[costs.UPDATE].median
            shares = {part: times[part].median / whole for part in costs.PARTS}
            line = "".join(f"{times[part].median:9.2f} {share:6.1%}" for part, share in shares.items())
            print(f"  {model:<5}seeds={seeds:<4}{whole:8.2f}{line}", flush=True)
            entries.append({"model": model, "seeds": seeds, "times": as_data(times), "shares": shares})
    return {"update_parts": entries}


def _start_up(rounds: int) -> dict[str, Any]:
    print("\nFrom the start of Python to the first update, by parts, ms (keyword recall by an LSTM)")
    times = costs.start_up(rounds)
    outside = (costs.COMMAND, costs.COMPILED_KERNEL)
    total = sum(timing.median for part, timing in times.items() if part not in outside)
    for part, t in times.items():
        share = "" if part in outside else f"  {t.median / total:5.1%}"
        print(f"  {part:<28} {t.median:8.1f} ({t.low:.1f}…{t.high:.1f}){share}")
        if part == "first update":
            print(f"  {'together':<28} {total:8.1f}")
    return {"start_up": {**as_data(times), "total": total}}


def _sweep(jobs: int) -> dict[str, Any]:
    figures = costs.tiny_sweep(jobs)
    print(f"\nA sweep of {jobs:,} tiny jobs of five updates, launcher=serial: {figures['seconds']:.3f} s a job,")
    print(f"  {figures['training']:.3f} s of them training; {figures['share_not_training']:.0%} is not training")
    return {"sweep": figures}


def _instruments() -> dict[str, Any]:
    print("\nInstruments at their default cadence, share of the training time over 300 updates")
    shares = {model: costs.instruments_share(model) for model in MODELS}
    print("  " + "   ".join(f"{model} {share:.1%}" for model, share in shares.items()))
    return {"instruments_share": shares}


def _growth(rounds: int) -> dict[str, Any]:
    print("\nGrowth of a fused LSTM's step, ms")
    grown = growth(rounds)
    for name, t in grown.items():
        print(f"  {name:<24} {t.median:6.1f} ({t.low:.1f}…{t.high:.1f})")
    print("\nAn LSTM's step beside a busy neighbour, ms (B=20, T=200, H=128)")
    beside = beside_a_neighbour(rounds)
    for name, times in beside.items():
        print(f"  {name:<24} {as_line(times)}")
    return {"growth": as_data(grown), "neighbour": {name: as_data(times) for name, times in beside.items()}}


def _batches(rounds: int) -> dict[str, Any]:
    print(
        f"\nMaking a batch, ms, and its share of a step of the {costs.STEP} (B={costs.B}, T={costs.T}, H={costs.H})"
    )
    times = costs.batch_costs(rounds)
    step = times.pop(costs.STEP)
    print(f"  {'the step':<28} {step.median:6.2f} ({step.low:.2f}…{step.high:.2f})")
    for name, t in times.items():
        print(f"  {name:<28} {t.median:6.2f} ({t.low:.2f}…{t.high:.2f})  {t.median / step.median:5.1%}")
    return {"batches": {"step": asdict(step), **as_data(times)}}
