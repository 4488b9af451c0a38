"""Ctrl-C and SIGTERM at many moments of a command: exit code, one line, and only whole or resumable run folders."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from rnnlstm.record.files import read_json

from support.commands import ENVIRONMENT
from support.run_folders import make_run

SWEEP = (
    "train",
    "-m",
    "task=adding",
    "model=rnn,lstm",
    "task.length=20",
    "train.steps=100",
    "eval.samples=8",
    "probe=off",
)
LONG = ("train.steps=100000", "train.stop_when_solved=false", "checkpoint.every=20", "eval.every=1000")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
#: Prints `ready` as soon as `main` of a command runs, so that no signal comes before its handlers are installed.
START = """
import runpy, sys
from rnnlstm.cli import exits
guarded = exits.guarded
exits.guarded = lambda command: (print("ready", file=sys.stdout, flush=True), guarded(command))[1]
runpy.run_module("rnnlstm." + sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def interrupted(place, command, delay, sent, group, training=False):
    """Sends a signal so long after `main` began, or after the first run folder appeared; returns the exit code (None
    if the command had ended) and what it wrote to standard error. `group`: to all its processes, as a terminal would.
    """
    place.mkdir(parents=True)
    with (place / "err").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *command],
            cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        while training and process.poll() is None and not list(place.glob("runs/*/*/seed_0")):
            time.sleep(0.01)
        time.sleep(delay)
        ended = process.poll() is not None
        if not ended:
            (os.killpg if group else os.kill)(process.pid, sent)
        process.wait(timeout=60)
        process.stdout.close()
        time.sleep(0.1)  # for what children may still write
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the fork server, which ends by itself once it has imported torch
        errors.seek(0)
        return None if ended else process.returncode, errors.read()


def ended_well(place, command, delays, training=False):
    """Interrupts the command after each delay; returns how often it ended as it should."""
    well = 0
    for k, delay in enumerate(delays):
        sent = list(CODES)[k % 3 == 2]
        code, err = interrupted(place / f"{k}", command, delay, sent, group=k % 2 == 0, training=training)
        finished = code == 0 and not err  # the signal came after the work was done
        well += code is None or finished or (code == CODES[sent] and len(err.splitlines()) == 1)
        assert "Traceback" not in err, (k, err)
        assert "terminate called" not in err, (k, err)
    return well


@pytest.mark.slow
def test_a_sweep_interrupted_at_many_moments(tmp_path, capsys):
    """Half of them while it starts, half while its jobs are trained; what they leave is completed by the command."""
    well = ended_well(tmp_path / "start", SWEEP, [k / 2 for k in range(6)])
    well += ended_well(tmp_path / "train", SWEEP, [k / 2 for k in range(6)], training=True)
    with capsys.disabled():
        print(f"\n{well} of 12 interrupts of a sweep ended as they should")
    assert well == 12
    assert not list(tmp_path.rglob("*.tmp"))
    for seed in tmp_path.glob("*/*/runs/*/*/seed_0"):
        assert read_json(seed / "summary.json")["status"] in ("done", "interrupted")
    for place in [tmp_path / "train" / f"{k}" for k in (0, 1, 2)]:
        done = subprocess.run([sys.executable, "-m", "rnnlstm.train", *SWEEP[1:]], cwd=place, env=ENVIRONMENT)
        assert done.returncode == 0
        assert [read_json(path)["status"] for path in place.glob("runs/*/*/seed_0/summary.json")] == ["done"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("command", [
    ("train", "task=adding", "task.length=20", *LONG),
    ("train", "-m", "search=optuna", "task=adding", "optimizer.lr=tag(log,interval(1e-4,1e-1))", *LONG),
    ("gradflow", "model=rnn,lstm", "show=map"),
    ("compare", "../../one"),
    ("events", "../../one"),
    ("reproduce", "adding", "--quick"),
    ("benchmark", "--quick"),
], ids=lambda command: " ".join(command[:3]))  # fmt: skip
def test_other_commands_interrupted(command, tmp_path):
    make_run(tmp_path / "one")
    assert ended_well(tmp_path / "at", command, [0.0, 0.4, 1.0, 2.0, 4.0]) == 5


def test_a_signal_while_a_run_is_prepared_stops_it(tmp_path):
    """Contexts of StopFlag nest: what the outer one received stops the inner one."""
    from rnnlstm.training.signals import StopFlag

    with StopFlag() as outer:
        os.kill(os.getpid(), signal.SIGINT)
        with StopFlag() as inner:
            assert inner.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
    assert outer.signal == signal.SIGINT
    with StopFlag() as outer:
        with StopFlag() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert (inner.signal, outer.signal) == (signal.SIGTERM, signal.SIGTERM)
