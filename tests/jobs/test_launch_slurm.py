"""launcher=slurm on a real Slurm of one node: arrays, a time limit, requeueing, cancelling, interrupting."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import pytest

from support.slurm_node import slurm_node, why_not
from support.sweeping import THREADS, assert_same_runs, running, statuses, sweep, wait_for

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs rnnlstm[slurm]")
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=why_not())]

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
            time.sleep(1)
        return super().sample(seed, step, stream, batch_size)
"""
#: Saved early, and not done before they are stopped.
PACE = ("train.steps=400", "checkpoint.every=25", "probe=off", "eval.every=200", "log.every=50")
SLURM = ("launcher=slurm", "launcher.partition=debug")
WARNING = 115  # seconds before its time limit at which a job is told


@pytest.fixture(scope="module")
def node():
    with slurm_node() as environment:
        yield environment


@pytest.fixture
def cluster(node):
    yield node
    ask(node, "scancel", "--user=root")  # what a test that failed has left


def ask(cluster, *command):
    return subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_sweep_with_a_time_out_and_a_cancelled_job(cluster, tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    jobs = ("plugins=[paced]", "task=paced", "task.until=requeued,never,now", "seeds=2", *PACE)
    limit = ("launcher.timeout_minutes=5", f"launcher.signal_seconds={WARNING}", "launcher.max_requeues=3")
    process = running(tmp_path, *jobs, *SLURM, *limit, env=cluster)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    names = {
        index: ask(cluster, "squeue", "--noheader", f"--jobs={index}", "--format=%j") for index in ("1_0", "1_1")
    }
    assert all(name.strip() == "rnnlstm" for name in names.values())
    ask(cluster, "scancel", "1_1")

    soon_over(cluster, "1_0")
    requeued(cluster, "1_0")
    (tmp_path / "requeued").touch()
    begin_now(cluster, "1_0")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, errors
    (failure,) = errors
    assert "until-never" in failure
    assert "its Slurm job was cancelled" in failure
    assert out.splitlines()[-1] == "3 of 3 jobs ended, 1 failed"
    found = statuses_by_file(tmp_path)
    assert found == {"requeued": {"done"}, "never": {"interrupted"}, "now": {"done"}}
    (log,) = tmp_path.glob("runs/.launch/*/slurm/0/1_0_0_log.err")
    assert "this job is timed-out" in log.read_text()

    table = [sys.executable, "-m", "rnnlstm.compare", "runs", "--csv", "table.csv"]
    compared = subprocess.run(table, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "2 interrupted" in compared
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert len(rows) == 3

    (tmp_path / "never").touch()
    code, out, err = sweep(tmp_path, *jobs)  # in turn, in the same folders
    assert (code, out.count("finished already")) == (0, 2), err
    assert sweep(tmp_path, *jobs, "runs_root=unbroken")[0] == 0
    assert_same_runs(tmp_path / "runs", tmp_path / "unbroken", seeds=6)


def test_a_job_that_ran_into_its_limit_too_often_has_failed_and_is_saved(cluster, tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    jobs = ("plugins=[paced]", "task=paced", "task.until=later", *PACE)
    limit = ("launcher.timeout_minutes=5", f"launcher.signal_seconds={WARNING}", "launcher.max_requeues=0")
    process = running(tmp_path, *jobs, *SLURM, *limit, env=cluster)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process)
    soon_over(cluster, ask(cluster, "squeue", "--noheader", "--array", "--format=%i").strip())
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    limits = "launcher.timeout_minutes=5 and launcher.max_requeues=0"
    assert err.splitlines()[-1].endswith(f"not finished within {limits} (saved; the same command resumes it)")
    assert statuses_by_file(tmp_path) == {"later": {"failed"}}
    (tmp_path / "later").touch()
    code, _out, err = sweep(tmp_path, *jobs)
    assert (code, err) == (0, "")  # not started again, which would be a warning


def test_ctrl_c_saves_what_runs_and_cancels_what_waits(cluster, tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    jobs = ("plugins=[paced]", "task=paced", "task.until=ever", "model=rnn,lstm,gru", *PACE)
    process = running(tmp_path, *jobs, *SLURM, env=cluster)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "stopped by SIGINT; what was reached is saved" in err
    assert set(statuses(tmp_path).values()) == {"interrupted"}
    assert len(statuses(tmp_path)) == 2
    end = time.monotonic() + 120
    while ask(cluster, "squeue", "--noheader"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert not (tmp_path / "runs" / ".launch").exists()


def test_a_job_has_the_threads_of_its_cores(cluster, tmp_path):
    (tmp_path / "threads_used.py").write_text(THREADS)
    jobs = ("plugins=[threads_used]", "task=threads_used", "model=rnn", "train.steps=2")
    code, _out, err = sweep(tmp_path, *jobs, *SLURM, "launcher.cpus=2", threads=None, env=cluster)
    assert (code, err) == (0, "")
    assert (tmp_path / "threads").read_text() == "2\n"


def test_what_slurm_refuses_is_one_line(cluster, tmp_path):
    code, out, err = sweep(
        tmp_path, "task=adding", "model=rnn,lstm", *SLURM, "launcher.partition=nowhere", env=cluster
    )
    assert (code, out) == (2, "")
    assert "launcher=slurm: nothing could be started" in err
    assert "invalid partition" in err
    assert len(err.splitlines()) == 1
    assert not list((tmp_path / "runs").iterdir())


def shown(cluster, job, field):
    return ask(cluster, "scontrol", "show", "job", job).partition(f"{field}=")[2].split()[0]


def soon_over(cluster, job):
    """Give the job, once it is known to train, one to two minutes more: within seconds Slurm tells it to save. A time
    limit from the start would be over on a slow machine before torch is imported. Slurm counts in minutes."""
    hours, minutes, _seconds = shown(cluster, job, "RunTime").split(":")
    ask(cluster, "scontrol", "update", f"JobId={job}", f"TimeLimit={60 * int(hours) + int(minutes) + 2}")


def requeued(cluster, job):
    end = time.monotonic() + 300
    while shown(cluster, job, "Restarts") == "0":
        assert time.monotonic() < end
        time.sleep(0.5)


def begin_now(cluster, job):
    """Instead of two minutes after it was requeued, which is Slurm's rule. With time enough to end."""
    end = time.monotonic() + 300
    while shown(cluster, job, "JobState") in ("PENDING", "COMPLETING"):
        update = ["scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=30"]
        subprocess.run(update, env=cluster, capture_output=True, timeout=60, check=False)  # not while it completes
        assert time.monotonic() < end
        time.sleep(1)


def statuses_by_file(place):
    found = {}
    for path in place.glob("runs/*/*/seed_*/summary.json"):
        until = path.parents[1].name.partition("until-")[2].partition("_")[0] or "now"
        found.setdefault(until, set()).add(json.loads(path.read_text())["status"])
    return found
