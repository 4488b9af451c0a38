"""Sweeps in real processes: jobs that raise, exit, are killed, hang, diverge; and what stays of the others."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from rnnlstm.record.files import read_json

from support.commands import train
from support.sweeping import FAULTY, OPTIONS, command, started, wait_for

pytestmark = pytest.mark.slow

FAULTS = ("raise", "none", "exit", "vanish", "kill", "segfault", "memory", "hang")
SLOW = "train.steps=1000000"  # ends by its timeout


@pytest.fixture
def place(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    return tmp_path


def summaries(place):
    """By the job's fault, or whatever its folder's name says of it."""
    found = {}
    for path in sorted(place.glob("runs/*/*/seed_*/summary.json")):
        name = path.parents[1].name.rpartition("-")[0]
        found[name.partition("fault-")[2].partition("_")[0] or "none"] = read_json(path)
    return found


def test_a_sweep_survives_its_jobs_and_then_runs_only_what_is_missing(place):
    sweep = ("-m", "plugins=[faulty]", "task=faulty", f"task.fault={','.join(FAULTS)}", "train.steps=6")
    limited = (*sweep, "job_timeout=6", "train.batch_size=4")
    code, out, err = command(place, *limited)
    assert code == 1, err
    found = summaries(place)
    assert set(found) == set(FAULTS)
    assert {fault: s["status"] for fault, s in found.items()} == dict.fromkeys(FAULTS, "failed") | {"none": "done"}
    reasons = {
        "raise": "ArithmeticError: made to fail",
        "exit": "exited with code 7",
        "vanish": "exited with code 0 before the run had ended",
        "kill": "killed by SIGKILL (out of memory?)",
        "segfault": "killed by SIGSEGV",
        "memory": "out of memory (",
        "hang": "not finished after job_timeout=6 s",
    }
    for fault, reason in reasons.items():
        assert reason in found[fault]["reason"]
        assert [line for line in err.splitlines() if line.startswith("error: ") and reason in line]
    assert "do_hang" in err  # where it hung
    assert 'raise ArithmeticError("made to fail")' in err
    (log,) = place.glob("runs/*/*fault-raise*/failure.log")
    assert 'raise ArithmeticError("made to fail")' in log.read_text()
    assert out.index("fault-raise") < out.index("fault-hang")

    table = train(place, "runs", "--csv", "table.csv", command="compare")
    assert table.returncode == 0, table.stderr
    rows = list(csv.DictReader((place / "table.csv").read_text().splitlines()))
    assert sorted(row["failed"] for row in rows) == ["0"] + ["1"] * 7
    assert "not finished after job_timeout" in table.stdout

    (done,) = (weights for weights in place.glob("runs/*/*/seed_0/weights.pt") if "fault" not in weights.parts[-3])
    written = done.stat().st_mtime_ns
    (place / "mended").touch()
    code, out, err = command(place, *limited)
    assert code == 0, err
    assert [line.rpartition(": ")[2] for line in err.splitlines()] == [
        "seed 0 was stopped before its first checkpoint and starts again"
    ] * 7
    assert out.count("finished already") == 1
    assert {s["status"] for s in summaries(place).values()} == {"done"}
    assert done.stat().st_mtime_ns == written
    assert not list(place.glob("runs/*/*/failure.log"))


def test_jobs_that_diverge_are_results(place):
    explosive = ("model=rnn", "model.nonlinearity=identity", "model.init=orthogonal", "clip=none", "optimizer=sgd")
    code, out, err = command(place, "-m", "task=adding", *explosive, "optimizer.lr=1e-6,1000", "train.steps=60")
    assert code == 0, err
    states = [read_json(path)["status"] for path in place.glob("runs/*/*/seed_0/summary.json")]
    assert sorted(states) == ["diverged", "done"]
    assert "diverged: the " in out
    assert "finished already" not in out
    code, out, err = command(place, "-m", "task=adding", *explosive, "optimizer.lr=1e-6,1000", "train.steps=60")
    assert (code, out.count("finished already"), err) == (0, 2, "")


def test_a_job_that_needs_longer_than_its_timeout_is_saved_and_goes_on(place):
    (place / "mended").touch()
    overrides = ("task=adding", "train.steps=1000000", "job_timeout=3")
    steps = []
    for _ in range(2):
        code, _out, err = command(place, *overrides)
        assert code == 1
        assert err.splitlines()[-1].endswith(
            "not finished after job_timeout=3 s (saved; the same command resumes it)"
        )
        (summary,) = summaries(place).values()
        assert summary["status"] == "failed"
        steps.append(summary["steps"])
    assert 0 < steps[0] < steps[1]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 143)])
def test_a_signal_to_a_sweep_saves_the_job_and_ends(place, sent, code):
    process = started(place, "-m", "task=adding", "model=rnn,lstm", SLOW, "checkpoint.every=20")
    wait_for(place, "runs/*/*/checkpoints/*.pt", process)
    process.send_signal(sent)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"stopped by {sent.name}" in err
    assert [s["status"] for s in summaries(place).values()] == ["interrupted"]


@pytest.mark.parametrize(("sent", "state", "asks"), [
    (signal.SIGUSR2, "RUNNING", True),  # its time is nearly over
    (signal.SIGTERM, "RUNNING", True),  # it is preempted
    (signal.SIGTERM, "CANCELLED", False),
    (signal.SIGINT, "RUNNING", False),
])  # fmt: skip
def test_under_slurm_a_stopped_job_asks_to_be_started_again(place, sent, state, asks):
    scontrol = place / "scontrol"
    show = f"[ $1 = requeue ] || exec echo JobId=42 JobState={state} Reason=None"
    scontrol.write_text(f"#!/bin/sh\n{show}\necho $* > {place}/asked\n")
    scontrol.chmod(0o755)
    environment = {**os.environ, "SLURM_JOB_ID": "42", "PATH": f"{place}:{os.environ['PATH']}"}
    process = started(place, "task=adding", SLOW, "checkpoint.every=20", env=environment)
    wait_for(place, "runs/*/*/checkpoints/*.pt", process)
    process.send_signal(sent)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if sent == signal.SIGINT else 143)
    assert ("Slurm job 42 asks to be requeued" in err) == asks
    assert (place / "asked").exists() == asks
    assert not asks or (place / "asked").read_text() == "requeue 42\n"


def test_a_job_says_that_it_asks_slurm_even_if_slurm_kills_it_at_once(place):
    scontrol = place / "scontrol"
    scontrol.write_text("#!/bin/sh\nkill -KILL $PPID\n")
    scontrol.chmod(0o755)
    environment = {**os.environ, "SLURM_JOB_ID": "42", "PATH": f"{place}:{os.environ['PATH']}"}
    process = started(place, "task=adding", SLOW, "checkpoint.every=20", env=environment)
    wait_for(place, "runs/*/*/checkpoints/*.pt", process)
    process.send_signal(signal.SIGUSR2)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "stopped by SIGUSR2; what was reached is saved" in err
    assert "\nSlurm job 42 asks to be requeued; it will resume" in err
    assert [s["status"] for s in summaries(place).values()] == ["interrupted"]


def test_a_killed_sweep_leaves_no_process_behind_and_its_job_saves(place):
    process = started(place, "-m", "task=adding", "model=rnn,lstm", SLOW, "checkpoint.every=20")
    wait_for(place, "runs/*/*/checkpoints/*.pt", process)
    (lock,) = place.glob("runs/*/*/.lock")
    job = read_json(lock)["pid"]
    assert job != process.pid
    process.kill()
    process.communicate(timeout=60)
    end = time.monotonic() + 60
    while (place / f"/proc/{job}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)
    assert [s["status"] for s in summaries(place).values()] == ["interrupted"]
    assert list(place.glob("runs/*/*/checkpoints/*.pt"))


def test_a_script_that_is_not_guarded_can_give_its_jobs_a_timeout(place):
    overrides = ["-m", "task=adding", "model=rnn,lstm", "train.steps=2", "job_timeout=60", *OPTIONS]
    (place / "script.py").write_text(f"import rnnlstm\nprint(len(rnnlstm.run({overrides})), flush=True)\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=place, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
