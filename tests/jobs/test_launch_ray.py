"""launcher=ray on a cluster of two workers on this machine."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from support.sweeping import FAULTY, LONG, THREADS, assert_same_runs, running, statuses, sweep, wait_for

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs rnnlstm[ray]")
pytestmark = pytest.mark.ray
RAY = ("launcher=ray", "launcher.workers=2")


def test_a_sweep_survives_its_jobs_and_the_others_are_the_same(tmp_path):
    (tmp_path / "threads_used.py").write_text(THREADS)
    (tmp_path / "faulty.py").write_text(FAULTY)
    plugins = "plugins=[threads_used,faulty]"
    code, out, err = sweep(tmp_path, plugins, "task=faulty", "task.fault=kill,raise,none", "train.steps=6", *RAY)
    assert code == 1, err
    assert statuses(tmp_path) == {"kill": "failed", "raise": "failed", "none": "done"}
    assert "its process was killed by SIGKILL (out of memory?)" in err
    assert "ArithmeticError: made to fail" in err
    assert out.splitlines()[-1] == "3 of 3 jobs ended, 2 failed"

    jobs = (plugins, "task=threads_used", "model=rnn,lstm", "train.steps=30")
    assert sweep(tmp_path, *jobs, "runs_root=together", *RAY, threads=None)[0] == 0
    assert (tmp_path / "threads").read_text().split() == ["1", "1"]
    assert sweep(tmp_path, *jobs, "runs_root=alone")[0] == 0
    assert_same_runs(tmp_path / "together", tmp_path / "alone", seeds=2)


def test_ctrl_c_saves_every_job_and_nothing_stays(tmp_path):
    jobs = ("task=adding", "model=rnn,lstm,gru", *LONG, "train.steps=1000000")
    process = running(tmp_path, *jobs, *RAY, env={"STARTED_BY": str(tmp_path)})
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)  # two at a time
    assert listening(tmp_path) == {"127.0.0.1"}
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert err == "stopped by SIGINT; what was reached is saved\n"
    assert sorted(statuses(tmp_path).values()) == ["interrupted", "interrupted"]
    assert not (tmp_path / "runs" / ".launch").exists()
    assert not listening(tmp_path)


def listening(place):
    """Addresses at which processes of this test's Ray listen; another test's may run beside it."""
    mine, mark = set(), f"STARTED_BY={place}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes():
                mine |= {str(file.readlink()) for file in (process / "fd").iterdir()}
    lines = [x.split() for table in ("tcp", "tcp6") for x in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    found = {x[1].partition(":")[0] for x in lines if x[3] == "0A" and f"socket:[{x[9]}]" in mine}
    names = {"0100007F": "127.0.0.1", "0000000000000000FFFF00000100007F": "127.0.0.1"}
    return {names.get(address, address) for address in found}
