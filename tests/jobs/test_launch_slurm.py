"""launcher=slurm on a real Slurm of one node: limits, preemption, cancelling, stopping, leaving and coming back."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time

import pytest

from support.slurm_node import slurm_node, why_not
from support.sweeping import PACED, THREADS, assert_same_runs, ended, in_turn, running, statuses, sweep, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=why_not())]

#: Saved early, and not done before they are stopped.
PACE = ("train.steps=400", "checkpoint.every=25", "probe=off", "eval.every=200", "log.every=50")
SLURM = ("launcher=slurm", "launcher.partition=debug")
PAUSED = ("plugins=[paced]", "task=paced", *PACE)
#: Slurm counts time limits in minutes: this one tells a job to save some ten seconds after it began.
SOON = ("launcher.time=2", "launcher.signal_seconds=105")


@pytest.fixture(scope="module")
def node():
    with slurm_node() as environment:
        yield environment


@pytest.fixture
def cluster(node, tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    yield node
    ask(node, "scancel", "--user=root")  # what a test that failed has left


def ask(cluster, *command):
    return subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=60, check=True).stdout


def in_queue(cluster, *options):
    return ask(cluster, "squeue", "--noheader", "--array", "--format=%i %T %r", *options).splitlines()


def until(holds, seconds=120):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def line_of(process, words, seconds=90):
    """Wait for a line that has the words, which a test's time limit ends otherwise; returns it."""
    begun = time.monotonic()
    for line in process.stdout:
        if words in line:
            return line
        assert time.monotonic() - begun < seconds, line
    raise AssertionError(process.communicate()[1])


def test_a_sweep_with_a_time_limit_and_a_cancelled_job(cluster, tmp_path):
    jobs = (*PAUSED, "task.until=limited,never,now", "seeds=2")
    process = running(tmp_path, *jobs, *SLURM, *SOON, "launcher.max_requeues=3", env=cluster)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    (array,) = {line.partition("_")[0] for line in in_queue(cluster)}
    assert ask(cluster, "squeue", "--noheader", f"--jobs={array}_0", "--format=%j").strip() == "rnnlstm"
    ask(cluster, "scancel", f"{array}_1")
    until(lambda: any(line.startswith(f"{array}_0 PENDING") for line in in_queue(cluster)))  # queued again
    (tmp_path / "limited").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    (failure,) = err.splitlines()
    assert failure.startswith("error: ")
    assert "until-never" in failure
    assert "its Slurm job was cancelled (see " in failure
    first = out.splitlines()[0]
    assert first.startswith(f"submitted 3 jobs as array {array} (rnnlstm); logs in ")
    assert "waits: BeginTime (Slurm holds a job back for two minutes once it was queued again)" in out
    assert ended(out) == "3 of 3 jobs ended, 1 failed"
    assert statuses_by_file(tmp_path) == {"limited": {"done"}, "never": {"interrupted"}, "now": {"done"}}
    (log,) = tmp_path.glob(f"runs/.launch/*/logs/{array}_0.log")
    assert "asks to be requeued; it will resume from its checkpoint" in log.read_text()

    table = [sys.executable, "-m", "rnnlstm.compare", "runs", "--csv", "table.csv"]
    compared = subprocess.run(table, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "2 interrupted" in compared
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert len(rows) == 3

    (tmp_path / "never").touch()
    code, out, err = sweep(tmp_path, *jobs, *SLURM, env=cluster)
    assert (code, err, out.count("finished already")) == (0, "", 2)
    assert not (tmp_path / "runs" / ".launch").exists()  # logs of the failure, too
    in_turn(tmp_path, *jobs, "runs_root=unbroken")
    assert_same_runs(tmp_path / "runs", tmp_path / "unbroken", seeds=6)


def test_a_job_that_ran_into_its_limit_too_often_has_failed_and_is_saved(cluster, tmp_path):
    jobs = (*PAUSED, "task.until=later")
    code, _out, err = sweep(tmp_path, *jobs, *SLURM, *SOON, "launcher.max_requeues=0", env=cluster)
    assert code == 1, err
    limits = "launcher.time=2 and launcher.max_requeues=0"
    assert err == f"error: not finished within {limits} (saved; the same command resumes it)\n"
    assert statuses_by_file(tmp_path) == {"later": {"failed"}}
    (tmp_path / "later").touch()
    code, _out, err = sweep(tmp_path, *jobs)
    assert (code, err) == (0, "")  # not started again, which would be a warning


def test_a_preempted_job_is_queued_again_and_waited_for(cluster, tmp_path):
    """Jobs of both partitions, one with 30 seconds to save, one killed at once; a third one needs both cores."""
    jobs, commands = (*PAUSED, "task.until=free"), {}
    for partition in ("graceful", "sudden"):
        (tmp_path / partition).mkdir()
        (tmp_path / partition / "paced.py").write_text(PACED)
        options = ("launcher=slurm", f"launcher.partition={partition}")
        commands[partition] = running(tmp_path / partition, *jobs, *options, env=cluster)
    for partition, process in commands.items():
        wait_for(tmp_path / partition, "runs/*/*/checkpoints/*.pt", process)
    other = ("--partition=first", "--cpus-per-task=2", "--mem=50", "--output=/dev/null", "--wrap=sleep 1")
    ask(cluster, "sbatch", *other)
    for partition in commands:
        until(lambda name=partition: any("PENDING" in line for line in in_queue(cluster, f"--partition={name}")))
    for partition in commands:
        (tmp_path / partition / "free").touch()
    in_turn(tmp_path / "sudden", *jobs, "runs_root=unbroken")
    for partition, process in commands.items():
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, ""), out
        assert ended(out) == "1 of 1 jobs ended"
        assert_same_runs(tmp_path / partition / "runs", tmp_path / "sudden" / "unbroken", seeds=1)


