"""Is a run that calls itself running still run by anyone? Looked up without touching its lock.

To try the lock would be the obvious test, but a training command that starts at that very moment would find it taken
and give up. So a reader looks at who wrote it: a process on this machine that is there and has the file open.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnlstm.record.files import LOCK


def settled(folder: Path, summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summaries of a run folder, `stopped` in place of `running` where its process is known to be gone."""
    if not any(summary.get("status") == "running" for summary in summaries) or held(folder) is not False:
        return list(summaries)
    return [{**s, "status": "stopped"} if s.get("status") == "running" else s for s in summaries]


def held(folder: Path) -> bool | None:
    """Whether a process holds the run folder; None if that can't be known: it ran on another machine, or the lock
    is just being taken."""
    path = folder / LOCK
    try:
        holder = json.loads(path.read_bytes()[:4096])
        pid, host = int(holder["pid"]), holder["host"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if host != socket.gethostname() or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return None
    return _has_open(pid, path)


def _has_open(pid: int, path: Path) -> bool | None:
    """Whether a process has the file open: another one may have got the number of one that has ended."""
    try:
        entries = list(Path(f"/proc/{pid}/fd").iterdir())
        wanted = path.stat()
    except OSError:  # no such folder on this system, or another user's
        return None
    for entry in entries:
        try:
            found = entry.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
