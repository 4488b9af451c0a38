"""launcher=local in real processes: a sweep beside itself is the same sweep, and survives its jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from rich.console import Console

from rnnlstm.cli.progress import SweepProgress, line
from rnnlstm.jobs import local
from rnnlstm.jobs.job import compose_jobs
from rnnlstm.jobs.launcher import Unit
from rnnlstm.jobs.listener import Standing
from rnnlstm.record.files import read_json
from rnnlstm.train import main
from rnnlstm.training.signals import StopFlag

from support.sweeping import (
    FAULTY,
    LONG,
    PACED,
    THREADS,
    assert_same_runs,
    ended,
    in_turn,
    running,
    statuses,
    sweep,
    wait_for,
)  # fmt: skip

LOCAL = ("launcher=local", "launcher.workers=2")
#: Jobs that are saved soon, and end soon after there is a file `go`.
PAUSED = ("plugins=[paced]", "task=paced", "task.until=go", "train.steps=100", "checkpoint.every=20", "probe=off")


class Begun:
    """A process that never says anything."""

    handles, notes, seconds_left, told = (), [], None, True

    def __init__(self, *_: object, **__: object) -> None: ...

    def ending(self): ...

    def close(self): ...


def test_a_job_that_was_started_is_told_at_once(monkeypatch, tmp_path):
    """Its own progress would stand on the terminal before the line that names it."""
    waited = []
    monkeypatch.setattr(local, "JobProcess", Begun)
    monkeypatch.setattr(local, "wait", lambda handles, seconds: waited.append(seconds))
    jobs = compose_jobs(["task=adding", f"runs_root={tmp_path}"])
    with StopFlag() as stop, local.Local(jobs, stop, 1) as launcher:
        launcher.submit([Unit(0, ((0, jobs[0]),))])
        assert launcher.look(7.0).running == [0]
        assert launcher.look(7.0).running == [0]
    assert waited == [0.0, 7.0]


@pytest.mark.slow
def test_the_same_sweep_in_turn_and_beside_each_other(tmp_path):
    (tmp_path / "threads_used.py").write_text(THREADS)
    jobs = ("plugins=[threads_used]", "task=threads_used", "model=rnn,lstm", "seed=0,1", "train.steps=30")
    code, out, err = sweep(tmp_path, *jobs, "runs_root=together", "launcher=local", threads=None)
    assert (code, err) == (0, "")
    assert ended(out) == "4 of 4 jobs ended"
    assert out.count("not solved in 30 steps") == 4
    used = (tmp_path / "threads").read_text().split()
    assert used == ["1"] * 4  # by default
    code, _out, err = sweep(tmp_path, *jobs, "runs_root=alone")
    assert (code, err) == (0, "")
    assert_same_runs(tmp_path / "together", tmp_path / "alone", seeds=4)
    assert {path.name for path in tmp_path.iterdir() if path.name != "__pycache__"} == {
        "together", "alone", "threads", "threads_used.py",
    }  # fmt: skip
    assert not (tmp_path / "together" / ".launch").exists()

    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("alone/*/*/seed_*/weights.pt")}
    code, out, _err = sweep(tmp_path, *jobs, "runs_root=alone", *LOCAL)  # elsewhere, the same folders
    assert (code, out.count("finished already")) == (0, 4)
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())


@pytest.mark.slow
def test_a_sweep_survives_its_jobs_and_then_runs_only_what_is_missing(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    faults = ("raise", "none", "exit", "kill")  # test_sweeps has more, and time limits
    jobs = ("plugins=[faulty]", "task=faulty", f"task.fault={','.join(faults)}", "train.steps=6")
    code, out, err = sweep(tmp_path, *jobs, *LOCAL)
    assert code == 1, err
    assert statuses(tmp_path) == dict.fromkeys(faults, "failed") | {"none": "done"}
    for reason in ("ArithmeticError: made to fail", "exited with code 7", "killed by SIGKILL"):
        assert [x for x in err.splitlines() if x.startswith("error: ") and reason in x], reason
    assert 'raise ArithmeticError("made to fail")' in err
    assert ended(out) == "4 of 4 jobs ended, 3 failed"

    (tmp_path / "mended").touch()
    code, out, err = sweep(tmp_path, *jobs, *LOCAL)
    assert code == 0, err
    assert out.count("finished already") == 1
    assert set(statuses(tmp_path).values()) == {"done"}
    assert not (tmp_path / "runs" / ".launch").exists()


@pytest.mark.slow
def test_a_signal_saves_every_job_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    jobs = (*PAUSED, "model=rnn,lstm,gru")
    process = running(tmp_path, *jobs, *LOCAL)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err == "stopped by SIGINT; what was reached is saved, the same command resumes\n"
    assert sorted(statuses(tmp_path).values()) == ["interrupted", "interrupted"]
    (tmp_path / "go").touch()
    assert sweep(tmp_path, *jobs, *LOCAL)[0] == 0
    in_turn(tmp_path, *jobs, "runs_root=alone")
    assert_same_runs(tmp_path / "runs", tmp_path / "alone", seeds=3)


def pids(place):
    """Of the jobs that train, by run folder."""
    return {path.parent: read_json(path)["pid"] for path in place.glob("runs/*/*/.lock")}


@pytest.mark.slow
def test_a_killed_command_leaves_no_process_and_its_jobs_save(tmp_path):
    process = running(tmp_path, "task=adding", "model=rnn,lstm", *LONG, "train.steps=1000000", *LOCAL)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    jobs = pids(tmp_path)
    process.kill()
    process.communicate(timeout=120)
    assert all(gone(pid) for pid in jobs.values())
    assert list(statuses(tmp_path).values()) == ["interrupted"] * 2


@pytest.mark.slow
def test_a_killed_worker_fails_its_job_alone_and_the_others_go_on(tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    jobs = (*PAUSED, "model=rnn,lstm,gru")
    process = running(tmp_path, *jobs, *LOCAL)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    folder, pid = next((folder, pid) for folder, pid in pids(tmp_path).items() if "lstm" in folder.name)
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=240)
    assert process.returncode == 1, err
    assert err == (f"error: {folder.relative_to(tmp_path)}: its process was killed by SIGKILL (out of memory?)\n")
    assert ended(out) == "3 of 3 jobs ended, 1 failed"
    assert {name.partition("_")[0]: status for name, status in statuses(tmp_path).items()} == {
        "lstm": "failed", "rnn": "done", "gru": "done",
    }  # fmt: skip
    assert sweep(tmp_path, *jobs, *LOCAL)[0] == 0  # from its checkpoint
    assert set(statuses(tmp_path).values()) == {"done"}


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_the_third_kills(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    process = running(tmp_path, "plugins=[faulty]", "task=faulty", "task.fault=hang", *LOCAL, *LONG)
    wait_for(tmp_path, "runs/*/*/seed_0/metrics.jsonl", process)
    time.sleep(0.5)
    begun = time.monotonic()
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    _out, err = process.communicate(timeout=60)
    assert (process.returncode, time.monotonic() - begun < 10) == (130, True), err
    assert "Traceback" not in err


@pytest.mark.slow
def test_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(
        "import rnnlstm\n"  # not guarded by __name__: no worker may run it again
        "found = rnnlstm.run(['-m', 'task=adding', 'model=rnn,lstm', 'task.length=12', 'train.steps=2',\n"
        "                     'eval.samples=8', 'launcher=local', 'launcher.workers=2'])\n"
        "print(len(found))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.parametrize(("words", "said"), [
    ("launcher=ray", "launcher=ray needs pip install 'rnnlstm[ray]'"),
    ("launcher=slurm", "launcher=slurm: this machine has no sbatch; start the command where Slurm's are"),
    ("launcher=slurm job_timeout=5", "job_timeout=5: with launcher=slurm the time limit is launcher.time"),
    ("launcher=slurm launcher.time=soon", "launcher.time=soon: must be minutes, or like 12:30:00 or 1-02:00:00"),
    ("launcher=slurm launcher.memory=8X", "launcher.memory=8X: must be MB, or like 8G"),
    ("launcher=slurm launcher.time=1-00", None),
    ("launcher=slurm launcher.sbatch={mem:3}", "launcher.sbatch=mem: has a key of its own: launcher.memory"),
    ("launcher=slurm launcher.sbatch={array:1-3}", "launcher.sbatch=array: is set by the launcher"),
    ("launcher=slurm launcher.setup=x", "launcher.setup=x: must be a list"),
    ("launcher=slurm launcher.timeout_minutes=5", "is called launcher.time (minutes) now"),
    ("launcher=slurm launcher.memory_gb=5", "is called launcher.memory (8G) now"),
    ("launcher=slurm launcher.signal_seconds=60 launcher.time=0:59", "must be less than time=0:59 takes"),
    ("launcher=local launcher.wait=false", "start the command with nohup or in tmux"),
    ("launcher=serial launcher.cancel=true", "start the command with nohup or in tmux"),
    ("launcher=ray launcher.wait=false", "start the command with nohup or in tmux"),
])  # fmt: skip
def test_what_a_launcher_can_not_do_is_one_line(words, said, monkeypatch, capsys, tmp_path):
    if said and "needs pip" in said:
        monkeypatch.setattr("importlib.metadata.version", missing)
    there = "job_timeout" in words or said is None
    monkeypatch.setattr("shutil.which", lambda program, **_: "/bin/true" if there else None)
    if said is None:
        compose_jobs(words.split())
        return
    assert main([*words.split(), f"runs_root={tmp_path / 'runs'}"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def missing(package):
    raise PackageNotFoundError(package)


def test_how_a_sweep_stands(tmp_path):
    jobs = compose_jobs(["model=rnn,lstm,gru", "train.steps=100", f"runs_root={tmp_path}"], sweep=True)
    standing = Standing(3)
    assert line(standing.look(0, {}, {"waiting": 3}), 0) == "0 of 3 jobs ended, 3 waiting"
    record = jobs[1].folder / "seed_0" / "metrics.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text('{"step": 40}\n{"step": 50}\n{"step": 9')
    standing._started -= 60  # one and a half of three jobs in a minute
    standing._looked -= 60
    shown = line(standing.look(1, {1: jobs[1]}, {"requeued": 1}), 1)
    assert shown.startswith("1 of 3 jobs ended, 1 failed, 1 running, 1 requeued, 1:0")
    console = Console(force_terminal=True, width=80)
    with console.capture() as captured:
        progress = SweepProgress(console)
        progress.show(standing, 1)
        progress.close(1)
    assert "1 of 3 jobs ended, 1 failed, 1 running" in captured.get()
    standing.not_begun, standing.stopped = 1, 1
    assert line(standing.look(1, {}, {}), 0) == "1 of 3 jobs ended, 1 stopped, 1 not begun"


def gone(pid):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False