def test_scontrol_requeue_held_jobs_and_memory(cluster, tmp_path):
    jobs = (*PAUSED, "task.until=again,more")
    process = running(tmp_path, *jobs, *SLURM, "launcher.array_parallelism=1", env=cluster)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process)
    (first, second) = [line.partition(" ")[0] for line in in_queue(cluster)]
    running_one = next(line.partition(" ")[0] for line in in_queue(cluster) if "RUNNING" in line)
    waiting = second if running_one == first else first
    ask(cluster, "scontrol", "hold", waiting)
    ask(cluster, "scontrol", "requeue", running_one)
    until(lambda: any(line.startswith(f"{running_one} PENDING") for line in in_queue(cluster)))
    for name in ("again", "more"):
        (tmp_path / name).touch()
    line_of(process, "1 job waits: JobHeldAdmin (held by an administrator)")
    ask(cluster, "scontrol", "release", waiting)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    assert ended(out) == "2 of 2 jobs ended"

    code, _out, err = sweep(tmp_path, *PAUSED, "task.until=never", *SLURM, "launcher.memory=60M", env=cluster)
    assert code == 1
    assert err.startswith("error: Exceeded job memory limit: launcher.memory=60M (see ")


@pytest.mark.parametrize("after", [0.0, 2.5, 6.0])
def test_a_stop_is_never_lost(after, cluster, tmp_path):
    """Also while jobs start: none trains on, and the command returns soon."""
    later = () if after else ("launcher.sbatch={begin: 'now+3600'}",)  # else one may begin before the signal comes
    process = running(tmp_path, *PAUSED, "task.until=ever", "model=rnn,lstm,gru", *SLURM, *later, env=cluster)
    line_of(process, "submitted 3 jobs")
    time.sleep(after)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 20
    assert process.returncode == 130, err
    assert len(err.splitlines()) == 1
    assert err in ("stopped by SIGINT; what was reached is saved, the same command resumes\n", "error: interrupted\n")
    assert ended(out).startswith("0 of 3 jobs ended")
    assert ended(out).endswith("1 not begun" if after else "3 not begun") or after == 2.5
    until(lambda: not in_queue(cluster))
    assert set(statuses(tmp_path).values()) <= {"interrupted"}
    assert not (tmp_path / "runs" / ".launch").exists()


def test_jobs_that_can_not_begin_say_why_and_a_stop_before_they_did_is_no_success(cluster, tmp_path):
    process = running(
        tmp_path, *PAUSED, "model=rnn,lstm", "launcher=slurm", "launcher.partition=short", "launcher.time=1-00:00:00",
        env=cluster,
    )  # fmt: skip
    line_of(process, "2 jobs wait: PartitionTimeLimit (launcher.time is above the partition's limit)", seconds=60)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (143, "error: interrupted\n")
    assert ended(out) == "0 of 2 jobs ended, 2 not begun"
    assert not in_queue(cluster)


def test_leave_and_come_back(cluster, tmp_path):
    jobs = (*PAUSED, "task.until=a,b,c,d", *SLURM)
    code, out, err = sweep(tmp_path, *jobs, "launcher.wait=false", env=cluster)
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == "the same command without launcher.wait=false watches these jobs"
    (array,) = {line.partition("_")[0] for line in in_queue(cluster)}
    assert out.splitlines()[2].endswith(f"the same command with launcher.cancel=true, or scancel {array}")
    process = running(tmp_path, *jobs, env=cluster)
    assert line_of(process, "in the queue already") == f"4 of these jobs are in the queue already (array {array})\n"
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    process.kill()  # the login node is lost
    process.communicate()
    for name in "abcd":
        (tmp_path / name).touch()
    code, out, err = sweep(tmp_path, *jobs, env=cluster)
    assert (code, err) == (0, ""), out
    assert ended(out) == "4 of 4 jobs ended"
    assert not (tmp_path / "runs" / ".launch").exists()
    in_turn(tmp_path, *jobs[: -len(SLURM)], "runs_root=unbroken")
    assert_same_runs(tmp_path / "runs", tmp_path / "unbroken", seeds=4)


