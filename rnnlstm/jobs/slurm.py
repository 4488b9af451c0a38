"""Jobs as elements of Slurm arrays: how they are submitted and watched from the command, and what runs on a node.

Slurm is asked by its own commands: `sbatch` takes arrays, `squeue` tells how they stand, `scancel` ends them. On a
node `python -m rnnlstm.jobs.slurm FOLDER UNIT` trains a unit. A job that is told that its time is nearly over, or
that others need its node, saves and has itself queued again.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from rnnlstm.config.errors import BusyError, ConfigError, JobError, LostError, OptionError, writing
from rnnlstm.config.schema import SLURM_NAMES, SlurmOptions, cores
from rnnlstm.jobs.failures import mark_failed
from rnnlstm.jobs.job import Job
from rnnlstm.jobs.launcher import Ending, Look, Unit, most_threads
from rnnlstm.jobs.sweep_folder import BEGUN, LIMIT, NEWS, OVER, SUBMITTED, SweepFolder, search_path
from rnnlstm.record.files import locked, read_json, write_json
from rnnlstm.training.signals import Outcome, StopFlag

ARRAYS = "arrays.json"  #: in the sweep's folder
LOOK_SOON, LOOK_EVERY, LOOK_SELDOM = 2.0, 30.0, 120.0  # seconds between questions to Slurm
QUIET = 600.0  # seconds without any news, after which it is asked seldom
#: Seconds after which a job that has left the queue will leave no result any more; shared folders show files late.
PATIENCE = 10.0
MOST_ELEMENTS = 100_000  # of an array

#: Slurm's reasons for which a job waits, and what to do about them.
REASONS = {
    "Resources": "until nodes are free",
    "Priority": "others come first",
    "Dependency": "for another job",
    "BeginTime": "Slurm holds a job back for two minutes once it was queued again",
    "JobArrayTaskLimit": "launcher.array_parallelism of an array run at a time",
    "PartitionTimeLimit": "launcher.time is above the partition's limit",
    "PartitionNodeLimit": "more nodes or cores than the partition has",
    "PartitionDown": "the partition is down; see sinfo",
    "PartitionInactive": "the partition is inactive; see sinfo",
    "NodeDown": "the node is down; see sinfo",
    "ReqNodeNotAvail": "the nodes asked for are down or reserved; see sinfo",
    "Reservation": "for the reservation's begin",
    "BadConstraints": "no node has what was asked for",
    "Licenses": "for a licence",
    "JobHeldUser": "held; scontrol release lets it go",
    "JobHeldAdmin": "held by an administrator",
    "Cleaning": "until its last turn has been cleaned up",
}
LIMITS = re.compile(r"(Assoc|QOS|Max).*(Limit|Max|Per)")  # of an account or a quality of service
FULL = re.compile(r"temporarily unable to accept|MaxJobCount|job submit limit|MaxSubmit", re.IGNORECASE)
FULL_MEANS = "the cluster (MaxJobCount) or the account has as many jobs as it may; tried again every 30 seconds"
ARRAY_TOO_LARGE = re.compile(r"invalid job array specification", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(r"exceeded (?:job |step )?memory limit|oom[-_ ]kill|out of memory", re.IGNORECASE)


def check_slurm(jobs: Sequence[Job]) -> None:
    """Raises: ConfigError if Slurm can't be used here."""
    if not shutil.which("sbatch"):
        raise ConfigError("launcher=slurm: this machine has no sbatch; start the command where Slurm's are")
    if any(job.config.job_timeout is not None for job in jobs):
        rule = "with launcher=slurm the time limit is launcher.time"
        raise OptionError("job_timeout", jobs[0].config.job_timeout, rule)


@dataclass(frozen=True)
class Array:
    """An array in the queue. Its elements are units, less `base`."""

    number: str
    base: int


