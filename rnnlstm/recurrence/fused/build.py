"""Builds the native kernel with the machine's own C compiler, once, and loads it.

The library lies in the user's cache. Its name holds a hash of everything it depends on: source, compiler, flags, and
the processor's vector instructions. A home folder shared between machines therefore never hands a processor
instructions that it lacks. The name also holds a hash of the library itself, since loading a damaged one would kill
the process. Without a compiler, or with `RNNLSTM_KERNEL=off`, the portable loops compute.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from rnnlstm.config.errors import ConfigError, printable

LOG = logging.getLogger("rnnlstm")
SOURCES = Path(__file__).with_name("kernel")
REALS = {torch.float32: ("float", 0), torch.float64: ("double", 1)}
SECONDS = 300  # that a compiler may take
REMEDY = "install gcc or clang, or name one in CC"
ELSEWHERE = "name a folder of your own in XDG_CACHE_HOME"
REALISATIONS = ("auto", "native", "triton", "off")  #: of the fused loops: see `engine.py`


def asked() -> str:
    """The realisation that `RNNLSTM_KERNEL` names. Raises: ConfigError if there is none of that name."""
    value = os.environ.get("RNNLSTM_KERNEL", "") or "auto"
    name = "off" if value == "0" else value.lower()
    if name not in REALISATIONS:
        raise ConfigError(f"RNNLSTM_KERNEL={value}: must be one of {', '.join(REALISATIONS)}")
    return name


@functools.cache
def load_kernel(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernel for this precision on this processor; None, and one line that says why, if there is none."""
    if asked() == "off":
        return None
    try:
        return _kernel(dtype)
    except OSError as error:  # the system's has a number, and names no remedy
        reason = str(error) if error.errno is None else f"{error.filename}: {error.strerror}; {ELSEWHERE}"
        say_once(f"the fused backend runs without its native kernel, several times slower: {printable(reason)}")
        return None


def _kernel(dtype: torch.dtype) -> ctypes.CDLL:
    """The kernel, from the cache or compiled now. Raises: OSError."""
    compiler = _compiler()
    real, is_double = REALS[dtype]
    target, width = _target()
    flags = ["-O3", "-std=gnu11", "-fPIC", "-shared", *target]
    flags += [f"-DREAL={real}", f"-DIS_DOUBLE={is_double}", f"-DVBYTES={width}"]
    words = [_run([*compiler, "--version"]), *compiler, *flags]
    parts = [*(os.fsencode(word) for word in words), *(path.read_bytes() for path in sorted(SOURCES.iterdir()))]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = _cache()
    name = f"kernel-{platform.machine()}-{real}-{key}"
    for library in sorted(folder.glob(f"{name}-*.so")):
        fault = _fault(library)
        if fault is None:
            return _load(library, f"delete {library}, and it is compiled again")
        LOG.warning("%s %s: compiled again", printable(str(library)), fault)
        with suppress(OSError):
            library.unlink()
    return _compile(compiler, flags, folder, name)


def _compiler() -> list[str]:
    """The command that compiles C. Raises: OSError."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise OSError(f"CC={os.environ['CC']}: {error}; {REMEDY}") from None
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not named and found is None:
        raise OSError(f"no C compiler was found; {REMEDY}, to get the fast one")
    return named or [str(found)]


def _run(line: list[str]) -> str:
    """What a compiler prints. Raises: OSError if it fails."""
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except OSError as error:
        raise OSError(f"{line[0]} can't be started: {error.strerror}; {REMEDY}") from None
    except subprocess.TimeoutExpired:
        raise OSError(f"{line[0]} took more than {SECONDS} s; {REMEDY}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, without a message"]
        raise OSError(f"{line[0]} could not build it ({said[0]}); {REMEDY}")
    return done.stdout


def _target() -> tuple[list[str], int]:
    """Compiler flags for this processor's vector instructions, and the vectors' width in bytes."""
    capability = torch.backends.cpu.get_cpu_capability()
    if platform.machine() in ("x86_64", "AMD64"):
        if "AVX512" in capability:
            return ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"], 64
        if "AVX2" in capability:
            return ["-mavx2", "-mfma"], 32
    return [], 32


def _cache() -> Path:
    """The folder that keeps libraries: `rnnlstm` in the user's cache. What is loaded from it runs as code.

    Raises: OSError if it can't be made, or another user could put a library there.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the XDG standard says to ignore it
        with suppress(RuntimeError):
            base = Path.home() / ".cache"
    if not base.is_absolute():
        raise OSError(f"there is no home folder to keep it in; {ELSEWHERE}")
    folder = base / "rnnlstm"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (fault := _untrusted(folder.lstat())) is not None:
        raise OSError(f"{folder} {fault}, so no code is loaded from it; {ELSEWHERE}")
    return folder


