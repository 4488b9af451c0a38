"""Real processes, killed at steps that were seen to be reached, started again, and held against the unbroken run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from rnnlstm.jobs.job import compose_jobs
from rnnlstm.training.loop import Outcome

from support.resuming import assert_same

pytestmark = pytest.mark.slow

STEPS = 400
OVERRIDES = (
    "task.length=16",
    "model.hidden_size=8",
    "model.embedding_size=4",
    "train.batch_size=4",
    "train.stop_when_solved=false",
    f"train.steps={STEPS}",
    "eval.samples=8",
    "eval.every=25",
    "log.every=1",
    "probe.every=25",
    "checkpoint.every=15",
    "threads=1",
)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


def started(root, overrides):
    line = [sys.executable, "-m", "rnnlstm.train", *OVERRIDES, *overrides, f"runs_root={root}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def last_step(path):
    """The step of the last whole line, 0 without one."""
    try:
        whole = path.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2]
    except OSError:
        return 0
    return int(whole.partition(b'"step": ')[2].partition(b",")[0] or 0)


def reach(process, path, step):
    """Wait until the record has come to `step`; how far it has come."""
    end = time.monotonic() + 120
    while process.poll() is None and last_step(path) < step and time.monotonic() < end:
        time.sleep(0.001)
    return last_step(path)


def killed(process, path, step, number):
    """Send the signal once the record has reached `step`; the exit code, and how far the record had come."""
    reached = reach(process, path, step)
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    return process.returncode, reached, errors


def survive(count, overrides, tmp_path, seed=0):
    """`count` kills at random steps, then to the end; returns how many there were."""
    draw = random.Random(seed)
    (whole,) = compose_jobs([*OVERRIDES, *overrides, f"runs_root={tmp_path / 'whole'}"])
    (broken,) = compose_jobs([*OVERRIDES, *overrides, f"runs_root={tmp_path / 'broken'}"])
    process = started(tmp_path / "whole", overrides)
    assert process.communicate(timeout=300)[1] == ""
    seeds = list(whole.config.seed_numbers)
    record = broken.folder / f"seed_{seeds[0]}" / "metrics.jsonl"
    steps = sorted(draw.sample(range(1, STEPS - 5), count))
    for step in steps:
        number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        code, reached, errors = killed(started(tmp_path / "broken", overrides), record, step, number)
        assert code == CODES[number], errors
        assert step <= reached < STEPS
    process = started(tmp_path / "broken", overrides)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert_same(Outcome(broken.folder, []), Outcome(whole.folder, []), seeds)
    return len(steps)


RUNS = [("model=rnn",), ("model=lstm",), ("model=rnn", "seeds=3"), ("model=lstm", "seeds=3")]


@pytest.mark.parametrize("overrides", RUNS[1:3], ids=" ".join)
def test_two_kills_at_random_steps(overrides, tmp_path):
    assert survive(2, overrides, tmp_path) == 2


@pytest.mark.long
@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_twenty_kills_at_random_steps(overrides, tmp_path, capsys):
    count = survive(20, overrides, tmp_path, seed=1)
    with capsys.disabled():
        print(f"\n{' '.join(overrides)}: {count} of {count} kills: losses and weights bit-equal to the unbroken run")


def test_a_second_signal_stops_at_once_and_the_run_goes_on_from_its_checkpoint(tmp_path):
    overrides = ("model=lstm", "train.steps=100000")
    (job,) = compose_jobs([*OVERRIDES, *overrides, f"runs_root={tmp_path}"])
    process = started(tmp_path, overrides)
    record = job.folder / "seed_0" / "metrics.jsonl"
    reach(process, record, 40)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list((job.folder / "checkpoints").glob("*.pt"))
    code, reached, errors = killed(started(tmp_path, overrides), record, last_step(record) + 5, signal.SIGTERM)
    assert code == 143, errors
    assert reached > 40


def test_a_second_run_in_the_same_folder_exits_73_and_the_first_goes_on(tmp_path):
    overrides = ("model=lstm", "train.steps=100000")
    (job,) = compose_jobs([*OVERRIDES, *overrides, f"runs_root={tmp_path}"])
    first = started(tmp_path, overrides)
    record = job.folder / "seed_0" / "metrics.jsonl"
    reach(first, record, 3)
    second = started(tmp_path, overrides)
    errors = second.communicate(timeout=60)[1]
    assert second.returncode == 73
    assert f"is in use by process {first.pid}" in errors
    assert len(errors.splitlines()) == 1
    here = last_step(record)
    code, reached, errors = killed(first, record, here + 5, signal.SIGTERM)
    assert (code, reached > here) == (143, True)
