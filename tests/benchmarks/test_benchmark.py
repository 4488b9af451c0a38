"""The benchmark's parts on tiny shapes: every contender computes the same, and nothing is written."""

from __future__ import annotations

import functools
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
import torch

import rnnlstm
from rnnlstm.benchmark import main
from rnnlstm.benchmarks import training as on_device
from rnnlstm.benchmarks.costs import (
    COMMAND,
    COMPILED_KERNEL,
    PARTS,
    UPDATE,
    instruments_share,
    start_up,
    tiny_sweep,
    update_parts,
)
from rnnlstm.benchmarks.recurrences import Ceilings, bound, ceilings, compiled_cell, least_time, measure, read_rate
from rnnlstm.benchmarks.timing import Apart, NotReadyError, in_turn, matrix_product_rate
from rnnlstm.benchmarks.training import MODELS, Script, against_scripts, default_plan, rivals, two_at_a_time
from rnnlstm.compare import main as compare
from rnnlstm.config.errors import ConfigError
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.reporting.figures import speed_figure
from rnnlstm.training.clip import clip_replicas
from rnnlstm.training.step import Trainer

from support.training import SMALL, plan_for


def test_contenders_take_turns_and_the_warm_up_does_not_count():
    calls = []
    times = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=1)
    assert calls == ["a", "b"] * 4
    assert set(times) == {"a", "b"}
    calls.clear()
    in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=1, warm_up=0, twice=True)
    assert calls == ["a", "a", "b", "b"]
    assert 0 <= times["a"].low <= times["a"].median <= times["a"].high
    assert matrix_product_rate(64, 2) > 0


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_a_recurrence_with_all_contenders(cell, monkeypatch):
    monkeypatch.setattr("rnnlstm.benchmarks.recurrences.compiled_cell", lambda module, x: None)  # seconds each
    result = measure(cell, 2, 3, 4, rounds=2, loops=True)
    assert list(result.times) == ["torch.nn", "fused", "reference", "hand loop"]
    assert result.ratio > 0
    assert result.rate > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
def test_every_shape_is_compiled_however_many_there_are(monkeypatch):
    """Each takes two compilations, as the first state has no gradient."""
    from torch._dynamo import config  # seconds; each worker of the tests would import it with this module

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    with config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for B in (2, 3, 4):
            assert compiled_cell(rnnlstm.GRU(10, 4, backend="fused"), torch.randn(3, B, 10)) is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
def test_the_compiled_loop_computes_the_same_and_failing_to_compile_is_no_end(monkeypatch):
    module, x = rnnlstm.LSTM(10, 4, backend="fused"), torch.randn(3, 2, 10)
    loop = compiled_cell(module, x)
    if loop is not None:
        torch.testing.assert_close(loop(), module(x)[0])
    monkeypatch.setattr(torch, "compile", lambda f, **_: 1 / 0)
    assert compiled_cell(module, x) is None


@pytest.mark.slow
def test_pairs_of_scripts_and_the_share_of_instruments():
    assert two_at_a_time("rnn", 2, 1) > 0
    assert 0 < instruments_share("rnn", 60) < 1


def test_the_roofline_by_hand(monkeypatch):
    """At ceilings of 1 each, times are the counts themselves."""
    monkeypatch.setattr("rnnlstm.benchmarks.recurrences.read_rate", lambda size: 1.0)
    B, T, H, I = 16, 3, 4, 2  # noqa: E741
    parts = bound("lstm", B, T, H, I, Ceilings(1.0, 1.0, 1.0, 1))
    products = 3 * B * T * (4 * H * H) + 2 * B * T * (4 * H * I)  # y, dh and dW_hh; y and dW_ih
    assert parts["products"] == pytest.approx(2 * products / 1e6)
    assert parts["activations"] == pytest.approx(B * T * H * 6 / 1e6)
    slices_of_16 = 2
    assert parts["weights"] == pytest.approx(slices_of_16 * T * 4 * (4 * H * (H + I) + 4 * H * H) / 1e6)
    assert parts["tensors"] == pytest.approx(4 * B * T * H * (2 * 6 + 1) / 1e6)
    assert least_time(parts) == (parts["products"] + parts["activations"], "arithmetic")


def test_ceilings_are_measured():
    found = ceilings(1)
    if found is not None:  # else there is no kernel to measure
        assert min(found.gflops, found.sigmoids, found.tanhs, read_rate(100_000)) > 0.01


