"""Under Slurm, a run that was told to stop before its end asks to be started again; it goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def requeue(stopped_by: signal.Signals) -> None:
    """Ask Slurm for another turn of this batch job, if it is one and a signal of Slurm's (USR2, TERM) stopped it.

    Where submitit started the job, it asks itself.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal() or "SUBMITIT_EXECUTOR" in os.environ or stopped_by == signal.SIGINT:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    how = f"could not be requeued: {problem}" if problem else "requeued; it goes on where it stopped"
    print(f"Slurm job {job} {how}", file=sys.stderr)
