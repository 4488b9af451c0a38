"""What a caller has set in PyTorch, NumPy and Python neither changes a run nor is changed by it, bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import rnnlstm
from rnnlstm.cells import CELLS, LSTMCell
from rnnlstm.tasks import make_task
from rnnlstm.training.device import make_deterministic, own_settings
from rnnlstm.training.loop import train_run
from rnnlstm.training.progress import Progress
from rnnlstm.training.signals import SIGNALS

from support.tasks import VARIANTS, small
from support.training import SMALL, plan_for

RUN = ["threads=1", "task.length=12", "model.hidden_size=8", "train.batch_size=5", "train.steps=3", "eval.samples=20"]
RUN += ["eval.every=1", "log.every=1", "probe=full", "probe.every=1", "clip=value", "clip.threshold=1e-3", "seeds=2"]


@contextlib.contextmanager
def set_and_reset(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


@contextlib.contextmanager
def own_handlers():
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


#: What a caller may have set: by name, a context in which it is.
SETTINGS = {
    "float64": lambda: set_and_reset(torch.set_default_dtype, torch.float64, torch.float32),
    "a default device": lambda: set_and_reset(torch.set_default_device, "meta", None),
    "within a device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "rounded products": lambda: set_and_reset(torch.set_float32_matmul_precision, "medium", "highest"),
    "rounded, as it is said now": lambda: set_and_reset(
        lambda p: setattr(torch.backends, "fp32_precision", p), "bf16", "none"
    ),
    "no denormals": lambda: set_and_reset(torch.set_flush_denormal, True, False),
    "determinism": lambda: set_and_reset(torch.set_deterministic_debug_mode, "error", "default"),
    "NumPy's errors": lambda: np.errstate(all="raise"),
    "handlers of signals": own_handlers,
}
each_setting = pytest.mark.parametrize("setting", SETTINGS)


@contextlib.contextmanager
def all_of_them():
    with contextlib.ExitStack() as stack:
        for context in SETTINGS.values():
            stack.enter_context(context())
        yield


def read(function):
    try:
        return function()
    except RuntimeError:  # PyTorch can't say: it was set in the old and the new way
        return "mixed"


def callers():
    """Everything of the caller's that a run might touch."""
    backends = torch.backends
    precisions = [backends, backends.mkldnn.matmul, backends.mkldnn.rnn, backends.cuda.matmul, backends.cudnn]
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "threads": torch.get_num_threads(),
        "matmul": read(torch.get_float32_matmul_precision),
        "precisions": [part.fp32_precision for part in (*precisions, backends.cudnn.conv, backends.cudnn.rnn)],
        "determinism": torch.get_deterministic_debug_mode(),
        "filled": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": [backends.cudnn.deterministic, backends.cudnn.benchmark, read(lambda: backends.cudnn.allow_tf32)],
        "cublas": [
            read(lambda: backends.cuda.matmul.allow_tf32),
            backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        ],
        "denormals": sys.float_info.min / 2 == 0,
        "numpy": np.geterr(),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in SIGNALS],
        "random": [torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())],
        "folder": Path.cwd(),
    }


def result(summaries):
    """Weights and record of a run, without times."""
    found = {}
    for summary in summaries:
        folder = Path(summary["folder"])
        for path in folder.glob("weights*.pt"):
            for key, weight in torch.load(path, weights_only=True, map_location="cpu").items():
                found[f"{path.name} {key} {summary['seed']}"] = (weight.dtype, weight.numpy().tobytes())
        for name in ("metrics.jsonl", "clip_events.jsonl", "flow.jsonl", "samples.jsonl"):
            lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
            kept = [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]
            found[f"{name} {summary['seed']}"] = json.dumps(kept)
        assert len(found[f"clip_events.jsonl {summary['seed']}"]) > 10
    return found


def run(place, *overrides):
    return result(rnnlstm.run([*RUN, f"runs_root={place}", *overrides]))


#: Numbers and tokens, chrono and orthogonal starts, each backend, noise, a curriculum, data drawn by counting.
RUNS = {
    "adding": ("task=adding", "probe=standard"),
    "vanishing": (
        "task=adding",
        "task.length=150",
        "model=rnn",
        "model.nonlinearity=sigmoid",
        "model.hidden_size=24",
    ),
    "keyword": ("task=keyword", "model=gru", "model.init=orthogonal", "data=device"),
    "copy": ("task=copy", "model=lstm_refine", "curriculum=growing", "curriculum.start=5"),
    "multiplication": ("task=multiplication", "model=orthogonal", "model.zoneout=0.1", "optimizer=sgd"),
    "torch": ("task=adding", "model.backend=torch", "dtype=float64", "clip=norm"),
    "bfloat16": ("task=adding", "model=rnn", "precision=bfloat16"),
}


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Results without any of the settings, each made once."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = run(tmp_path_factory.mktemp("outside"), *RUNS[name])
        return made[name]

    return of


@pytest.mark.parametrize("name", ["adding", *(pytest.param(n, marks=pytest.mark.slow) for n in list(RUNS)[1:])])
def test_a_run_within_all_settings_at_once(name, outside, tmp_path):
    expected = outside(name)
    with all_of_them():
        before = callers()
        found = run(tmp_path, *RUNS[name])
        assert callers() == before
    assert found == expected


