"""launcher=local in real processes: a sweep beside itself is the same sweep, and survives its jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from rnnlstm.cli.progress import SweepProgress, line
from rnnlstm.jobs.job import Standing, compose_jobs
from rnnlstm.jobs.launchers import engines
from rnnlstm.train import main

from support.sweeping import FAULTY, LONG, THREADS, assert_same_runs, running, statuses, sweep, wait_for

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs rnnlstm[parallel]")
LOCAL = ("launcher=local", "launcher.workers=2")


@pytest.mark.slow
def test_the_same_sweep_in_turn_and_beside_each_other(tmp_path):
    (tmp_path / "threads_used.py").write_text(THREADS)
    jobs = ("plugins=[threads_used]", "task=threads_used", "model=rnn,lstm", "seed=0,1", "train.steps=30")
    code, out, err = sweep(tmp_path, *jobs, "runs_root=together", "launcher=local", threads=None)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "4 of 4 jobs ended"
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
    faults = ("raise", "none", "exit", "kill", "hang", "memory")
    jobs = ("plugins=[faulty]", "task=faulty", f"task.fault={','.join(faults)}", "train.steps=6", "job_timeout=5")
    code, out, err = sweep(tmp_path, *jobs, *LOCAL)
    assert code == 1, err
    assert statuses(tmp_path) == dict.fromkeys(faults, "failed") | {"none": "done"}
    reasons = ("ArithmeticError: made to fail", "exited with code 7", "killed by SIGKILL", "out of memory (")
    for reason in (*reasons, "not finished after job_timeout=5 s"):
        assert [x for x in err.splitlines() if x.startswith("error: ") and reason in x], reason
    assert 'raise ArithmeticError("made to fail")' in err
    assert out.splitlines()[-1] == "6 of 6 jobs ended, 5 failed"

    (tmp_path / "mended").touch()
    code, out, err = sweep(tmp_path, *jobs, *LOCAL)
    assert code == 0, err
    assert out.count("finished already") == 1
    assert set(statuses(tmp_path).values()) == {"done"}
    assert not (tmp_path / "runs" / ".launch").exists()


@pytest.mark.slow
def test_a_signal_saves_every_job_and_the_same_command_goes_on(tmp_path):
    jobs = ("task=adding", "model=rnn,lstm,gru", *LONG)
    process = running(tmp_path, *jobs, *LOCAL)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err == "stopped by SIGINT; what was reached is saved\n"
    assert sorted(statuses(tmp_path).values()) == ["interrupted", "interrupted"]
    assert sweep(tmp_path, *jobs, *LOCAL)[0] == 0
    assert sweep(tmp_path, *jobs, "runs_root=alone")[0] == 0
    assert_same_runs(tmp_path / "runs", tmp_path / "alone", seeds=3)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the command", "its launcher", "a worker"])
def test_whoever_is_killed_the_jobs_save_and_nothing_stays(tmp_path, whom):
    process = running(tmp_path, "task=adding", "model=rnn,lstm", *LONG, "train.steps=1000000", *LOCAL)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)
    launcher = children(process.pid, "launchers.bridge")
    workers = [child for child in children(launcher[0], "loky") if children(child, "forkserver")]
    jobs = [
        int(path.read_text().partition('"pid": ')[2].partition(",")[0]) for path in tmp_path.glob("runs/*/*/.lock")
    ]
    victim = {"the command": process.pid, "its launcher": launcher[0], "a worker": workers[0]}[whom]
    os.kill(victim, signal.SIGKILL)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == (-9 if whom == "the command" else 1), err
    for pid in (process.pid, *launcher, *workers, *jobs):
        assert gone(pid), pid
    found = set(statuses(tmp_path).values())
    # joblib kills all its workers, and what they have started, when it misses one of them
    assert found == {"interrupted"} if whom != "a worker" else found <= {"interrupted", "failed"}
    assert len(list(tmp_path.glob("runs/*/*/checkpoints/*.pt"))) >= 2


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local", "slurm", "ray"])
def test_a_missing_plugin_is_one_line(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(engines, "EXTRAS", {name: ("the_extra", "no-such-package")})
    assert main([f"launcher={name}", f"runs_root={tmp_path / 'runs'}"]) == 2
    assert capsys.readouterr().err == f"error: launcher={name} needs pip install 'rnnlstm[the_extra]'\n"
    assert not list(tmp_path.iterdir())


def test_how_a_sweep_stands(tmp_path):
    jobs = compose_jobs(["model=rnn,lstm,gru", "train.steps=100", f"runs_root={tmp_path}"], sweep=True)
    standing = Standing(jobs, dict(enumerate(jobs)))
    assert line(standing.look([0, 1, 2], set()), 0) == "0 of 3 jobs ended"
    record = jobs[1].folder / "seed_0" / "metrics.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text('{"step": 40}\n{"step": 50}\n{"step": 9')
    standing = Standing(jobs, dict(enumerate(jobs)))
    standing._started -= 60  # one and a half of three jobs in a minute
    shown = line(standing.look([1, 2], {0, 1}), 1)
    assert shown.startswith("1 of 3 jobs ended, 1 failed, 1 running, 1:0")
    console = Console(force_terminal=True, width=80)
    with console.capture() as captured:
        progress = SweepProgress(console)
        progress.show(standing, 1)
        progress.close(1)
    assert "1 of 3 jobs ended, 1 failed, 1 running" in captured.get()


def children(pid, word):
    """Processes that `pid` has started, whose command line has the word in it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and word in (place / "cmdline").read_text():
                found.append(int(place.name))
        except OSError:
            continue
    return found


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
