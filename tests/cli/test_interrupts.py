"""Ctrl-C and SIGTERM at many moments of a command: exit code, one line, and only whole or resumable run folders."""

from __future__ import annotations

import contextlib
import itertools
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


def ended_well(place, command, interrupts, training=False):
    """Sends each signal after its delay, to the command started anew; returns how often that ended as it should, of
    how many."""
    well = 0
    for k, (delay, sent) in enumerate(interrupts):
        code, err = interrupted(place / f"{k}", command, delay, sent, group=k % 3 == 0, training=training)
        finished = code == 0 and not err  # the signal came after the work was done
        well += code is None or finished or (code == CODES[sent] and len(err.splitlines()) == 1)
        assert "Traceback" not in err, (k, err)
        assert "terminate called" not in err, (k, err)
    assert not list(place.rglob("*.tmp"))
    for summary in place.glob("*/runs/*/*/seed_0/summary.json"):
        assert read_json(summary)["status"] in ("done", "interrupted")
    return well, len(interrupts)


@pytest.mark.slow
def test_an_interrupted_sweep_is_completed_by_the_same_command(tmp_path):
    assert ended_well(tmp_path, SWEEP, [(0.3, sent) for sent in CODES], training=True) == (2, 2)
    done = subprocess.run([sys.executable, "-m", "rnnlstm.train", *SWEEP[1:]], cwd=tmp_path / "0", env=ENVIRONMENT)
    assert done.returncode == 0
    assert [read_json(path)["status"] for path in tmp_path.glob("0/runs/*/*/seed_0/summary.json")] == ["done"] * 2


COMMANDS = [
    SWEEP,
    ("train", "task=adding", "task.length=20", *LONG),
    ("train", "-m", "launcher=local", "task=adding", "model=rnn,lstm,gru", "task.length=20", *LONG),
    ("gradflow", "model=rnn,lstm", "show=map"),
    ("compare", "../../one"),
    ("reproduce", "adding", "--quick"),
    ("train", "-m", "search=optuna", "task=adding", "optimizer.lr=tag(log,interval(1e-4,1e-1))", *LONG),
    ("events", "../../one"),
    ("benchmark", "--quick"),
    ("benchmark", "--start-up", "--sweep"),
]


def name_of(command):
    return " ".join(command[:3])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_a_command_interrupted_while_it_starts(command, tmp_path):
    """The signals take turns, from one command to the next as well."""
    make_run(tmp_path / "one")
    one, other = CODES if COMMANDS.index(command) % 2 else reversed(CODES)
    assert ended_well(tmp_path / "at", command, [(0.0, one), (0.7, other), (2.0, one)]) == (3, 3)


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_a_command_interrupted_at_twenty_moments_of_six_seconds(command, tmp_path, capsys):
    make_run(tmp_path / "one")
    interrupts = list(itertools.product([0.3 * k for k in range(20)], CODES))
    well, all_of_them = ended_well(tmp_path / "at", command, interrupts)
    with capsys.disabled():
        print(f"\n{name_of(command)}: {well} of {all_of_them} interrupts ended as they should")
    assert well == all_of_them == 40


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
