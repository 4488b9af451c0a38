"""A folder through which a sweep's jobs and the command that waits for them talk, wherever the jobs run.

Launchers hand back all results at the very end, or none if one of them is lost, and pass no signals on. A folder that
all can reach is there anyway: the results go to one.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rnnlstm.jobs.failures import Failure
from rnnlstm.record.files import read_json, write_json, write_whole
from rnnlstm.training.signals import Outcome

HIDDEN = ".launch"  #: the one folder under runs_root
STOP = "stop"


@dataclass(frozen=True)
class Letter:
    """How a job has ended: by itself, with a failure, or stopped by a signal. Its summaries are in its run folder."""

    failure: Failure | None = None
    stopped_by: str | None = None
    trained: bool = True

    @classmethod
    def of(cls, ending: Outcome | Exception) -> Letter:
        if isinstance(ending, Exception):
            return cls(Failure.of(ending))
        return cls(None, ending.stopped_by.name if ending.stopped_by else None, ending.trained)


class Letterbox:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, runs_root: Path) -> Letterbox:
        """Raises: OSError."""
        folder = runs_root / HIDDEN / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        folder.mkdir(parents=True)
        return cls(folder.absolute())

    def begin(self, name: str) -> None:
        (self.folder / f"{name}.begun").touch()

    def begun(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.begun")}

    def post(self, name: str, letter: Letter) -> None:
        """Raises: OSError."""
        write_json(self.folder / f"{name}.json", asdict(letter))

    def posted(self) -> set[str]:
        return {path.stem for path in self.folder.glob("[!.]*.json")}

    def letter(self, name: str) -> Letter | None:
        found = read_json(self.folder / f"{name}.json")
        if found is None:
            return None
        failure = found["failure"]
        return Letter(Failure(**failure) if failure else None, found["stopped_by"], found["trained"])

    def ask_to_stop(self, number: signal.Signals) -> None:
        write_whole(self.folder / STOP, number.name.encode())

    def asked_to_stop(self) -> signal.Signals | None:
        try:
            return signal.Signals[(self.folder / STOP).read_text()]
        except (OSError, KeyError):
            return None

    def remove(self) -> None:
        """With the folder that held it, unless another sweep's is there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()
