"""A folder through which a sweep's jobs on other machines and the command that waits for them know of each other.

It is found again by the same command, since its name follows from the sweep's jobs: `<runs_root>/.launch/<name>/`.
The jobs are in one file, and so is what becomes of them: a line when one begins and one when its process is over. A
line may be lost, where machines append to one file over a network: it makes the command look sooner, and no more.
What counts is the run folder, and a file for a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rnnlstm.config.errors import ConfigError, writing
from rnnlstm.config.schema import read_config
from rnnlstm.jobs.failures import Failure
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.launcher import Unit
from rnnlstm.record.files import locked, read_json, write_json, write_whole
from rnnlstm.record.folders import identity

HIDDEN = ".launch"  #: under runs_root
JOBS, NEWS, STOP, LOGS = "jobs.jsonl", "news", "stop", "logs"
#: Words of the news.
SUBMITTED, BEGUN, LIMIT, OVER = "submitted", "begun", "limit", "over"


def _failure_name(number: int | str) -> str:
    return f"failure-{number}.json"


def search_path() -> str:
    """Where this process looks for modules, as `PYTHONPATH` for others."""
    return os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)


class SweepFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0  # bytes of the news

    @classmethod
    def of(cls, jobs: Sequence[Job], name: str = "") -> SweepFolder:
        """The folder of a command with these jobs, or of a search with that name."""
        root = Path(jobs[0].config.runs_root).expanduser().absolute()
        runs = {str(number): f"{job.folder} {job.config.seed_numbers}" for number, job in enumerate(jobs)}
        return cls(root / HIDDEN / (name or identity(runs)))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this no other command has the sweep, and no earlier stop counts. Raises: BusyError; DiskError."""
        with ExitStack() as held:
            with writing(f"to {self.path}"):
                held.enter_context(locked(self.path))
                (self.path / STOP).unlink(missing_ok=True)
            yield

    @property
    def logs(self) -> Path:
        return self.path / LOGS

    def begin(self, units: Sequence[Unit]) -> None:
        """Write down units that are about to be sent. Raises: OSError."""
        self.logs.mkdir(parents=True, exist_ok=True)
        begun = {_failure_name(number) for unit in units for number, _ in unit.jobs}
        for path in self.path.glob(_failure_name("*")):
            if path.name in begun:
                path.unlink()
        path = self.path / JOBS
        common = _common(path) or dict(units[0].jobs[0][1].config.tree)
        lines = [] if path.exists() else [json.dumps(common)]
        for unit in units:
            jobs = [
                (number, _different(job, common), str(job.folder.absolute()), job.command)
                for number, job in unit.jobs
            ]
            lines.append(json.dumps([unit.number, jobs]))
        with path.open("a") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.say(SUBMITTED, *(unit.number for unit in units))

    def unit(self, number: int) -> Unit:
        """The unit as it was written last. Raises: ConfigError; OSError; ValueError."""
        found = None
        with (self.path / JOBS).open() as file:
            common = json.loads(next(file))
            for line in file:
                if line.startswith(f"[{number}, "):
                    found = line
        if found is None:
            raise ConfigError(f"{self.path} has no job {number}")
        jobs = tuple(
            (k, Job(read_config({**common, **tree}), Path(folder), *command))
            for k, tree, folder, *command in json.loads(found)[1]
        )
        return Unit(number, jobs)

    def say(self, word: str, *units: int) -> None:
        """Raises: OSError."""
        file = os.open(self.path / NEWS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, "".join(f"{unit} {word}\n" for unit in units).encode())
        finally:
            os.close(file)

    def news(self) -> Iterator[tuple[int, str]]:
        """The units, each with its word, since this was asked last."""
        try:
            with (self.path / NEWS).open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except OSError:
            return
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            unit, _, word = line.partition(" ")
            if unit.isdecimal():
                yield int(unit), word

    def words(self, unit: int) -> list[str]:
        """What was said of a unit since it was submitted."""
        words = [word for number, word in SweepFolder(self.path).news() if number == unit]
        last = max((k for k, word in enumerate(words) if word == SUBMITTED), default=-1)
        return words[last + 1 :]

    def fail(self, number: int, error: Exception) -> None:
        """Leave a job's failure for the command. Raises: OSError."""
        write_json(self.path / _failure_name(number), asdict(Failure.of(error)))

    def failure(self, number: int) -> Exception | None:
        found = read_json(self.path / _failure_name(number))
        return Failure(**found).error() if found is not None else None

    def ask_to_stop(self, number: signal.Signals) -> None:
        write_whole(self.path / STOP, number.name.encode())

    def asked_to_stop(self) -> signal.Signals | None:
        try:
            return signal.Signals[(self.path / STOP).read_text()]
        except (OSError, KeyError):
            return None

    def remove(self) -> None:
        """With the folder that held it, unless another sweep's is there."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.path.parent.rmdir()


def _common(path: Path) -> dict[str, Any] | None:
    try:
        with path.open() as file:
            return dict(json.loads(next(file)))
    except (OSError, ValueError, StopIteration):
        return None


def _different(job: Job, common: dict[str, Any]) -> dict[str, Any]:
    """The sections and keys in which a job's configuration is another."""
    return {key: value for key, value in job.config.tree.items() if key not in common or common[key] != value}
