"""The fused recurrences and training on one device, a GPU as a rule: first compiled and tested, then timed.

`check` compiles every kernel for every number of units and precision, compares what it computes with the portable
loops in float64, and tests that the bits are the same twice, alone and among others, and in training that goes on
from a state. `measure` times recurrences against PyTorch's modules, which are cuDNN's on a GPU, and an update of
replicas in lockstep against as many scripts in turn, and JAX's. Nothing here needs Hydra or OmegaConf.

The least time of a step, forward and backward, is counted (roofline model: Williams, Waterman & Patterson 2009):

    bound = max(recurrent / (rate · share) + other / rate, bytes / bandwidth)

- recurrent: 2·2·R·T·B·G·H² operations, of the product with h at each time step and its way back. A program of the
  kernels takes 16 sequences of a replica, and runs on one of the GPU's multiprocessors: `share` is how much of the
  GPU all programs can use.
- other: 2·R·T·B·G·H·(H + 2I), weight gradients and the input's product, each one large product.
- bytes: 4·R·T·B·H times `NUMBERS`, what the kernels and the large products read and write in the GPU's memory.
- rate and bandwidth: measured here, by a large product and by a copy.

G: blocks of pre-activations with a product, 1 (RNN), 3 (GRU), 4 (LSTM). Waiting for the step before is not counted,
which is what bounds few sequences.

Dimensions: R replicas, T time steps, B sequences, I inputs, H units.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import rnnlstm.recurrence as ours
from rnnlstm.benchmarks import training
from rnnlstm.benchmarks.recurrences import INPUTS, RECURRENCES, outputs_of, step_of
from rnnlstm.benchmarks.timing import Several, Timing, as_data, as_line, in_turn
from rnnlstm.benchmarks.training import MODELS
from rnnlstm.cells import CELLS
from rnnlstm.config.schema import cores
from rnnlstm.recurrence.fused import portable
from rnnlstm.recurrence.fused.engine import activations, engine_for
from rnnlstm.recurrence.fused.gradients import Rows
from rnnlstm.recurrence.fused.kinds import KINDS, Kind
from rnnlstm.recurrence.lengths import Lengths
from rnnlstm.recurrence.precision import PRECISIONS, product, products_in
from rnnlstm.training.batches import MOST_STEPS
from rnnlstm.training.graphs import capture_on
from rnnlstm.training.step import Trainer

UNITS = (64, 128, 256, 512)
GRID = list(itertools.product((16, 64, 256), (100, 1000), UNITS))  #: B, T, H
QUICK_GRID = [(64, 100, H) for H in UNITS]
CHECKED = (3, 20, 17, 5)  #: R, T, B, I: a tile that is not full, three replicas
LAYER = (64, 100)  #: B, T of the layer whose precisions are compared
REPLICAS = (1, 8, 64, 256)
QUICK_REPLICAS = (1, 64)
#: Numbers a unit and time step reads and writes: forward, then backward with the weights' gradients.
NUMBERS = {"RNN": (5, 7), "GRU": (19, 21), "LSTM": (22, 23)}
ROWS = 16  #: sequences of a program
PROCESSES = 8  #: that compile side by side
SECONDS = 1.5  #: for all contenders of a layer together


# -- what is computed


@dataclass(frozen=True)
class Checked:
    """One kernel, forward and backward."""

    kind: str
    H: int
    precision: str
    seconds: float  #: of the first call, which compiles
    error: float  #: largest relative one of a result, by norm, against the portable loops in float64
    portable: float  #: that of the portable loops in the same precision
    fault: str  #: empty if everything is right

    def __str__(self) -> str:
        shown = f"error {self.error:.1e}, portable loops {self.portable:.1e}"
        return (
            f"  {self.kind:<13}H={self.H:<4}{self.precision:<9}{self.seconds:6.1f} s   {shown}   {self.fault or 'ok'}"
        )


def check(name: str, quick: bool) -> dict[str, Any]:
    """Compile and test the kernels, then training, and print a line of each. Raises: ConfigError for a device that
    isn't there."""
    device = training.default_plan("rnn", f"device={name}").device
    print(
        f"{described(device)}\nKernels against the portable loops in float64, in the order of their end", flush=True
    )
    faults, lines = 0, []
    units = UNITS[:1] if quick else UNITS
    wanted = [(kind, precision, units, name) for precision in PRECISIONS for kind in KINDS]
    for found in _side_by_side(wanted, device):
        for line in found:
            print(line, flush=True)
            faults += bool(line.fault)
            lines.append(asdict(line))
    print("Training that goes on from a state, bit for bit", flush=True)
    resumed = {}
    for model, data in itertools.product(MODELS, ("cpu", "device")):
        resumed[f"{model}, data={data}"] = same = goes_on(model, f"device={name}", f"data={data}")
        print(f"  {model:<5}data={data:<7} {'ok' if same else 'other bits'}", flush=True)
        faults += not same
    print(f"{faults} faults" if faults else "no fault")
    return {"device": described(device), "kernels": lines, "resumed": resumed, "faults": faults}


