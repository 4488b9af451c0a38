"""The cache of compiled kernels: what is in it is checked before it is loaded, and replaced where it is no good."""

from __future__ import annotations

import logging
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rnnlstm.recurrence.fused import build
from rnnlstm.recurrence.fused.build import load_kernel

needs_kernel = pytest.mark.skipif(load_kernel(torch.float32) is None, reason="no C compiler: only the portable loops")


class PretendedCompiler:
    """Takes the place of `subprocess.run`. Writes `library` and counts how often it compiled."""

    def __init__(self, library: bytes | None) -> None:
        self.library, self.compiled, self.code, self.says = library, 0, 0, ""

    def __call__(self, line, text=False, **_):
        if "--version" not in line:
            self.compiled += 1
            if self.library is not None and not self.code:
                Path(line[line.index("-o") + 1]).write_bytes(self.library)
        out = "pretended 1.0"
        code = self.code if "--version" not in line else 0
        return subprocess.CompletedProcess(line, code, out if text else out.encode(), self.says)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A pretended compiler that makes the real kernel, and an empty cache in `tmp_path`."""
    kernel = load_kernel(torch.float32)
    result = PretendedCompiler(b"" if kernel is None else Path(kernel._name).read_bytes())
    monkeypatch.setattr(subprocess, "run", result)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "pretended")
    build.say_once.cache_clear()
    return result


def load():
    """Load the kernel as another process would."""
    return load_kernel.__wrapped__(torch.float32)


def cached(place: Path) -> list[Path]:
    return sorted((place / "rnnlstm").iterdir())


@needs_kernel
def test_it_is_compiled_once_and_only_the_library_stays(compiler, tmp_path, caplog):
    assert load() is not None
    assert load() is not None
    assert compiler.compiled == 1
    (library,) = cached(tmp_path)
    assert library.name.startswith("kernel-")
    assert library.stat().st_mode & 0o777 == 0o700
    assert caplog.records == []


@needs_kernel
@pytest.mark.parametrize("content", [b"", b"garbled", None], ids=["empty", "garbled", "one bit changed"])
def test_a_damaged_library_is_compiled_again(compiler, tmp_path, content):
    load()
    (library,) = cached(tmp_path)
    data = library.read_bytes()
    library.unlink()  # it is loaded: change another file
    library.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if content is None else content)
    library.chmod(0o700)
    assert load() is not None
    assert compiler.compiled == 2
    (library,) = cached(tmp_path)
    assert library.read_bytes() == data


@needs_kernel
@pytest.mark.parametrize("fault", ["a link", "of another user", "written by all", "a folder", "a pipe"])
def test_a_library_that_others_could_have_put_there_is_not_loaded(compiler, tmp_path, monkeypatch, fault, caplog):
    load()
    (library,) = cached(tmp_path)
    if fault == "of another user":

        def foreign(path, real=Path.lstat):
            info = real(path)
            return os.stat_result((*info[:4], 12345, *info[5:])) if path == library else info

        monkeypatch.setattr(Path, "lstat", foreign)
    elif fault == "written by all":
        library.chmod(0o777)
    else:
        target = library.rename(tmp_path / "elsewhere.so")
        if fault == "a link":
            library.symlink_to(target)
        elif fault == "a folder":
            library.mkdir()
        else:
            os.mkfifo(library)
    kernel = load()
    if fault == "a folder":  # stands in the way: the line says where
        assert kernel is None
        assert str(library) in caplog.text
        return
    assert kernel is not None
    assert compiler.compiled == 2
    assert library.is_file()
    assert not library.is_symlink()
    assert str(library) in caplog.text  # the user is told


@needs_kernel
@pytest.mark.parametrize("fault", ["a link", "of another user"])
def test_a_folder_that_is_another_users_is_not_used(compiler, tmp_path, monkeypatch, fault, caplog):
    folder = tmp_path / "rnnlstm"
    if fault == "a link":
        (tmp_path / "target").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "target")
    else:
        folder.mkdir(mode=0o700)

        def foreign(path, real=Path.lstat):
            info = real(path)
            return os.stat_result((*info[:4], 12345, *info[5:])) if path == folder else info

        monkeypatch.setattr(Path, "lstat", foreign)
    assert load() is None
    assert cached(tmp_path) == []
    assert "XDG_CACHE_HOME" in caplog.text


@needs_kernel
def test_roots_folder_and_library_are_used(compiler, tmp_path, monkeypatch):
    load()

    def roots(path, real=Path.lstat):
        info = real(path)
        return os.stat_result((*info[:4], 0, *info[5:]))

    monkeypatch.setattr(Path, "lstat", roots)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert load() is not None
    assert compiler.compiled == 1


@pytest.mark.parametrize("library", [None, b"", b"no library"], ids=["nothing", "an empty file", "text"])
def test_a_compiler_that_makes_no_library_leaves_none(compiler, tmp_path, library, caplog):
    compiler.library = library
    assert load() is None
    assert cached(tmp_path) == []
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert "name one in CC" in record.getMessage()


@pytest.mark.parametrize("says", ["", "  \n", "first line\nsecond", "\x1b[31mred"])
def test_a_compiler_that_fails_is_told_of_in_one_line(compiler, tmp_path, says, caplog):
    compiler.code, compiler.says = 1, says
    assert load() is None
    assert cached(tmp_path) == []
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert record.getMessage().endswith("install gcc or clang, or name one in CC")


def test_a_command_in_cc_that_no_shell_could_read(compiler, monkeypatch, caplog):
    monkeypatch.setenv("CC", "'gcc")
    assert load() is None
    assert "CC='gcc: No closing quotation" in caplog.text


@needs_kernel
def test_the_compilers_flags_are_part_of_the_key(compiler, tmp_path, monkeypatch):
    load()
    monkeypatch.setenv("CC", "pretended -O0")
    load()
    assert compiler.compiled == 2
    assert len(cached(tmp_path)) == 2


@needs_kernel
def test_a_relative_cache_folder_is_ignored(compiler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert load() is not None
    assert len(cached(tmp_path / "home" / ".cache")) == 1
    assert not (tmp_path / "relative").exists()


def test_without_a_home_folder_the_portable_loops_compute(compiler, tmp_path, monkeypatch, caplog):
    def unknown(_):
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    assert load() is None
    assert list(tmp_path.iterdir()) == []
    (record,) = caplog.records
    assert record.getMessage().endswith("no home folder to keep it in; name a folder of your own in XDG_CACHE_HOME")


def test_a_cache_folder_that_cannot_be_made(compiler, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert load() is None
    assert "Not a directory; name a folder of your own in XDG_CACHE_HOME" in caplog.text


IN_A_CHILD = """
import sys, torch
from pathlib import Path
from rnnlstm.recurrence.fused.build import load_kernel
place = Path(sys.argv[1])
load_kernel(torch.float32)
(library,) = place.glob("rnnlstm/kernel-*.so")
data = library.read_bytes()
half = len(data) // 2
zeros = bytes(len(data))
damages = [data[:half], data[:5000], zeros, data[:4096] + zeros[4096:], data[:half] + data[:half]]
for damage in damages:
    library.unlink()  # it is loaded, and changing it would kill this process
    library.write_bytes(damage)
    library.chmod(0o700)
    load_kernel.cache_clear()
    kernel = load_kernel(torch.float32)
    kernel.forward, kernel.backward
    (library,) = place.glob("rnnlstm/kernel-*.so")
    assert library.read_bytes() == data
