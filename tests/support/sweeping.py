"""Small runs and sweeps in real processes, and what holds of them on any launcher."""

from __future__ import annotations

import json
import os
import time

from support.training import SMALL_NUMBERS
from support.warm import Command

OPTIONS = (*SMALL_NUMBERS, "train.stop_when_solved=false")
#: Seconds of training, and often saved.
LONG = ("train.steps=1000", "checkpoint.every=20", "probe=off", "eval.every=500", "log.every=50")

#: A task that ends its process in many ways, at the third batch that is trained on. Without a fault it writes its
#: number of threads to a file, at the same batch.
FAULTY = """
import os, signal, sys, time
from dataclasses import dataclass

import rnnlstm, torch
from rnnlstm.tasks.adding import Adding


@rnnlstm.register_task("faulty")
@dataclass(frozen=True, kw_only=True)
class Faulty(Adding):
    fault: str = rnnlstm.option("none", "how it ends")

    def sample(self, seed, step, stream="train", batch_size=64):
        if stream == "train" and step == 3 and not os.path.exists("mended"):
            getattr(self, "do_" + self.fault)()
        return super().sample(seed, step, stream, batch_size)

    def do_none(self):
        with open("threads", "a") as file: print(torch.get_num_threads(), file=file)
    def do_raise(self): raise ArithmeticError("made to fail")
    def do_exit(self): sys.exit(7)
    def do_vanish(self): os._exit(0)
    def do_kill(self): os.kill(os.getpid(), signal.SIGKILL)
    def do_segfault(self): os.kill(os.getpid(), signal.SIGSEGV)
    def do_memory(self): bytearray(2**62)
    def do_hang(self):
        while True:
            try: time.sleep(1000)
            except KeyboardInterrupt: pass
    def do_slow(self): time.sleep(2)
"""

#: A task that is slow until a file of that name appears.
PACED = """
import os, time
from dataclasses import dataclass
import rnnlstm
from rnnlstm.tasks.adding import Adding

@rnnlstm.register_task("paced")
@dataclass(frozen=True, kw_only=True)
class Paced(Adding):
    until: str = rnnlstm.option("now", "the file")

    def sample(self, seed, step, stream="train", batch_size=64):
        if stream == "train" and step > 30 and self.until != "now" and not os.path.exists(self.until):
            time.sleep(0.5)
        return super().sample(seed, step, stream, batch_size)
"""

#: A task that writes down how many threads its jobs compute with.
THREADS = """
from dataclasses import dataclass
import torch, rnnlstm
from rnnlstm.tasks.adding import Adding

@rnnlstm.register_task("threads_used")
@dataclass(frozen=True, kw_only=True)
class ThreadsUsed(Adding):
    def sample(self, seed, step, stream="train", batch_size=64):
        if stream == "train" and step == 1:
            with open("threads", "a") as file: print(torch.get_num_threads(), file=file)
        return super().sample(seed, step, stream, batch_size)
"""


def started(place, *arguments, threads=1, env=None):
    """The command in a process of its own, in the folder `place`."""
    line = [*OPTIONS, *arguments, *([f"threads={threads}"] if threads else [])]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | (env or {})
    return Command("rnnlstm.train", line, cwd=place, env=environment)


def command(place, *arguments, timeout=400, **how):
    """Exit code, standard output and error of the command, once it has ended."""
    process = started(place, *arguments, **how)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def running(place, *overrides, **how):
    return started(place, "-m", *overrides, **how)


def sweep(place, *overrides, **how):
    return command(place, "-m", *overrides, **how)


def ended(out):
    """The line that says how many jobs ended. After it come at most two, on TensorBoard."""
    lines = out.splitlines()
    at = max(k for k, line in enumerate(lines) if " jobs ended" in line)
    assert len(lines) - at in (1, 3), out
    return lines[at]


def statuses(place):
    """By the job's fault, or its model where it has none."""
    found = {}
    for path in sorted(place.glob("runs/*/*/seed_*/summary.json")):
        name = path.parents[1].name.rpartition("-")[0]
        if "faulty" in path.parents[2].name:
            name = name.partition("fault-")[2].partition("_")[0] or "none"
        found[name.partition("_hidden")[0]] = json.loads(path.read_text())["status"]
    return found


def wait_for(place, pattern, process, count=1, seconds=300):
    """Until so many run folders hold such a file."""
    end = time.monotonic() + seconds
    while len({path.parent for path in place.glob(pattern)}) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, sorted(map(str, place.rglob("*")))
        time.sleep(0.02)


def in_turn(place, *overrides):
    """The jobs of a sweep one after another in one process: what a launcher's runs are compared with."""
    line = ["import sys, rnnlstm; rnnlstm.run(sys.argv[1:])", "-m", *OPTIONS, *overrides, "threads=1"]
    process = Command("-c", line, cwd=place)
    _out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err


def assert_same_runs(one, other, seeds, others=0):
    """The same folders, bit-equal weights, the same record but for times; `one` has so many `others`."""
    found = {path.relative_to(other) for path in other.glob("*/*/seed_*")}
    assert len(found) == seeds
    there = {path.relative_to(one) for path in one.glob("*/*/seed_*")}
    assert found <= there
    assert len(there) == seeds + others
    for seed in sorted(found):
        assert (one / seed / "weights.pt").read_bytes() == (other / seed / "weights.pt").read_bytes()
        assert record(one / seed) == record(other / seed)


def record(seed):
    lines = [json.loads(line) for line in (seed / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]