def _side_by_side(
    wanted: Sequence[tuple[Kind, str, Sequence[int], str]], device: torch.device
) -> Iterator[list[Checked]]:
    """Each in a process of its own on a GPU, where compiling takes longest."""
    if device.type == "cpu":
        yield from itertools.starmap(checked, wanted)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(PROCESSES, cores()), context) as pool:
        for each in as_completed([pool.submit(checked, *arguments) for arguments in wanted]):
            yield each.result()


def checked(kind: Kind, precision: str, units: Sequence[int], device: str) -> list[Checked]:
    lines = []
    for H in units:
        started = time.perf_counter()
        try:
            error, theirs, seconds, fault = _compared(replace(kind, precision=precision), H, torch.device(device))
        except Exception as reason:  # a compiler's error of any kind; the other kernels are to be tested
            error = theirs = math.nan
            seconds = time.perf_counter() - started
            fault = (str(reason).strip() or type(reason).__name__).splitlines()[0]
        lines.append(Checked(kind.name, H, precision, seconds, error, theirs, fault))
    return lines


def _compared(kind: Kind, H: int, device: torch.device) -> tuple[float, float, float, str]:
    """Error, the portable loops' error, seconds of the first call, and what is wrong, if anything is."""
    R, T, B, I = CHECKED  # noqa: E741
    torch.manual_seed(0)
    inputs = [each.to(device) for each in _drawn(kind, R, T, B, I, H)]
    engine = engine_for(inputs[0], kind.precision)
    lengths = Lengths(torch.linspace(B, 1, T).long(), device)  # how many sequences have each time step
    started = time.perf_counter()
    first = _both_ways(engine, kind, None, inputs)
    _wait(device)
    seconds = time.perf_counter() - started
    exact_kind, exact_inputs = replace(kind, precision="full"), [each.double() for each in inputs]
    ways = [(engine, kind, inputs), (portable, kind, inputs), (portable, exact_kind, exact_inputs)]
    found, other, exact = (
        [each for asked in (None, lengths) for each in _both_ways(by, what, asked, given)] for by, what, given in ways
    )
    error, theirs = _error(found, exact), _error(other, exact)
    again = _both_ways(engine, kind, None, inputs)
    x, w_x, *others = inputs
    own = [x[..., :0], w_x[..., :0], *others]  # without the large products, whose sums depend on the shape
    together, alone = (_both_ways(engine, kind, None, each) for each in (own, [each[:1] for each in own]))
    pairs = [pair for k, pair in enumerate(zip(alone, together, strict=True)) if k not in SUMS]
    fault = ""
    if not error <= 3 * theirs + 1e-6:  # also where it is no number
        fault = "errs by more than three times as much"
    elif not all(map(torch.equal, first, again)):
        fault = "other bits the second time"
    elif not all(torch.equal(a[0], b[0]) for a, b in pairs):
        fault = "a replica has other bits alone"
    return error, theirs, seconds, fault


SUMS = (3, 4, 5, 6)  #: places among `_both_ways` of the gradients that are products or sums by PyTorch