print(len(damages), "survived")
"""


@pytest.mark.slow
@needs_kernel
def test_cut_and_zeroed_libraries_kill_no_process(tmp_path):
    """The compiler is a script that copies: the real one would be called for each damage."""
    library = load_kernel(torch.float32)._name
    script = tmp_path / "cc"
    copies = f'while [ "$1" != -o ]; do shift; done; cp {library} "$2"'
    script.write_text(f'#!/bin/sh\ncase "$*" in --version) echo 1;; *) {copies};; esac\n')
    script.chmod(0o700)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "CC": str(script)}
    line = [sys.executable, "-c", IN_A_CHILD, str(tmp_path)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "5 survived\n"), done.stderr


@pytest.mark.slow
@needs_kernel
def test_a_killed_build_leaves_nothing_after_the_next(tmp_path):
    script = tmp_path / "cc"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exec cc "$@"\nsleep 60\n')
    script.chmod(0o700)
    code = "import torch; from rnnlstm.recurrence.fused.build import load_kernel; load_kernel(torch.float32)"
    line = [sys.executable, "-c", code]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "CC": str(script)}
    with subprocess.Popen(line, env=environment, start_new_session=True) as process:
        try:
            while not list(tmp_path.glob("rnnlstm/*")) and process.poll() is None:
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(cached(tmp_path)) == 1
    environment["CC"] = "cc"
    subprocess.run(line, env=environment, check=True, timeout=120)
    (library,) = cached(tmp_path)
    assert library.name.startswith("kernel-")
