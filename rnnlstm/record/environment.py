"""Where a run was trained: versions and machine, in the run folder's `environment.json`.

Enough to repeat the run or to explain another last digit, and nothing about whose machine it was: no user, no host,
no path. It is no part of the run's identity.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rnnlstm.config import __version__
from rnnlstm.record.files import read_json, write_json

ENVIRONMENT = "environment.json"
COMMANDS = "commands.json"


def note_environment(folder: Path, seeds: Sequence[int], computed_by: Mapping[str, Any]) -> None:
    """Write into `folder` on what the training of these seeds begins: `{"trained": [{"seeds": [0, 1], …}, …]}`.

    Seeds added later, perhaps elsewhere, get an entry of their own. `computed_by` is what PyTorch knows: its version,
    device and threads. Raises: OSError.
    """
    earlier = (read_json(folder / ENVIRONMENT) or {}).get("trained")
    kept = []
    for entry in earlier if isinstance(earlier, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("seeds"), list):
            left = [seed for seed in entry["seeds"] if seed not in seeds]
            kept += [{**entry, "seeds": left}] if left else []
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept.append({"seeds": list(seeds), "began": began, **describe_here(), **computed_by})
    write_json(folder / ENVIRONMENT, {"trained": kept})


def note_command(folder: Path, seed: int, seeds: int, command: str, threads: int | None) -> None:
    """Write into `folder` what asked for its seeds, beside config.yaml, which lacks seed and seeds:
    `{"threads": 1, "commands": [{"seed": 0, "seeds": 3, "command": "python -m rnnlstm.train seeds=3"}, …]}`.

    `threads` are those of the run: whoever resumes it takes them. A command that was given again stands there once.
    Raises: OSError.
    """
    earlier = (read_json(folder / COMMANDS) or {}).get("commands")
    entry = {"seed": seed, "seeds": seeds, "command": command}
    kept = [other for other in earlier if other != entry] if isinstance(earlier, list) else []
    write_json(folder / COMMANDS, {"threads": threads, "commands": [*kept, entry]})


def noted_threads(folder: Path) -> int | None:
    """The threads with which a run began; None if that is unknown."""
    threads = (read_json(folder / COMMANDS) or {}).get("threads")
    return threads if isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= 4096 else None


def plugin_sources(modules: Iterable[str]) -> dict[str, str]:
    """A hash of the source of each imported module that has one, by its name."""
    found = {}
    for name in modules:
        with suppress(OSError, TypeError):
            found[name] = hashlib.sha256(Path(sys.modules[name].__file__ or "").read_bytes()).hexdigest()[:16]
    return found


def changed_plugins(folder: Path, modules: Iterable[str]) -> list[str]:
    """The imported modules whose source is another one than when seeds of the run in `folder` were trained."""
    trained = (read_json(folder / ENVIRONMENT) or {}).get("trained")
    entries = [entry for entry in trained if isinstance(entry, dict)] if isinstance(trained, list) else []
    noted = [entry["plugins"] for entry in entries if isinstance(entry.get("plugins"), dict)]
    return [
        name for name, now in plugin_sources(modules).items() if any(each.get(name, now) != now for each in noted)
    ]


@functools.cache
def describe_here() -> dict[str, Any]:
    """Versions of rnnlstm, Python and NumPy, the checkout's commit, system, processor and cores."""
    return {
        "rnnlstm": __version__,
        "commit": _commit(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "numpy": package_version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def package_version(package: str) -> str | None:
    """The version of an installed package; None if it runs without being installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(package: Path) -> str | None:
    """The checkout's commit, `-dirty` where files were changed; None where this file is in no checkout of its own."""

    def git(*arguments: str) -> str:
        line = ["git", "-C", str(package), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed inside a repository of someone else?
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None


def _processor() -> str | None:
    """The processor's model, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, None) or platform.processor() or None