def test_the_same_command_ends_what_it_has_submitted(cluster, tmp_path):
    jobs = (*PAUSED, "task.until=ever", "model=rnn,lstm,gru", *SLURM)
    watching = running(tmp_path, *jobs, env=cluster)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", watching, count=2)
    code, out, err = sweep(tmp_path, *jobs, env=cluster)  # from another terminal
    assert (code, out, len(err.splitlines())) == (73, "", 1)
    code, out, err = sweep(tmp_path, *jobs, "launcher.cancel=true", env=cluster)
    assert (code, out, err) == (0, "cancelled 3 jobs; those that were running have saved\n", "")
    out, err = watching.communicate(timeout=60)
    assert (watching.returncode, err) == (
        143,
        "stopped by SIGTERM; what was reached is saved, the same command resumes\n",
    )
    assert set(statuses(tmp_path).values()) == {"interrupted"}
    code, out, err = sweep(tmp_path, *jobs, "launcher.cancel=true", env=cluster)
    assert (code, out, err) == (0, "none of these jobs is in the queue\n", "")
    assert not (tmp_path / "runs" / ".launch").exists()


def test_threads_setup_and_other_options(cluster, tmp_path):
    (tmp_path / "threads_used.py").write_text(THREADS)
    jobs = ("plugins=[threads_used]", "task=threads_used", "model=rnn", "train.steps=2")
    options = ("launcher.cpus=2", "launcher.setup=['echo prepared > prepared']", "launcher.sbatch={comment: mine}")
    code, _out, err = sweep(tmp_path, *jobs, *SLURM, *options, threads=None, env=cluster)
    assert (code, err) == (0, "")
    assert (tmp_path / "threads").read_text() == "2\n"
    assert (tmp_path / "prepared").read_text() == "prepared\n"


def test_what_slurm_refuses_is_one_line(cluster, tmp_path):
    code, out, err = sweep(
        tmp_path, "task=adding", "model=rnn,lstm", *SLURM, "launcher.partition=nowhere", env=cluster
    )
    assert (code, out) == (2, "")
    assert "launcher=slurm: nothing could be submitted" in err
    assert "invalid partition" in err
    assert len(err.splitlines()) == 1
    assert not list((tmp_path / "runs").iterdir())


def test_a_cluster_that_takes_few_jobs_at_a_time(tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    jobs = (*PAUSED, "model=rnn", "task.length=range(12,17)", "train.steps=20", "checkpoint.every=1000")
    with slurm_node(max_array_size=4, max_job_count=4, min_job_age=4) as cluster:
        code, out, err = sweep(tmp_path, *jobs, *SLURM, env=cluster)
        assert (code, out) == (2, "")
        assert err.endswith("; launcher.array_size=1000 is above the cluster's MaxArraySize=4\n")
        code, out, err = sweep(tmp_path, *jobs, *SLURM, "launcher.array_size=3", env=cluster)
        assert (code, err) == (0, "")
        assert "can't be submitted yet, as the cluster (MaxJobCount) or the account has as many jobs as it may" in out
        assert ended(out) == "5 of 5 jobs ended"


def test_a_search_beside_each_other(cluster, tmp_path):
    pytest.importorskip("optuna", reason="needs rnnlstm[optuna]")
    search = ("search=optuna", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "search.trials=3", "search.at_once=2")
    options = ("task=adding", "train.steps=10", "probe=off")
    code, out, err = sweep(tmp_path, *search, *options, *SLURM, env=cluster)
    assert (code, err) == (0, ""), out
    assert "Best of 3 trials" in out
    found = json.loads(next(tmp_path.glob("runs/.search/*/trials.json")).read_text())
    assert sorted(found["ended"]) == [0, 1, 2]
    code, out, err = sweep(tmp_path, *search, *options)
    assert (code, err, out.count("finished already")) == (0, "", 3)


def statuses_by_file(place):
    found = {}
    for path in place.glob("runs/*/*/seed_*/summary.json"):
        until = path.parents[1].name.partition("until-")[2].partition("_")[0] or "now"
        found.setdefault(until, set()).add(json.loads(path.read_text())["status"])
    return found