@pytest.mark.slow
@each_setting
def test_a_run_within_each_setting(setting, outside, tmp_path):
    """Gradients go below the normal numbers, and products are of a size that PyTorch may round."""
    expected = outside("vanishing")
    with SETTINGS[setting]():
        before = callers()
        found = run(tmp_path, *RUNS["vanishing"])
        assert callers() == before
    assert found == expected


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_batch_is_a_pure_function_of_its_arguments(name, options):
    expected = small(name, **options).sample(1, 2, batch_size=3)
    with SETTINGS["float64"](), SETTINGS["a default device"](), torch.device("meta"), torch.inference_mode():
        task = small(name, **options)
        found = task.sample(1, 2, batch_size=3)
    for field, tensor in expected.tensors().items():
        other = found.tensors()[field]
        assert (other.dtype, other.device.type) == (tensor.dtype, "cpu")
        assert torch.equal(other, tensor)
    outputs = torch.randn(*expected.mask.shape, task.output_size, generator=torch.Generator().manual_seed(0))
    scores = [task.loss(outputs, expected).item(), task.metrics(outputs, expected)]
    with SETTINGS["float64"]():
        assert [task.loss(outputs, expected).item(), task.metrics(outputs, expected)] == scores


@pytest.mark.parametrize("model", list(CELLS))
def test_initial_weights_are_a_pure_function_of_configuration_and_seed(model):
    fields = {field.name: field for field in dataclasses.fields(CELLS[model])}
    inits = fields["init"].metadata["choices"] if "init" in fields else [None]
    for init in inits:
        more = [f"model.init={init}"] if init else []
        plan = plan_for(*SMALL, f"model={model}", *more)
        expected = plan.network(3).state_dict()
        with SETTINGS["float64"](), SETTINGS["a default device"](), torch.device("meta"), torch.no_grad():
            found = plan.network(3).state_dict()
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_users_own_task_and_cell_need_not_name_dtypes(tmp_path):
    class Careless(type(make_task("adding"))):
        def generate(self, random, batch_size):
            batch = super().generate(random, batch_size)
            inputs = torch.zeros(batch.inputs.shape) + batch.inputs / 3
            return dataclasses.replace(batch, inputs=inputs)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class CarelessCell(LSTMCell):
        def initialise(self, w, generator, max_lag):
            super().initialise(w, generator, max_lag)
            with torch.no_grad():
                w["bias_hh"].copy_(torch.empty(len(w["bias_hh"])).uniform_(generator=generator))

    plan = plan_for(*SMALL, "task=adding", "train.steps=3", "log.every=1", "clip=value", "clip.threshold=1e-3")
    cell = CarelessCell(init="default")
    plan = dataclasses.replace(plan, task=Careless(length=12), cell=cell, backend="reference")
    found = []
    for name, context in (("here", contextlib.nullcontext), ("there", SETTINGS["float64"])):
        with context():
            outcome = train_run(plan, tmp_path / name, Progress())
        found.append(result([{**s, "folder": outcome.folder / f"seed_{s['seed']}"} for s in outcome.summaries]))
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_callers_processes_are_not_forked_from_the_server_of_a_job(tmp_path):
    """That server blocks signals, which a process inherits: it could not be terminated."""
    code = (
        "import multiprocessing, time, rnnlstm\n"
        f"rnnlstm.run([*{SMALL!r}, 'train.steps=1', 'job_timeout=300', 'runs_root={tmp_path}'])\n"
        "process = multiprocessing.get_context('forkserver').Process(target=time.sleep, args=(300,))\n"
        "process.start()\ntime.sleep(1)\nprocess.terminate()\nprocess.join(60)\n"
        "print(process.exitcode)\nprocess.kill()\n"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.stdout.split()[-1:] == [str(-signal.SIGTERM)], done.stderr


def test_a_runs_threads_end_with_it(tmp_path):
    before = torch.get_num_threads()
    for threads in (before + 1, before + 2):
        (summary,) = rnnlstm.run(
            [*SMALL, "train.steps=1", f"threads={threads}", f"runs_root={tmp_path}", f"name=t{threads}"]
        )
        environment = (Path(summary["folder"]).parent / "environment.json").read_text()
        assert environment.count(f'"threads": {threads}') == 1
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("setting", [None, "rounded products", "rounded, as it is said now", "determinism"])
def test_what_cuda_needs_ends_with_the_run(setting, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with SETTINGS[setting]() if setting else contextlib.nullcontext():
        before = callers()
        with own_settings():
            make_deterministic(torch.device("cuda"))
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            assert torch.get_deterministic_debug_mode() == 1
            assert torch.backends.cudnn.deterministic
            precisions = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
            assert [part.fp32_precision for part in precisions] == ["ieee"] * 3
            assert len(warnings.filters) == len(before["filters"]) + 1
        assert callers() == before


def test_settings_come_back_after_an_error_too():
    with all_of_them():
        before = callers()
        with contextlib.suppress(KeyError), own_settings(threads=3):
            assert torch.get_num_threads() == 3
            raise KeyError
        assert callers() == before
        with pytest.raises(rnnlstm.ConfigError):
            rnnlstm.run(["task=nothing"])
        assert callers() == before
