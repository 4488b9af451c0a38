"""Builds the native kernel with the machine's own C compiler, once, and loads it.

The library lies in the user's cache under a name made of everything it depends on: source, compiler, flags, and
the processor's vector instructions. A home folder shared between machines therefore never hands a processor
instructions that it lacks. Without a compiler, or with `RNNLSTM_KERNEL=off`, the portable loops compute.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

LOG = logging.getLogger("rnnlstm")
SOURCES = Path(__file__).with_name("kernel")
REALS = {torch.float32: ("float", 0), torch.float64: ("double", 1)}


@functools.cache
def load_kernel(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The kernel for this precision on this processor; None, and one line that says why, if there is none."""
    if os.environ.get("RNNLSTM_KERNEL", "").lower() in ("off", "0"):
        return None
    try:
        return ctypes.CDLL(str(_library(dtype)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        _say_once(f"the fused backend runs without its native kernel, several times slower: {reason}")
        return None


def _library(dtype: torch.dtype) -> Path:
    """The compiled library, from the cache or made now. Raises: OSError or SubprocessError."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise OSError("no C compiler was found; install gcc or clang, or name one in CC, to get the fast one")
    real, is_double = REALS[dtype]
    target, width = _target()
    flags = ["-O3", "-std=gnu11", "-fPIC", "-shared", *target]
    flags += [f"-DREAL={real}", f"-DIS_DOUBLE={is_double}", f"-DVBYTES={width}"]
    version = subprocess.run([*compiler.split(), "--version"], capture_output=True, timeout=60, check=True).stdout
    key = hashlib.sha256(
        b"\0".join(
            [*(path.read_bytes() for path in sorted(SOURCES.iterdir())), version, *(f.encode() for f in flags)]
        )
    ).hexdigest()[:16]
    library = _cache() / f"kernel-{platform.machine()}-{real}-{key}.so"
    if not library.exists():
        _compile(compiler.split(), flags, library)
    return library


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
    """A folder that only this user can write to: what is loaded from it runs as code."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "rnnlstm"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    info = folder.stat()
    if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & 0o022):
        raise OSError(f"{folder} can be written to by others, so no code is loaded from it")
    return folder


def _compile(compiler: list[str], flags: list[str], library: Path) -> None:
    """Compile beside the target and move into place, so that two processes at once do no harm."""
    handle, name = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        # A compiler without OpenMP (clang, often) gives a kernel of one thread.
        for parallel in (["-fopenmp"], []):
            line = [*compiler, *flags, *parallel, str(SOURCES / "kernel.c"), "-o", name, "-lm"]
            done = subprocess.run(line, capture_output=True, text=True, timeout=300)
            if done.returncode == 0:
                Path(name).replace(library)
                return
        raise OSError(f"{compiler[0]} could not build it ({done.stderr.strip().splitlines()[0]})")
    finally:
        Path(name).unlink(missing_ok=True)


@functools.cache
def _say_once(message: str) -> None:
    LOG.warning(message)
