"""Nothing grows with the number of jobs or updates: memory, threads, open files."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

from rnnlstm.jobs.job import compose_jobs
from rnnlstm.jobs.listener import Listener
from rnnlstm.jobs.sweep import train_jobs
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support.training import SMALL

pytestmark = pytest.mark.slow

PAGE = 4096


def footprint():
    """Resident kilobytes, threads, open files of this process."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE // 1024
    return resident, threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def jobs_one_after_another(count, apart, tmp_path):
    """What is held after each of so many different jobs."""
    rates = ",".join(f"{1e-3 + 1e-6 * k:.7f}" for k in range(count))
    jobs = compose_jobs([*SMALL, "train.steps=3", f"optimizer.lr={rates}", f"runs_root={tmp_path}"], sweep=True)
    held = []
    listener = Listener()
    listener.ended = lambda *_: held.append(footprint())
    train_jobs(jobs, listener, apart)
    assert len(held) == count
    assert len(list(tmp_path.glob("*/*/seed_0/weights.pt"))) == count
    return held


def assert_flat(held, early, kilobytes):
    """From the entry `early` on nothing is added but this much memory; threads and files at no time."""
    assert {threads for _, threads, _ in held[early:]} == {held[early][1]}
    assert {files for *_, files in held[early:]} == {held[early][2]}
    assert held[-1][0] - held[early][0] < kilobytes, [resident for resident, *_ in held]


@pytest.mark.parametrize("apart", [True, False])
def test_fourteen_jobs(apart, tmp_path):
    assert_flat(jobs_one_after_another(14, apart, tmp_path), 7, 3_000)


@pytest.mark.long
@pytest.mark.parametrize("apart", [True, False])
def test_a_thousand_jobs(apart, tmp_path, capsys):
    held = jobs_one_after_another(1000, apart, tmp_path)
    with capsys.disabled():
        print(f"\n1,000 jobs, {'a process each' if apart else 'one process'}: kB, threads, files after job")
        print("\n".join(f"  {n:>5,}: {held[n - 1]}" for n in (1, 10, 100, 250, 500, 750, 1000)))
    assert_flat(held, 99, 8_000)


class Weighing(Progress):
    """Takes the footprint every so many updates."""

    def __init__(self, every):
        self.every, self.held = every, []

    def show(self, step, update, replicas):
        if step % self.every == 0:
            self.held.append(footprint())


def steps(count, every, tmp_path):
    overrides = ("model=rnn", "seeds=2", "log.every=1000", "eval.every=10000", "probe.every=10000", "threads=1")
    stays = ("train.stop_when_solved=false", f"train.steps={count}")
    (job,) = compose_jobs([*SMALL, "task.length=3", *overrides, *stays, f"runs_root={tmp_path}"])
    weighing = Weighing(every)
    (one, other) = train_run(make_plan(job.config), job.folder, weighing).summaries
    assert one["steps"] == other["steps"] == count
    return weighing.held


def test_two_thousand_updates(tmp_path):
    assert_flat(steps(2_000, 125, tmp_path), 4, 3_000)


@pytest.mark.long
def test_a_million_updates(tmp_path, capsys):
    held = steps(1_000_000, 50_000, tmp_path)
    with capsys.disabled():
        print("\n10^6 updates of two replicas: kB, threads, files after update")
        print("\n".join(f"  {50_000 * (n + 1):>9,}: {values}" for n, values in enumerate(held)))
    assert_flat(held, 3, 8_000)