def test_the_picture(tmp_path):
    speed_figure([measure("LSTM", 2, 3, 4, 1, False).as_dict()], tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5_000


@pytest.mark.parametrize("model", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("task", on_device.TASKS)
@pytest.mark.parametrize("fair", [True, False])
def test_the_scripts_train_what_the_project_trains(model, task, fair):
    plan = plan_for(f"task={task}", *SMALL, f"model={model}")
    trainer, script = Trainer(plan, [3]), Script(plan, 3, fair)
    for step in range(1, 6):
        torch.testing.assert_close(script().item(), trainer.step(step).losses[0], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("task", on_device.TASKS)
@pytest.mark.parametrize("seeds", [(3,), (3, 5)])
def test_the_script_in_jax_trains_what_the_project_trains(model, task, seeds):
    pytest.importorskip("jax")
    plan = plan_for(f"task={task}", *SMALL, f"model={model}")
    trainer, script = Trainer(plan, seeds), on_device.JaxScript(plan, seeds)
    for step in range(1, 6):
        torch.testing.assert_close(script(), trainer.step(step).losses, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_contender_in_a_process_of_its_own():
    contender = Apart(60, functools.partial, time.sleep, 0.2)
    assert contender.first_seconds >= 0.2
    assert 200 <= in_turn({"there": contender}, rounds=1, warm_up=0)["there"].median < 400  # the second call alone
    contender.close()
    with pytest.raises(NotReadyError, match="not ready within"):
        Apart(0.5, functools.partial, time.sleep, 60)
    with pytest.raises(NotReadyError, match="invalid literal"):
        Apart(60, int, "abc")
    with pytest.raises(NotReadyError, match="its process ended"):
        Apart(60, functools.partial, os._exit, 1)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_rivals_that_are_compiled(monkeypatch):
    """What a compiler can't do here is said, with the reason; nothing is compiled for eight seeds."""
    monkeypatch.setattr(on_device, "jax_installed", lambda: False)
    with rivals("rnn", 1, 300.0, [*SMALL, "task.length=3"]) as (ready, missing):
        assert {*ready, *missing} == {"compiled script", "compiled whole"}
        times = against_scripts("rnn", 1, 1, overrides=[*SMALL, "task.length=3"], others=ready)
    assert {*ready} < times.keys()
    assert all(reason and "\n" not in reason for reason in missing.values())
    assert "graph break" not in missing.get("compiled whole", "")  # it is unrolled
    if "compiled script" in missing:
        assert "graph break at torch.nn.RNN" in missing["compiled script"]
    with rivals("rnn", 1, 0.01) as (ready, missing):
        assert (ready, set(missing.values())) == ({}, {"not ready within 0.01 s"})
    with rivals("rnn", 8, 0.01) as nothing:
        assert nothing == ({}, {})


@pytest.mark.slow
def test_the_rival_in_jax_runs_on_one_core():
    pytest.importorskip("jax")
    with rivals("rnn", 2, None, SMALL) as (ready, missing):
        assert (list(ready), missing) == (["JAX script"], {})
        if hasattr(os, "sched_getaffinity"):
            assert len(os.sched_getaffinity(ready["JAX script"].pid)) == 1


def test_training_against_scripts_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(against_scripts("rnn", 1, 1)) == {"lockstep", "fair script", "plain script"}
    assert list(tmp_path.iterdir()) == []


#: A machine that is lent for measuring a GPU may have neither of these.
WITHOUT_HYDRA = """
import sys
for name in ("hydra", "omegaconf", "antlr4"):
    sys.modules[name] = None  # an import of it fails
from rnnlstm.benchmark import main
from rnnlstm.benchmarks import device, training
plan = training.default_plan
small = ["task.length=6", "model.hidden_size=4", "train.batch_size=3"]
training.default_plan = lambda model, *more: plan(model, *small, *more)
training.jax_installed = lambda: False
device.UNITS, device.CHECKED, device.QUICK_REPLICAS = (4,), (3, 3, 2, 2), (1, 3)
device.LAYER, device.QUICK_GRID, device.KINDS = (2, 3), [(2, 3, 4)], [device.KINDS[0], *device.KINDS[-3:]]
sys.exit(main(sys.argv[1:]))
"""


def on_a_device(folder, *arguments, **environment):
    line = [sys.executable, "-c", WITHOUT_HYDRA, "--device", "cpu", "--quick", "--json", str(folder / "found.json")]
    done = subprocess.run(
        [*line, *arguments], capture_output=True, text=True, timeout=600, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text()), done.stdout


@pytest.mark.slow
def test_a_device_is_measured_without_hydra(tmp_path):
    report, printed = on_a_device(tmp_path, "--rounds", "2")
    assert report["device"] in printed
    assert [each["cell"] for each in report["recurrences"]] == ["RNN", "GRU", "LSTM"]
    for each in report["recurrences"]:
        times = each["times"]
        assert each["ratio"] == times["torch.nn"]["median"] / times["fused"]["median"]
        assert each["share_of_bound"] > 0
        assert each["outside"] is None, "nothing is measured inside a CPU"
    for each in report["precisions"]:
        assert 0 < each["errors"]["tf32"] < each["errors"]["bfloat16"] < 0.05
    entries = report["training_on_device"]
    assert [(entry["seeds"], entry["model"]) for entry in entries] == [(n, m) for n in (1, 3) for m in MODELS]
    for entry in entries:
        times = {name: timing["median"] for name, timing in entry["times"].items()}
        assert entry["ratio"] == times["fair script"] / min(times["lockstep"], times["lockstep, data=device"])


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["triton", "off", "auto"])
def test_a_devices_kernels_are_checked_without_hydra(kernel, tmp_path):
    if kernel == "triton" and importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: pip install 'rnnlstm[gpu]'")
    interpreted = {"TRITON_INTERPRET": "1"} if kernel == "triton" else {}
    report, printed = on_a_device(tmp_path, "--check", RNNLSTM_KERNEL=kernel, **interpreted)
    assert report["faults"] == 0
    assert "no fault" in printed
    assert len(report["kernels"]) == 4 * 3
    for each in report["kernels"]:
        assert 0 < each["error"] < {"full": 1e-5, "tf32": 1e-2, "bfloat16": 0.1}[each["precision"]]
    assert set(report["resumed"].values()) == {True}
    assert len(report["resumed"]) == 2 * len(MODELS)


def test_a_kernel_that_computes_something_else_is_told(monkeypatch, capsys):
    """An engine whose gradients are off by a thousandth, one whose are no numbers, and one that fails."""
    from rnnlstm.benchmarks import device
    from rnnlstm.recurrence.fused import portable
    from rnnlstm.recurrence.fused.kinds import LSTM

    class Wrong:
        forward = staticmethod(portable.forward)

        @staticmethod
        def backward(*arguments):
            found = portable.backward(*arguments)
            return found._replace(w_h=found.w_h * 1.001)

    class Empty(Wrong):
        @staticmethod
        def backward(*arguments):
            found = portable.backward(*arguments)
            return found._replace(h0=found.h0 * float("nan"))

    class Failing:
        @staticmethod
        def forward(*_):
            raise RuntimeError("out of resources: shared memory\nRequired: 300000")

    errs = "errs by more than three times"
    for engine, words in ((Wrong, errs), (Empty, errs), (Failing, "out of resources: shared memory")):
        monkeypatch.setattr(device, "engine_for", lambda *_, engine=engine: engine)
        (line,) = device.checked(LSTM, "full", [4], "cpu")
        assert line.fault.startswith(words)
        assert str(line).endswith(line.fault)


def test_the_least_time_on_a_device_by_hand():
    from rnnlstm.benchmarks.device import Rates, least_ms

    rates = Rates({"full": 10.0}, bandwidth=100.0, processors=8)
    places = 2 * 5 * 17 * 4  # R, T, B, H; each replica's 17 sequences are two programs, of eight that could run
    arithmetic = (4 * places * 3 * 4 / 0.5 + 2 * places * 3 * (4 + 20)) / 10.0 / 1e6
    assert least_ms("GRU", 2, 17, 5, 4, rates) == pytest.approx(arithmetic)
    slow = Rates({"full": 1e9}, bandwidth=0.001, processors=8)
    assert least_ms("LSTM", 2, 17, 5, 4, slow) == pytest.approx(4 * places * 45 / 0.001 / 1e6)


def test_the_plan_is_what_hydra_composes():
    for overrides in (["task=adding", "task.length=50", "optimizer.lr=3e-3"], ["precision=tf32", "device=cpu"]):
        (job,) = compose_jobs(["model=gru", "runs_root=benchmark_writes_nothing", *overrides])
        assert default_plan("gru", *overrides).config == job.config
    with pytest.raises(ConfigError, match=r"task\.size=3: unknown key"):
        default_plan("gru", "task.size=3")


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_parts_of_an_update_are_all_there_and_add_up(seeds):
    times = update_parts("lstm", seeds, 1, SMALL)
    assert list(times) == [*PARTS, UPDATE]
    assert all(times[part].median > 0 for part in PARTS)
    assert sum(times[part].median for part in PARTS) == pytest.approx(times[UPDATE].median)
    assert Trainer.step.__globals__["clip_replicas"] is clip_replicas  # everything is as it was


@pytest.mark.slow
def test_starting_up():
    times = start_up(1, SMALL)
    parts = ["interpreter", "import of torch", "import of Hydra", "import of the rest", "configuration", "kernel"]
    parts += ["task and plan", "network", "first update"]
    assert list(times) == [*parts, COMPILED_KERNEL, COMMAND]
    assert times["import of torch"].median > 100
    assert sum(times[part].median for part in parts) < times[COMMAND].median


@pytest.mark.slow
def test_a_sweep_of_tiny_jobs():
    figures = tiny_sweep(2)
    assert figures["jobs"] == 2
    assert 0 < figures["training"] < figures["seconds"]
    assert 0 < figures["share_not_training"] < 1


@pytest.mark.slow
def test_parts_that_are_named_run_alone(tmp_path, monkeypatch, capsys):
    against = on_device.against_scripts
    monkeypatch.setattr(on_device, "TASKS", ("keyword", "selective_copy"))
    small = list(SMALL)
    monkeypatch.setattr(
        on_device,
        "against_scripts",
        lambda *a, overrides, others: against(*a, [*overrides, *small], others),
    )
    monkeypatch.setattr(on_device, "rivals", lambda *a: rivals(*a[:-1], [*a[-1], *small]))
    place = tmp_path / "speed.json"
    parts = ["--update", "--compile", "0.01", "--sweep", "1", "--start-up", "--growth"]
    assert main([*parts, "--rounds", "1", "--json", str(place)]) == 0
    figures = json.loads(place.read_text())
    assert {"training", "update_parts", "start_up", "sweep", "growth", "neighbour"} < figures.keys()
    assert len(figures["growth"]) == 9
    assert {len(times) for times in figures["neighbour"].values()} == {2}
    assert not {"recurrences", "batches", "instruments_share"} & figures.keys()
    assert {entry["task"] for entry in figures["training"]} == {"keyword", "selective_copy"}
    one, eight, *_ = figures["training"]
    assert one["missing"]["compiled script"] == "not ready within 0.01 s"
    assert not eight["missing"]
    assert one["ratios"]["plain script"] > 0
    assert on_device.jax_installed() == ("JAX script" in eight["times"])
    printed = capsys.readouterr().out
    assert "no compiled whole: not ready within 0.01 s" in printed
    assert on_device.jax_installed() == ("JAX is not installed" not in printed)


def test_a_call_is_timed_to_its_end():
    events = []
    in_turn({"a": lambda: events.append("call")}, rounds=1, warm_up=1, wait=lambda: events.append("wait"))
    assert events == ["call", "wait"] * 2


def test_a_mistake_is_one_line(capsys):
    assert main(["--device", "cuda:99"]) == main(["--device", "abacus"]) == 2
    assert "device=cuda:99" in capsys.readouterr().err
    assert main(["--rounds", "0"]) == 2
    assert main(["--fast"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    for words in ("--sweep 0", "--sweep 1000000", "--sweep many", "--compile 0", "--compile nan", "--compile soon"):
        assert main(words.split()) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert words.split()[0] in line
    for words in ("--device cpu --update", "--check", "--update --figure a.png", "--device cpu --figure a.png"):
        assert main(words.split()) == 2, words
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("command", "options"), [(main, ["--json", "--figure"]), (compare, ["--csv"])])
@pytest.mark.parametrize(("place", "words"), [
    ("nowhere/speed", "No such file or directory"),
    ("x" * 300, "File name too long"),
    (".", "Is a directory"),
    ("file/speed", "Not a directory"),
    ("a\0b", "Invalid argument"),
])  # fmt: skip
def test_where_nothing_can_be_written_is_found_out_before_the_work(
    command, options, place, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for option in options:
        assert command(["absent"] * (command is compare) + [option, place]) == 74
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: can't write ")
        assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["file", "file/deeper", "x" * 300])
def test_pictures_that_can_not_be_written_are_found_out_before_the_work(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert compare(["absent", "--figures", place]) == 74
    assert "can't write" in capsys.readouterr().err