def _drawn(kind: Kind, R: int, T: int, B: int, I: int, H: int) -> list[Tensor]:  # noqa: E741
    P, G = kind.product_blocks, kind.blocks
    shapes = [(R, T, B, I), (R, P * H, I), (R, P * H, H), (R, 1, G * H), (R, B, H), (R, B, H), (R, T, B, H)]
    x, w_x, w_h, table, h0, c0, d_out = (torch.randn(shape) for shape in shapes)
    return [x, w_x, w_h / H**0.5, table, h0, c0 if kind.has_cell else torch.zeros_like(c0), d_out]


def _both_ways(engine: ModuleType, kind: Kind, lengths: Lengths | None, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, activations, cell states, all gradients and, where there are lengths, the norms."""
    *states, d_out = inputs
    x, w_x, w_h, _, h0, c0 = states
    seen = engine.forward(kind, lengths, None, *states)
    out, kept, cells = seen
    in_order = activations(kind, lengths, kept, *h0.shape[1:])
    rows = None if lengths is None else Rows.like(out, kind.blocks)
    d_out = d_out if lengths is None else d_out * lengths.mask[..., None]
    found = engine.backward(kind, lengths, None, None, 1, x, w_x, w_h, h0, c0, *seen, d_out, None, True, rows)
    return [out, in_order, cells, *(found if kind.has_cell else found[:-1]), *(rows or [])]


def _error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Largest ‖a − b‖/‖b‖; NaN if a result is none."""
    errors = [((a.double() - b).norm() / b.norm().clamp(min=1e-30)).item() for a, b in zip(found, exact, strict=True)]
    return math.nan if any(map(math.isnan, errors)) else max(errors)


def goes_on(model: str, *overrides: str, updates: int = 10) -> bool:
    """Whether training from a state that was kept half-way ends in the same bits, replica by replica."""
    plan = training.default_plan(model, *overrides)
    whole, later = (Trainer(plan, range(3)) for _ in range(2))
    for step in range(1, updates + 1):
        whole.step(step)
    later.load_state(whole.state())
    for step in range(updates + 1, 2 * updates + 1):
        whole.step(step), later.step(step)
    (ours, theirs) = (trainer.state()["weights"] for trainer in (whole, later))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


# -- what it takes


@dataclass(frozen=True)
class Rates:
    """What the device does at best."""

    gflops: dict[str, float]  #: of a large product, by precision
    bandwidth: float  #: GB/s read and written by a copy
    processors: int  #: multiprocessors; 1 on a CPU


def measure(name: str, quick: bool, rounds: int) -> dict[str, Any]:
    """Time recurrences and updates, and print each as it is known. Raises: ConfigError."""
    device = training.default_plan("rnn", f"device={name}").device
    torch.backends.cudnn.allow_tf32 = False  # by default cuDNN's recurrences round to it
    rates = rates_of(device, rounds)
    print(described(device))
    words = ", ".join(f"{precision} {value:,.0f}" for precision, value in rates.gflops.items())
    print(f"GFLOP/s of a large product: {words}; copy {rates.bandwidth:,.0f} GB/s; {rates.processors} processors")
    figures: dict[str, Any] = {"device": described(device), "rates": asdict(rates)}
    figures["recurrences"] = list(_recurrences(device, QUICK_GRID if quick else GRID, rates, rounds))
    figures["precisions"] = list(_precisions(device, rounds))
    figures["training_on_device"] = list(_replicas(name, QUICK_REPLICAS if quick else REPLICAS, rounds))
    return figures


def _recurrences(
    device: torch.device, grid: Sequence[tuple[int, int, int]], rates: Rates, rounds: int
) -> Iterator[dict[str, Any]]:
    print("\nA layer forward and backward, ms (quartiles); ratio: torch.nn / fused, the quicker way of each;")
    print("bound: share of the least time (rnnlstm/benchmarks/device.py); outside: share of time outside kernels")
    ratios: dict[str, list[float]] = {cell: [] for cell in RECURRENCES}
    dearest_last = sorted(grid, key=lambda shape: shape[0] * shape[1] * shape[2] ** 2)
    for (B, T, H), cell in itertools.product(dearest_last, RECURRENCES):
        steps = _steps(cell, B, T, H, device)
        times = _timed(steps, rounds, device)
        fused, theirs = (_quickest(times, name) for name in ("fused", "torch.nn"))
        ratio, share = theirs / fused, least_ms(cell, 1, B, T, H, rates) / fused
        ratios[cell].append(ratio)
        outside = _outside_kernels(steps["fused"], times["fused"].median, device)
        line = f"  {cell:<5}B={B:<4}T={T:<5}H={H:<4}ratio {ratio:5.2f}   bound {share:4.0%}"
        print(f"{line}   {_outside_text(outside)}{as_line(times, 2)}", flush=True)
        entry = {"cell": cell, "B": B, "T": T, "H": H, "ratio": ratio, "share_of_bound": share, "outside": outside}
        yield entry | {"times": as_data(times)}
    for cell, found in ratios.items():
        print(f"  {cell} geometric mean {statistics.geometric_mean(found):.2f}, least {min(found):.2f}", flush=True)


def _timed(steps: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, Timing]:
    """In turn, for some seconds at most, but for two rounds at least."""
    wait = functools.partial(_wait, device)
    once = sum(timing.median for timing in in_turn(steps, 1, warm_up=1, wait=wait).values())
    return in_turn(steps, max(2, min(rounds, int(1e3 * SECONDS / once))), warm_up=0, wait=wait)


def _steps(cell: str, B: int, T: int, H: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Contenders of equal weights, each also as a CUDA graph where there are such."""
    torch.manual_seed(0)
    x, cotangent = torch.randn(T, B, INPUTS, device=device), torch.randn(T, B, H, device=device)
    theirs: nn.Module = getattr(nn, cell)(INPUTS, H, device=device)
    fused: nn.Module = getattr(ours, cell)(INPUTS, H, backend="fused", device=device)
    fused.load_state_dict(theirs.state_dict())
    steps: dict[str, Callable[[], object]] = {}
    for name, module in {"torch.nn": theirs, "fused": fused}.items():
        steps[name] = step = step_of(module, functools.partial(outputs_of, module, x), cotangent)
        if capture := capture_on(device):
            try:
                steps[f"{name}, graph"] = capture(lambda step=step: [step()])[0]  # type: ignore[misc]
            except RuntimeError as reason:
                print(f"  no graph of {name}: {str(reason).splitlines()[0]}", flush=True)
    return steps


def _precisions(device: torch.device, rounds: int) -> Iterator[dict[str, Any]]:
    B, T = LAYER
    print(f"\nThe fused layer by precision of its products, B={B}, T={T}, ms; error of its gradients")
    for cell, H in itertools.product(RECURRENCES, UNITS):
        torch.manual_seed(0)
        module = getattr(ours, cell)(INPUTS, H, backend="fused", device=device)
        x, cotangent = torch.randn(T, B, INPUTS, device=device), torch.randn(T, B, H, device=device)

        def outputs(precision: str, module: nn.Module = module, x: Tensor = x) -> Tensor:
            with products_in(precision):
                return outputs_of(module, x)

        steps = {p: step_of(module, functools.partial(outputs, p), cotangent) for p in PRECISIONS}
        gradients = {}
        for precision, step in steps.items():
            step()
            gradients[precision] = torch.cat([weight.grad.flatten() for weight in module.parameters()])
        exact = gradients["full"]
        errors = {p: ((gradients[p] - exact).norm() / exact.norm()).item() for p in PRECISIONS[1:]}
        times = _timed(steps, rounds, device)
        words = ", ".join(f"{precision} {error:.1e}" for precision, error in errors.items())
        print(f"  {cell:<5}H={H:<4}{as_line(times, 2)}   error {words}", flush=True)
        yield {"cell": cell, "H": H, "times": as_data(times), "errors": errors}


def _replicas(name: str, replicas: Sequence[int], rounds: int) -> Iterator[dict[str, Any]]:
    print("\nAn update of R replicas in lockstep against scripts over PyTorch's module in turn, ms (default run);")
    print("ratio: the scripts / the quicker lockstep; outside: share of the update outside kernels")
    if not training.jax_installed():
        print("no JAX script, as JAX is not installed: pip install 'rnnlstm[jax]'")
    for R, model in itertools.product(replicas, MODELS):
        with training.rivals(model, R, None, device=name) as (others, missing):
            times, device, lockstep = _lockstep(model, name, R, max(2, rounds // (1 + R // 64)), dict(others))
        ratio = times[training.FAIR].median / _quickest(times, training.LOCKSTEP)
        outside = _outside_kernels(lockstep, times[training.LOCKSTEP].median, device)
        line = f"  R={R:<4}{model:<5}ratio {ratio:6.1f}   {_outside_text(outside)}{as_line(times, 2)}"
        print("   ".join([line, *(f"no {rival}: {reason}" for rival, reason in missing.items())]), flush=True)
        entry = {"model": model, "seeds": R, "ratio": ratio, "outside": outside, "missing": missing}
        yield entry | {"times": as_data(times)}


def _lockstep(
    model: str, name: str, R: int, rounds: int, others: dict[str, Callable[[], object]]
) -> tuple[dict[str, Timing], torch.device, Callable[[], object]]:
    contenders: dict[str, Callable[[], object]] = {}
    for data in ("cpu", "device"):
        plan = training.default_plan(model, f"device={name}", f"data={data}")
        trainer, steps = Trainer(plan, range(R)), itertools.count(1)
        title = training.LOCKSTEP if data == "cpu" else f"{training.LOCKSTEP}, data=device"
        contenders[title] = Several(functools.partial(_step, trainer, steps), MOST_STEPS)
    contenders[training.FAIR] = training.InTurn(plan, range(R))
    wait = functools.partial(_wait, plan.device)
    times = in_turn(contenders | others, rounds, wait=wait, twice=True)
    return times, plan.device, contenders[training.LOCKSTEP]


def _step(trainer: Trainer, numbers: Iterator[int]) -> None:
    trainer.step(next(numbers))


def least_ms(cell: str, R: int, B: int, T: int, H: int, rates: Rates, precision: str = "full") -> float:
    """The bound of this module's text."""
    places, G = R * T * B * H, CELLS[cell.lower()].blocks
    share = min(1.0, R * -(-B // ROWS) / rates.processors)
    rate = rates.gflops[precision]
    recurrent, other = 4 * places * G * H, 2 * places * G * (H + 2 * INPUTS)
    return max((recurrent / share + other) / rate, 4 * places * sum(NUMBERS[cell]) / rates.bandwidth) / 1e6


def rates_of(device: torch.device, rounds: int) -> Rates:
    on_gpu = device.type == "cuda"
    size, copied = (4096, 1 << 26) if on_gpu else (512, 1 << 22)
    a, b = torch.randn(2, 1, size, size, device=device)
    numbers = torch.randn(copied, device=device)
    target = torch.empty_like(numbers)
    contenders: dict[str, Callable[[], object]] = {
        precision: functools.partial(product, a, b, precision) for precision in PRECISIONS
    }
    contenders["copy"] = lambda: target.copy_(numbers)
    times = in_turn(contenders, rounds, wait=functools.partial(_wait, device))
    rates = {precision: 2 * size**3 / times[precision].median / 1e6 for precision in PRECISIONS}
    processors = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 1
    return Rates(rates, 8 * copied / times["copy"].median / 1e6, processors)


def _outside_kernels(
    call: Callable[[], object], wall_ms: float, device: torch.device, calls: int = 5
) -> float | None:
    """Share of a call's time in which the GPU computes nothing; None on a CPU."""
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(calls):
            call()
        _wait(device)
    each = calls * (call.count if isinstance(call, Several) else 1)
    busy = sum(event.self_device_time_total for event in profile.key_averages()) / each / 1e3
    return max(0.0, 1 - busy / wall_ms) if busy else None  # nothing was recorded


def _outside_text(share: float | None) -> str:
    return "" if share is None else f"outside {share:4.0%}   "


def _quickest(times: dict[str, Timing], name: str) -> float:
    """Milliseconds of a contender in the quickest of its ways."""
    return min(timing.median for each, timing in times.items() if each.partition(",")[0] == name)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def described(device: torch.device) -> str:
    """The device, what computes on it and by which versions."""
    engine = engine_for(torch.empty(0, device=device)).__name__.rpartition(".")[2]
    found = f"{training.device_name(device)}, torch {torch.__version__}, {engine}"
    if importlib.util.find_spec("triton") is not None:
        import triton

        found += f", triton {triton.__version__}"
    return found