def _untrusted(info: os.stat_result) -> str | None:
    """Why code from this file or folder could be another user's; None if it is one's own or root's."""
    if stat.S_ISLNK(info.st_mode):
        return "is a link"
    if not hasattr(os, "getuid"):
        return None
    if info.st_uid not in (os.getuid(), 0):
        return "belongs to another user"
    return "can be written to by others" if info.st_mode & 0o022 else None


def _fault(library: Path) -> str | None:
    """Why a library may not be loaded; None if it may. Its name ends in the hash of its content."""
    try:
        info = library.lstat()
        if (fault := _untrusted(info)) is not None:
            return fault
        if not stat.S_ISREG(info.st_mode):
            return "is no file"
        with library.open("rb") as file:
            intact = library.stem.endswith(f"-{hashlib.file_digest(file, 'sha256').hexdigest()}")
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return None if intact else "is damaged"


def _load(library: Path, remedy: str) -> ctypes.CDLL:
    """Raises: OSError if it is no library, or none with the kernel's functions."""
    try:
        kernel = ctypes.CDLL(str(library))
        _ = kernel.forward, kernel.backward
        kernel.scratch_bytes.restype = ctypes.c_size_t
    except (OSError, AttributeError) as error:
        raise OSError(f"{error}; {remedy}") from None
    return kernel


def _compile(compiler: list[str], flags: list[str], folder: Path, name: str) -> ctypes.CDLL:
    """Compile in a folder of this process and move the library into place, so that two processes at once do no harm.

    Only a library that could be loaded is kept. Raises: OSError.
    """
    _remove_dead_builds(folder)
    with tempfile.TemporaryDirectory(prefix=f"{_builds_here()}{os.getpid()}-", dir=folder) as place:
        built = Path(place) / "kernel.so"
        line = [*compiler, *flags, str(SOURCES / "kernel.c"), "-o", str(built), "-lm"]
        try:
            _run([*line, "-fopenmp"])
        except OSError:  # a compiler without OpenMP (clang, often) gives a kernel of one thread
            _run(line)
        if not built.is_file():
            raise OSError(f"{compiler[0]} made no library; {REMEDY}")
        _load(built, f"{REMEDY}, or {ELSEWHERE}")
        built.chmod(0o700)  # others may not write to it, whatever the umask
        library = built.replace(folder / f"{name}-{hashlib.sha256(built.read_bytes()).hexdigest()}.so")
        return _load(library, f"{REMEDY}, or {ELSEWHERE}")


def _builds_here() -> str:
    return f"build-{platform.node()}-"


def _remove_dead_builds(folder: Path) -> None:
    """Remove what killed processes of this machine were compiling."""
    for place in folder.glob("build-*") if hasattr(os, "getuid") else ():
        machine, _, process = place.name.rpartition("-")[0].rpartition("-")
        if f"{machine}-" == _builds_here() and process.isdecimal():
            try:
                os.kill(int(process), 0)
            except ProcessLookupError:
                shutil.rmtree(place, ignore_errors=True)
            except (OSError, OverflowError):
                pass  # another user's process


@functools.cache
def say_once(message: str) -> None:
    LOG.warning(message)
