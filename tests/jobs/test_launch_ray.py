"""launcher=ray: on a cluster of two workers on this machine, and on one that is there, of several nodes."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
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

from rnnlstm.record.files import read_json
from rnnlstm.train import main

from support.slurm_node import free_port
from support.sweeping import FAULTY, LONG, PACED, assert_same_runs, ended, in_turn, running, statuses, sweep, wait_for

pytest.importorskip("ray", reason="needs rnnlstm[ray]")
pytestmark = pytest.mark.ray
RAY = ("launcher=ray", "launcher.workers=2")
#: The cluster is reached from this machine alone, and asks for no token.
CLUSTER = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def test_a_sweep_survives_its_jobs_and_the_others_are_the_same(tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    jobs = ("plugins=[faulty]", "task=faulty", "train.steps=30")
    code, out, err = sweep(tmp_path, *jobs, "task.fault=kill,raise,none", *RAY, threads=None)
    assert code == 1, err
    assert statuses(tmp_path) == {"kill": "failed", "raise": "failed", "none": "done"}
    assert "its process was killed by SIGKILL (out of memory?)" in err
    assert "ArithmeticError: made to fail" in err
    assert ended(out) == "3 of 3 jobs ended, 2 failed"
    assert (tmp_path / "threads").read_text().split() == ["1"]
    in_turn(tmp_path, *jobs, "runs_root=alone")
    assert_same_runs(tmp_path / "runs", tmp_path / "alone", seeds=1, others=2)


def test_ctrl_c_saves_every_job_and_nothing_stays(tmp_path):
    jobs = ("task=adding", "model=rnn,lstm,gru", *LONG, "train.steps=1000000")
    process = running(tmp_path, *jobs, *RAY, env={"STARTED_BY": str(tmp_path)})
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=2)  # two at a time
    assert listening(tmp_path, process.pid) == {"127.0.0.1"}
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert err == "stopped by SIGINT; what was reached is saved, the same command resumes\n"
    assert ended(out) == "0 of 3 jobs ended, 2 stopped, 1 not begun"
    assert sorted(statuses(tmp_path).values()) == ["interrupted", "interrupted"]
    assert not (tmp_path / "runs" / ".launch").exists()
    assert not listening(tmp_path, process.pid)


class Cluster:
    """A head without cores, and nodes with one each, on 127.0.0.1."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._processes: list[subprocess.Popen[bytes]] = []
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

    def node(self, cores=1):
        return self.start(f"--address={self.address}", f"--num-cpus={cores}")

    @staticmethod
    def kill(node):
        """Its raylet alone, as when a machine is lost."""
        (raylet,) = [
            pid for pid in session(node.pid) if "raylet/raylet" in (Path(f"/proc/{pid}/cmdline").read_text())
        ]
        os.kill(raylet, signal.SIGKILL)

    def close_nodes(self):
        for process in self._processes[:0:-1]:  # the head is the first
            self._end(process)

    @staticmethod
    def _end(process):
        for pid in [*session(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def close(self):
        self.close_nodes()
        for process in self._processes[:1]:
            self._end(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def session(leader):
    """The processes in the session of a process."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((place / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(place.name))
    return found


@pytest.fixture(scope="module")
def head():
    found = Cluster()
    try:
        found.head()
        yield found
    finally:
        found.close()


@pytest.fixture
def cluster(head):
    yield head
    head.close_nodes()


def node_of(nodes, folder):
    """The node on which the job with this run folder trains; None if it does on none of them."""
    with contextlib.suppress(ValueError, OSError):
        pid = int((folder / ".lock").read_text().partition('"pid": ')[2].partition(",")[0])
        return next((node for node in nodes if pid in session(node.pid)), None)


def until(holds):
    end = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_lost_node_of_a_cluster_that_is_there(cluster, tmp_path):
    """One node stays with its job. Another is lost with two jobs; both go on elsewhere, until that is lost, too."""
    (tmp_path / "paced.py").write_text(PACED)
    nodes = [cluster.node(), cluster.node(cores=2)]
    jobs = ("plugins=[paced]", "task=paced", "model=rnn", "train.steps=200", "checkpoint.every=5", "probe=off")
    there = ("launcher=ray", f"launcher.address={cluster.address}")
    process = running(tmp_path, *jobs, "task.until=a,b,c", *there, env=CLUSTER)
    wait_for(tmp_path, "runs/*/*/checkpoints/*.pt", process, count=3)
    at = {folder: node_of(nodes, folder) for folder in tmp_path.glob("runs/*/rnn*")}
    stays, lost = nodes
    assert [list(at.values()).count(node) for node in (stays, lost)] == [1, 2]
    first, second = (folder for folder, node in at.items() if node is lost)
    cluster.kill(lost)
    other = cluster.node(cores=2)
    until(lambda: node_of([other], first) and node_of([other], second))
    finished = [folder for folder in at if folder is not second]
    for folder in finished:
        (tmp_path / until_of(folder)).touch()
    said, open_ = [], {folder.name for folder in finished}
    while open_:  # until the command knows of both
        said.append(process.stdout.readline())
        assert said[-1], process.communicate()[1]
        if re.match(r"\[\d/3\] (?!.*: started$)", said[-1]):  # what became of a job; others are notes, and starts
            open_ -= {name for name in open_ if name in said[-1]}
    cluster.kill(other)
    out, err = process.communicate(timeout=120)
    out = "".join(said) + out
    assert process.returncode == 1, err
    assert len([line for line in out.splitlines() if "its worker was lost" in line and "sent again" in line]) == 2
    assert "raylet" not in out
    assert "its worker was lost twice" in err
    assert len(err.splitlines()) == 1
    assert ended(out) == "3 of 3 jobs ended, 1 failed"
    found = {folder: read_json(folder / "seed_0" / "summary.json")["status"] for folder in at}
    assert found == {folder: "interrupted" if folder is second else "done" for folder in at}
    in_turn(tmp_path, *jobs, f"task.until={','.join(map(until_of, finished))}", "runs_root=alone")
    assert_same_runs(tmp_path / "runs", tmp_path / "alone", seeds=2, others=1)


def until_of(folder):
    return folder.name.partition("until-")[2].partition("_")[0]


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
    assert ended(out) == "1 of 1 jobs ended"


class Silent(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        """It would go to standard error, which is the command's here."""


@pytest.mark.parametrize("form", ["{}", "ray://{}", "auto"])
def test_an_address_where_no_cluster_is_is_one_line(form, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rnnlstm.jobs.ray.ANSWER_SECONDS", 0.5)
    other = http.server.HTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call, and says nothing
        for port, said in ((free_port(), "no Ray cluster answers there: Connection refused"),
                           (other.server_port, "what answers there is no Ray cluster"),
                           (silent.getsockname()[1], "no Ray cluster answered within 0.5 s")):  # fmt: skip
            place = f"127.0.0.1:{port}"
            if form == "auto":
                monkeypatch.setenv("RAY_ADDRESS", place)
            address = f"launcher.address={form.format(place)}"
            jobs = ("task=adding", "model=rnn", f"runs_root={tmp_path / 'runs'}")
            assert main(["-m", *jobs, "launcher=ray", address]) == 2
            out, err = capsys.readouterr()
            assert (out, len(err.splitlines())) == ("", 1), err
            assert err.startswith(f"error: {address}")
            assert f": {said}" in err
    other.shutdown()
    other.server_close()
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def listening(place, command):
    """Addresses at which the command and processes of its Ray listen; another test's may run beside it."""
    mine, mark = set(), f"STARTED_BY={place}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.name == str(command) or mark in (process / "environ").read_bytes():
                mine |= {str(file.readlink()) for file in (process / "fd").iterdir()}
    lines = [x.split() for table in ("tcp", "tcp6") for x in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    found = {x[1].partition(":")[0] for x in lines if x[3] == "0A" and f"socket:[{x[9]}]" in mine}
    names = {"0100007F": "127.0.0.1", "0000000000000000FFFF00000100007F": "127.0.0.1"}
    return {names.get(address, address) for address in found}