class Slurm:
    """The units of a command in Slurm's queue, seen from the command. `name` is a search's."""

    pause = 1.0

    def __init__(self, jobs: Sequence[Job], name: str = "") -> None:
        options = jobs[0].config.launcher
        assert isinstance(options, SlurmOptions)
        self._options, self._threads = options, most_threads(jobs)
        self.folder = SweepFolder.of(jobs, name)
        self._arrays: list[Array] = []
        self._units: dict[int, Unit] = {}  # those that have not ended
        self._unsent: list[int] = []  # those that the queue had no room for
        self._queue: dict[int, Element] = {}
        self._begun: set[int] = set()
        self._over: set[int] = set()  # units whose process has ended
        self._absent: dict[int, float] = {}  # since when a unit has not been in the queue
        self._asked = self._news = self._tried = time.monotonic()
        self._looks = 0
        self._most = options.array_size  # elements of the next array
        self._full = False  # the queue, as the user knows
        self._refused: list[tuple[int, Ending]] = []
        self._stopped: float | None = None  # when
        self._told_to_stop: signal.Signals | None = None  # the stop that this command, or another, has asked for
        self._notes: list[str] = []
        self._reasons: set[str] = set()  # that the user knows of
        self._keep = False  # the logs

    def __enter__(self) -> Self:
        self._held = ExitStack()
        self._held.enter_context(self.folder.held())
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        left = bool(self._units and self._arrays) if self._stopped is None else bool(self._queue)
        if not left and not self._keep:
            self.folder.remove()
        self._held.close()

    def submit(self, units: Sequence[Unit]) -> None:
        """Send units, except those that an earlier command has sent and that are still in the queue."""
        self._units |= {unit.number: unit for unit in units}
        if not self._arrays:
            self._arrays = _read_arrays(self.folder)
            self._find()
        new = [unit for unit in units if unit.number not in self._queue]
        with writing(f"to {self.folder.path}"):
            if new:
                self.folder.begin(new)
        self._unsent += [unit.number for unit in new]
        self._send()

    def look(self, seconds: float) -> Look:
        if not self._notes:
            time.sleep(seconds)
        now = time.monotonic()
        if self._told_to_stop is None:
            self._told_to_stop = self.folder.asked_to_stop()
        self._listen(now)
        look = Look(ended=[*self._refused])
        self._refused = []
        for unit in sorted(self._over):
            look.ended += self._endings(unit, now)
        if now - self._asked >= self._interval(now):
            self._ask(now)
            if self._unsent and self._stopped is None and now - self._tried >= LOOK_EVERY:
                self._send()
        for unit in list(self._absent):
            look.ended += self._endings(unit, now)
        states = [(self._state(number), unit.jobs) for number, unit in self._units.items()]
        look.running = [number for state, jobs in states if state == "running" for number, _ in jobs]
        look.waiting = Counter(state for state, jobs in states if state != "running" for _ in jobs)
        look.settled = self._stopped is not None and self._asked > self._stopped and not self._queue
        look.notes, self._notes = self._notes, []
        return look

    def stop(self, number: signal.Signals) -> None:
        """Those that wait go; those that run are told to stop (TERM), and killed after Slurm's KillWait."""
        self._stopped, self._told_to_stop = time.monotonic(), number
        self.folder.ask_to_stop(number)
        _cancel(self._arrays)

    def leave(self) -> list[str] | None:
        if self._options.wait:
            return None
        notes, self._notes = self._notes, []
        if self._unsent:
            notes.append(f"{_jobs(len(self._unsent))} could not be submitted yet; the same command does")
        arrays = " ".join(array.number for array in self._arrays)
        notes.append("the same command without launcher.wait=false watches these jobs")
        notes.append(f"to end them: the same command with launcher.cancel=true, or scancel {arrays}")
        return notes

    # What becomes of units

    def _state(self, unit: int) -> str:
        element = self._queue.get(unit)
        if element is None or element.state == "PENDING":
            held = element is not None and "held" in element.reason.lower()
            return "held" if held else "requeued" if element is not None and unit in self._begun else "waiting"
        return "running"

    def _listen(self, now: float) -> None:
        for unit, word in self.folder.news():
            if unit in self._units:
                self._news = now
                if word == BEGUN:
                    self._begun.add(unit)
                    self._queue.setdefault(unit, Element("", "RUNNING", ""))
                    self._queue[unit] = replace(self._queue[unit], state="RUNNING")
                elif word == OVER:
                    self._over.add(unit)
                elif word == SUBMITTED:  # what was read so far was of an earlier command
                    self._begun.discard(unit)
                    self._over.discard(unit)
                    self._queue[unit] = Element("", "PENDING", "")

    def _interval(self, now: float) -> float:
        """Seconds between two questions to Slurm."""
        if self._told_to_stop is not None or self._over or self._looks < 2:
            return LOOK_SOON
        return LOOK_EVERY if now - self._news < QUIET else LOOK_SELDOM

    def _find(self) -> None:
        """Take what an earlier command has left in the queue."""
        if not self._arrays:
            return
        queue = _queue(self._arrays)
        if queue is None:
            raise ConfigError("launcher=slurm: squeue can't be asked what has become of jobs that were sent before")
        self._queue = {unit: element for unit, element in queue.items() if unit in self._units}
        alive = {element.array for element in queue.values()}
        self._arrays = [array for array in self._arrays if array.number in alive]
        self._begun |= {unit for unit, element in self._queue.items() if element.state != "PENDING"}
        if self._queue:
            arrays = " ".join(array.number for array in self._arrays)
            self._notes.append(f"{len(self._queue):,} of these jobs are in the queue already (array {arrays})")

    def _ask(self, now: float) -> None:
        arrays = [array for array in self._arrays if array.number in self._living()]
        queue = _queue(arrays) if arrays else {}
        self._asked, self._looks = now, self._looks + 1
        if queue is None:
            if "squeue" not in self._reasons:
                self._reasons.add("squeue")
                self._notes.append("squeue does not answer; it is asked again, and the jobs go on meanwhile")
            return
        self._reasons.discard("squeue")
        if queue != self._queue:
            self._news = now
        self._queue = queue
        sent = self._units.keys() - set(self._unsent)
        self._absent = {unit: self._absent.get(unit, now) for unit in sent if unit not in queue}
        if still := self._over & queue.keys():  # it completes, or was queued again: the next looks tell
            self._over -= still
            self._looks = 0
        self._begun |= {unit for unit, element in queue.items() if element.state != "PENDING"}
        waiting = Counter(e.reason for unit, e in queue.items() if e.state == "PENDING" and unit in self._units)
        new = {reason for reason in waiting if reason not in self._reasons and reason != "None"}
        self._reasons |= new
        self._notes += [_wait(waiting[reason], reason) for reason in sorted(new)]

    def _living(self) -> set[str]:
        """Arrays that have elements which have not ended."""
        size = {array.number: array.base for array in self._arrays}
        return {number for number, base in size.items() if any(base <= u < base + MOST_ELEMENTS for u in self._units)}

    def _endings(self, unit: int, now: float) -> Iterator[tuple[int, Ending]]:
        """How the jobs of a unit have ended, once that is certain."""
        gone = unit in self._absent and (self._told_to_stop is not None or now - self._absent[unit] >= PATIENCE)
        jobs = self._units[unit].jobs if unit in self._units else ()
        found = [(number, job, self._ending(number, job)) for number, job in jobs]
        if not gone and any(ending is None for _, _, ending in found):
            return
        for number, job, ending in found:
            if ending is None and self._told_to_stop is not None:
                if self._stopped is not None and unit not in self._begun:
                    continue
                ending = Outcome(job.folder, job.summaries(), self._told_to_stop)
            yield number, ending or self._lost(unit, job)
        self._units.pop(unit, None)
        self._over.discard(unit)
        self._absent.pop(unit, None)
        self._queue.pop(unit, None)

    def _ending(self, number: int, job: Job) -> Ending | None:
        if (failure := self.folder.failure(number)) is not None:
            return failure
        with suppress(Exception):  # a damaged summary is the job's to tell
            if job.finished():
                return Outcome(job.folder, job.summaries())
        return None

    def _lost(self, unit: int, job: Job) -> Exception:
        """Why a unit has left the queue without a result."""
        self._keep = True
        array = next((a for a in reversed(self._arrays) if 0 <= unit - a.base < MOST_ELEMENTS), None)
        element = f"{array.number}_{unit - array.base}" if array else "?"
        log = self.folder.logs / f"{element}.log"
        with suppress(OSError):
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - 65_536))
                text = file.read().decode(errors="replace")
            if OUT_OF_MEMORY.search(text):
                return _out_of_memory(self._options, log)
        return _why_gone(element, log, self._options)

    # Submitting

    def _send(self) -> None:
        """Submit what has not been, as far as the queue has room.

        Raises: ConfigError if Slurm refuses for another reason, and nothing has been submitted.
        """
        self._tried = time.monotonic()
        while self._unsent:
            size = self._options.array_size
            block = self._unsent[0] // size
            units = [unit for unit in self._unsent if unit // size == block][: self._most]
            number, problem = _sbatch(self._command(units, block * size), self._script(block * size))
            if number is None and FULL.search(problem):
                self._most = max(1, len(units) // 2)
                if len(units) > 1:
                    continue
                if not self._full:
                    self._full = True
                    self._notes.append(
                        f"{_jobs(len(self._unsent))} can't be submitted yet, as {FULL_MEANS}: {problem}"
                    )
                return
            if number is None:
                if ARRAY_TOO_LARGE.search(problem):
                    problem += f"; launcher.array_size={size} is above the cluster's MaxArraySize{_max_array_size()}"
                if not self._arrays:
                    raise ConfigError(f"launcher=slurm: nothing could be submitted: {problem}")
                for unit in self._unsent:
                    error = JobError(f"could not be submitted: {problem}")
                    self._refused += [(number, error) for number, _ in self._units.pop(unit).jobs]
                self._unsent = []
                return
            self._full = False
            self._arrays.append(Array(number, block * size))
            with writing(f"to {self.folder.path}"):
                write_json(self.folder.path / ARRAYS, {"arrays": [vars(array) for array in self._arrays]})
            self._unsent = [unit for unit in self._unsent if unit not in set(units)]
            self._queue |= {unit: Element(number, "PENDING", "") for unit in units}
            self._most = min(2 * self._most, size)
            self._looks = 0
            self._notes.append(
                f"submitted {_jobs(len(units))} as array {number} (rnnlstm); logs in {self.folder.logs}"
            )

    def _command(self, units: Sequence[int], base: int) -> list[str]:
        o = self._options
        values: dict[str, Any] = {
            "job-name": "rnnlstm",
            "array": f"{_ranges([unit - base for unit in units])}%{o.array_parallelism}",
            "output": str(self.folder.logs / "%A_%a.log").replace("%", "%%").replace("%%A_%%a", "%A_%a"),
            "open-mode": "append",
            "time": o.time,
            "signal": f"USR2@{o.signal_seconds}",
            "ntasks": 1,
            "cpus-per-task": max(o.cpus, self._threads),
            "mem": o.memory,
            "gpus-per-node": o.gpus or None,
            **{key: getattr(o, key) for key in (*SLURM_NAMES, "gres")},
            **o.sbatch,
        }
        words = [
            f"--{key}={value}" if value is not True else f"--{key}"
            for key, value in values.items()
            if value is not None
        ]
        return ["sbatch", "--parsable", "--requeue", *words]

    def _script(self, base: int) -> str:
        """The shell that Slurm runs waits for its job when it is told to end, and tells the command in any case."""
        unit = f"$(({base} + SLURM_ARRAY_TASK_ID))"
        python = shlex.join([sys.executable, "-m", "rnnlstm.jobs.slurm", str(self.folder.path)])
        news = shlex.quote(str(self.folder.path / NEWS))
        lines = [
            "#!/bin/bash",
            f"export PYTHONPATH={shlex.quote(search_path())}",
            *self._options.setup,
            "trap : INT TERM USR2",
            f'srun --unbuffered --cpus-per-task="${{SLURM_CPUS_PER_TASK:-1}}" {python} "{unit}"',
            "code=$?",
            f'echo "{unit} {OVER}" >>{news}',
            "exit $code",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Element:
    """An element of an array in the queue."""

    array: str
    state: str
    reason: str


def cancel(jobs: Sequence[Job], name: str = "") -> str:
    """End what a sweep, or the search with that name, has in the queue, and wait until it has saved.

    Returns a line for the user.
    """
    check_slurm(jobs)
    folder = SweepFolder.of(jobs, name)
    arrays = _read_arrays(folder)
    queue = _queue(arrays) if arrays else {}
    if not queue:
        return "none of these jobs is in the queue"
    with writing(f"to {folder.path}"):
        folder.ask_to_stop(signal.SIGTERM)
    _cancel(arrays)
    end = time.monotonic() + 2 * LOOK_EVERY
    while _queue(arrays) and time.monotonic() < end:
        time.sleep(LOOK_SOON)
    with suppress(BusyError), locked(folder.path):  # else a command that watches them removes it
        folder.remove()
    return f"cancelled {_jobs(len(queue))}; those that were running have saved"


def _read_arrays(folder: SweepFolder) -> list[Array]:
    entries = (read_json(folder.path / ARRAYS) or {}).get("arrays", [])
    return [Array(str(entry["number"]), int(entry["base"])) for entry in entries]


def _queue(arrays: Sequence[Array]) -> dict[int, Element] | None:
    """The units in the queue in any state but ended; None if Slurm can't be asked now."""
    bases = {array.number: array.base for array in arrays}
    done = _ask("squeue", "--noheader", "--format=%F|%K|%T|%r", f"--jobs={','.join(bases)}")
    if done is None or done.returncode:
        forgotten = done is not None and "Invalid job id" in done.stderr
        return {} if forgotten else None
    found = {}
    for line in done.stdout.splitlines():
        number, elements, state, reason = [*line.split("|", 3), "", "", ""][:4]
        if number in bases:
            for index in _indices(elements):
                found[bases[number] + index] = Element(number, state, reason)
    return found


def _indices(text: str) -> Iterator[int]:
    """The indices in `0-99,105,200-298:2%10`."""
    for part in text.partition("%")[0].strip("[]").split(","):
        ends, _, step = part.partition(":")
        first, _, last = ends.partition("-")
        if first.isdecimal():
            yield from range(int(first), int(last or first) + 1, int(step or 1))


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in ascending order as `0-99,105`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _cancel(arrays: Sequence[Array]) -> None:
    if arrays:
        _ask("scancel", *(array.number for array in arrays))


def _sbatch(command: Sequence[str], script: str) -> tuple[str | None, str]:
    """The number of the new array, or None and why there is none. Slurm has sbatch try for minutes where its queue is
    full: then it is ended, before it tries again."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as errors:
        given.write(script)
        given.seek(0)
        process = subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )

        def said() -> str:
            return os.pread(errors.fileno(), 65_536, 0).decode(errors="replace")

        while process.poll() is None:
            if "retrying" in said():
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        assert process.stdout is not None
        with process.stdout as output:
            number = output.read().strip().partition(";")[0]
        problem = "; ".join(line.removeprefix("sbatch: error: ") for line in said().splitlines())
    return (number, "") if number.isdecimal() else (None, problem or "sbatch printed no number")


def _max_array_size() -> str:
    done = _ask("scontrol", "show", "config")
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", done.stdout) if done else None
    return f"={found[1]}" if found else ""


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"


def _wait(count: int, reason: str) -> str:
    """`3 jobs wait: Priority (others come first)`."""
    word = reason.partition(",")[0].strip("() ")
    known = REASONS.get(word) or ("a limit of the account or of the quality of service" if LIMITS.match(word) else "")
    return f"{_jobs(count)} {'waits' if count == 1 else 'wait'}: {reason}{f' ({known})' if known else ''}"


def _why_gone(element: str, log: Path, options: SlurmOptions) -> Exception:
    done = _ask("scontrol", "--oneliner", "show", "job", element)
    state = _field("JobState", done.stdout) if done else ""
    place = f" (see {log})"
    if state == "OUT_OF_MEMORY":
        return _out_of_memory(options, log)
    if state == "NODE_FAIL":
        return LostError(f"its node failed{place}")
    if state in ("CANCELLED", "PREEMPTED"):
        return LostError(f"its Slurm job was {state.lower()}{place}")
    if state == "TIMEOUT":
        early = f"launcher.signal_seconds={options.signal_seconds} were too few to save"
        return JobError(f"its Slurm job reached launcher.time={options.time}, and {early}{place}")
    code = _field("ExitCode", done.stdout) if done else ""
    how = f", {state.lower()} with exit code {code}" if state else ""
    return JobError(f"its Slurm job was cancelled, or ended without a word{how}{place}")


def _out_of_memory(options: SlurmOptions, log: Path) -> JobError:
    memory = "null (the cluster's default)" if options.memory is None else options.memory
    return JobError(f"Exceeded job memory limit: launcher.memory={memory} (see {log})")


def _field(name: str, text: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", text)
    return found[1] if found else ""


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    whole = {**os.environ, "SLURM_BITSTR_LEN": "0"}  # indices of an array in full
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=whole, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


# On a node


def main() -> int:
    """Train a unit: `python -m rnnlstm.jobs.slurm FOLDER UNIT`."""
    with StopFlag() as stop:  # before torch is imported, which takes seconds
        folder, unit = SweepFolder(Path(sys.argv[1])), int(sys.argv[2])
        again = BEGUN in folder.words(unit)
        folder.say(BEGUN, unit)
        from rnnlstm.jobs.process import train_here

        for number, job in folder.unit(unit).jobs:
            ending: Ending = Outcome(job.folder, [], stop.signal)
            if stop.signal is None and folder.asked_to_stop() is None:
                try:
                    ending = train_here(_for_node(job, again))
                except Exception as error:
                    ending = error
                    with suppress(Exception):
                        mark_failed(job, error)
            if isinstance(ending, Outcome) and (ending.stopped_by or folder.asked_to_stop()):
                problem = _stopped(folder, unit, job, ending.stopped_by)
                if problem is None:
                    return 0
                ending = problem
                mark_failed(job, problem)
            if isinstance(ending, Exception):
                folder.fail(number, ending)
    return 0


def _for_node(job: Job, again: bool) -> Job:
    """`again`: it has begun before, so what is there is its own."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    threads = min(cores(), int(given)) if given.isdecimal() else cores()
    overwrite = job.config.overwrite and not again
    config = replace(job.config, threads=job.config.threads or threads, overwrite=overwrite)
    return replace(job, config=config)


def _stopped(folder: SweepFolder, unit: int, job: Job, by: signal.Signals | None) -> Exception | None:
    """The job has saved. It is queued again, unless its user wanted it stopped; or this is why it isn't."""
    if by is None or folder.asked_to_stop() is not None:
        return None
    options = job.config.launcher
    if by == signal.SIGUSR2 and isinstance(options, SlurmOptions):
        if folder.words(unit).count(LIMIT) >= options.max_requeues:
            often = f"launcher.time={options.time} and launcher.max_requeues={options.max_requeues}"
            return JobError(f"not finished within {often} (saved; the same command resumes it)")
        folder.say(LIMIT, unit)
    queue_again(by)
    return None


def queue_again(stopped_by: signal.Signals) -> None:
    """Have Slurm run this batch job again, if Slurm stopped it: ahead of its time limit (USR2), or because others
    need the node (TERM, which a cancelled job gets, too). Says so on stderr; outside Slurm it does nothing.
    """
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal() or stopped_by == signal.SIGINT:
        return
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job += f"_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    if stopped_by == signal.SIGTERM:
        shown = _ask("scontrol", "--oneliner", "show", "job", job)
        state = _field("JobState", shown.stdout) if shown else ""
        if state not in ("RUNNING", "PREEMPTED", "TIMEOUT"):  # cancelled; or Slurm has queued it again already
            _say(f"Slurm job {job} is {state.lower() or 'unknown'}: it asks for no other turn")
            return
    # Said beforehand: Slurm ends a job that it queues again, and this process may not live to see the answer.
    _say(f"Slurm job {job} asks to be requeued; it will resume from its checkpoint")
    done = _ask("scontrol", "requeue", job)
    if done is None or done.returncode:
        _say(f"Slurm job {job} could not be requeued: {done.stderr.strip() if done else 'scontrol failed'}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
