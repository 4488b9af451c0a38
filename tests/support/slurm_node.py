"""A real Slurm of one node on 127.0.0.1, as root, in a folder of its own: started, used, and gone without a trace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=8
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize={max_array_size}
MaxJobCount={max_job_count}
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1500
ReturnToService=2
KillWait=30
MinJobAge={min_job_age}
SchedulerParameters=sched_interval=2,sched_min_interval=0,batch_sched_delay=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=DEFAULT Nodes={host} MaxTime=INFINITE State=UP PreemptMode=OFF
PartitionName=debug Default=YES
PartitionName=short MaxTime=30
PartitionName=graceful PriorityTier=1 GraceTime=30 PreemptMode=REQUEUE
PartitionName=sudden PriorityTier=1 GraceTime=0 PreemptMode=REQUEUE
PartitionName=first PriorityTier=10
"""


def why_not() -> str:
    """Why Slurm can't be started here; empty if it can."""
    missing = [program for program in PROGRAMS if not which(program)]
    if missing:
        return f"needs Debian's slurm-wlm and munge ({', '.join(missing)} not found)"
    return "" if os.geteuid() == 0 else "Slurm is started as root here"


def which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextlib.contextmanager
def slurm_node(max_array_size=1001, max_job_count=10_000, min_job_age=300):
    """The environment in which commands reach the cluster. Raises: RuntimeError if it doesn't come up.

    Partitions: `debug`; `short`, with a time limit of half an hour; `graceful` and `sudden`, whose jobs give way to
    those of `first`, with 30 seconds and at once. A job that was queued again begins some ten seconds later.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path takes 107 characters
    processes: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    try:
        limits = {"max_array_size": max_array_size, "max_job_count": max_job_count, "min_job_age": min_job_age}
        start(folder, processes, environment, **limits)
        yield environment
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", "--full", "--user=root"], env=environment, timeout=20, capture_output=True)
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in users_of(folder):  # slurmstepd, and jobs that didn't go
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def start(folder, processes, environment, **limits):
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    folder.chmod(0o755)  # munged insists on a socket that clients can reach
    ports = {"controller": free_port(), "node": free_port()}
    text = CONFIGURATION.format(folder=folder, host=socket.gethostname(), **ports, **limits)
    (folder / "slurm.conf").write_text(text)
    (folder / "slurm.conf").chmod(0o644)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge.{name}" for option, name in files.items()]
    daemons = (
        ["munged", "--foreground", *munge, "--num-threads=2"],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    )
    for name, *arguments in daemons:
        with (folder / f"{name}.out").open("wb") as log:
            program = [which(name), *arguments]
            processes.append(subprocess.Popen(program, env=environment, stdout=log, stderr=log))
        if name == "munged":
            wait_until(lambda: (folder / "munge.socket").exists(), folder, processes)
    wait_until(lambda: idle(environment), folder, processes)


def idle(environment) -> bool:
    line = ["sinfo", "--noheader", "--partition=debug", "--format=%T"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=30)
    return done.stdout.strip() == "idle"


def wait_until(true, folder, processes, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        dead = [process.args for process in processes if process.poll() is not None]
        if dead or time.monotonic() > end:
            logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in folder.glob("*.log"))
            outs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in folder.glob("*.out"))
            raise RuntimeError(f"Slurm did not start; ended: {dead}\n{logs}\n{outs}")
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def users_of(folder) -> list[int]:
    """Processes with the folder in their environment or command line: whatever the cluster has started."""
    wanted, found = str(folder).encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(place.name) != os.getpid() and (
                wanted in (place / "environ").read_bytes() or wanted in (place / "cmdline").read_bytes()
            ):
                found.append(int(place.name))
    return found
