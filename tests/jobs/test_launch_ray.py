"""launcher=ray: on a cluster of two workers on this machine, and on one that is there, of several nodes."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from support.slurm_node import free_port
from support.sweeping import FAULTY, LONG, PACED, THREADS, assert_same_runs, running, statuses, sweep, wait_for

pytest.importorskip("ray", reason="needs rnnlstm[ray]")
pytestmark = pytest.mark.ray
RAY = ("launcher=ray", "launcher.workers=2")
#: The cluster is reached from this machine alone, and asks for no token.
CLUSTER = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_USAGE_STATS_ENABLED": "0"}


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
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert err == "stopped by SIGINT; what was reached is saved\n"
    assert out.splitlines()[-1] == "0 of 3 jobs ended, 2 stopped, 1 not begun"
    assert sorted(statuses(tmp_path).values()) == ["interrupted", "interrupted"]
    assert not (tmp_path / "runs" / ".launch").exists()
    assert not listening(tmp_path)


class Cluster:
    """A head without cores, and nodes with one each, on 127.0.0.1."""

    def __init__(self) -> None:
        self.address, self._processes = f"127.0.0.1:{free_port()}", []
        self.folder = tempfile.mkdtemp(prefix="ray-")  # short: a socket's path takes 107 characters

    def start(self, *options):
        line = [str(Path(sys.executable).parent / "ray"), "start", *options, "--node-ip-address=127.0.0.1", "--block"]
        with open(f"{self.folder}/{len(self._processes)}.log", "wb") as log:  # noqa: PTH123
            environment = {**os.environ, **CLUSTER}
            process = subprocess.Popen(line, env=environment, stdout=log, stderr=log, start_new_session=True)
        self._processes.append(process)
        said, end = Path(log.name), time.monotonic() + 60
        while "Ray runtime started" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.2)
        return process

    def head(self):
        port = self.address.rpartition(":")[2]
        self.client = f"ray://127.0.0.1:{free_port()}"
        client = f"--ray-client-server-port={self.client.rpartition(':')[2]}"
        options = ("--num-cpus=0", f"--temp-dir={self.folder}", "--include-dashboard=false", client)
        self.start("--head", f"--port={port}", *options)

    def node(self):
        return self.start(f"--address={self.address}", "--num-cpus=1")

    @staticmethod
    def kill(node):
        """Its raylet alone, as when a machine is lost."""
        (raylet,) = [
            pid for pid in session(node.pid) if "raylet/raylet" in (Path(f"/proc/{pid}/cmdline").read_text())
        ]
        os.kill(raylet, signal.SIGKILL)

    def close(self):
        for process in reversed(self._processes):
            for pid in [*session(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def session(leader):
    """The processes in the session of a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((place / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(place.name))
    return found


@pytest.fixture
def cluster():
    found = Cluster()
    try:
        found.head()
        yield found
    finally:
        found.close()


def node_of(nodes, place, pattern):
    """The node on which the job with such a run folder trains."""
    (folder,) = place.glob(f"runs/*/{pattern}")
    pid = int((folder / ".lock").read_text().partition('"pid": ')[2].partition(",")[0])
    (node,) = [node for node in nodes if pid in session(node.pid)]
    return node


def test_a_lost_node_of_a_cluster_that_is_there(cluster, tmp_path):
    (tmp_path / "paced.py").write_text(PACED)
    nodes = [cluster.node(), cluster.node()]
    jobs = (
        "plugins=[paced]",
        "task=paced",
        "model=rnn,lstm",
        "task.until=go",
        "train.steps=400",
        "checkpoint.every=5",
    )
    there = ("launcher=ray", f"launcher.address={cluster.address}")
    process = running(tmp_path, *jobs, *there, env=CLUSTER)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)  # one on each
    lost = node_of(nodes, tmp_path, "lstm*")
    cluster.kill(lost)
    nodes = [node for node in nodes if node is not lost] + [cluster.node()]
    time.sleep(1)
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert len([line for line in out.splitlines() if "its worker was lost" in line and "sent again" in line]) == 1
    assert out.splitlines()[-1] == "2 of 2 jobs ended"
    assert "raylet" not in out
    assert sweep(tmp_path, *jobs, "runs_root=alone")[0] == 0
    assert_same_runs(tmp_path / "runs", tmp_path / "alone", seeds=2)

    jobs = ("plugins=[paced]", "task=paced", "model=gru", "task.until=ever", "checkpoint.every=5", *LONG)
    process = running(tmp_path, *jobs, *there, env=CLUSTER)
    wait_for(tmp_path, "runs/*/gru*/checkpoints/*.pt", process)
    first = node_of(nodes, tmp_path, "gru*")
    cluster.kill(first)
    (other,) = [node for node in nodes if node is not first]
    end = time.monotonic() + 90
    while True:  # until it trains there
        with contextlib.suppress(ValueError, OSError):
            if node_of([other], tmp_path, "gru*") is other:
                break
        assert time.monotonic() < end
        time.sleep(0.2)
    cluster.kill(other)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "its worker was lost twice" in err
    assert len(err.splitlines()) == 1
    found = {name.partition("_")[0]: status for name, status in statuses(tmp_path).items()}
    assert found == {"rnn": "done", "lstm": "done", "gru": "interrupted"}


def test_other_ways_to_a_cluster_and_a_search_on_it(cluster, tmp_path):
    pytest.importorskip("optuna", reason="needs rnnlstm[optuna]")
    cluster.node()
    jobs = ("task=adding", "model=rnn", "train.steps=10")
    environment = {**CLUSTER, "RAY_ADDRESS": cluster.address}
    search = ("search=optuna", "optimizer.lr=interval(0.001,0.01)", "search.trials=3", "search.at_once=2")
    code, out, err = sweep(tmp_path, *jobs, *search, "launcher=ray", "launcher.address=auto", env=environment)
    assert (code, err) == (0, ""), out
    assert "Best of 3 trials" in out
    code, out, err = sweep(tmp_path, *jobs, "launcher=ray", f"launcher.address={cluster.client}", env=CLUSTER)
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == "1 of 1 jobs ended"


@pytest.mark.parametrize("form", ["{}", "ray://{}", "auto"])
def test_an_address_where_no_cluster_is_is_one_line_and_not_after_minutes(form, tmp_path):
    other = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call, and says nothing
        for port, said in ((free_port(), "no Ray cluster answers there: Connection refused"),
                           (other.server_port, "what answers there is no Ray cluster"),
                           (silent.getsockname()[1], "no Ray cluster answered within")):  # fmt: skip
            place = f"127.0.0.1:{port}"
            environment = {"RAY_ADDRESS": place} if form == "auto" else {}
            address = f"launcher.address={form.format(place)}"
            begun = time.monotonic()
            code, out, err = sweep(tmp_path, "task=adding", "model=rnn", "launcher=ray", address, env=environment)
            assert (code, out, len(err.splitlines())) == (2, "", 1), err
            assert err.startswith(f"error: {address}")
            assert f": {said}" in err
            assert time.monotonic() - begun < 120  # not Ray's minutes; that of the rest is the command's own start
    other.shutdown()
    other.server_close()
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


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
