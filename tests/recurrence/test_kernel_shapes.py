"""The C kernel by itself, over odd shapes: under the address and undefined-behaviour sanitizers, and on arm64."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[1] / "support/kernel_shapes.c"


@pytest.mark.parametrize(("real", "is_double"), [("float", 0), ("double", 1)])
@pytest.mark.parametrize("width", [32, 64], ids=["32 bytes", "64 bytes"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_odd_shapes_under_sanitizers(compiler, width, real, is_double, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    x86 = platform.machine() in ("x86_64", "AMD64")
    if width == 64 and not (x86 and "AVX512" in torch.backends.cpu.get_cpu_capability()):
        pytest.skip("this processor has no vectors of 64 bytes")
    wide = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw"] if width == 64 else []
    target = [*wide, "-mavx2", "-mfma"] if x86 else []
    program = tmp_path / "shapes"
    line = [compiler, "-O1", "-g", "-std=gnu11", "-Wno-unknown-pragmas", *target, f"-DVBYTES={width}"]
    line += [
        f"-DREAL={real}",
        f"-DIS_DOUBLE={is_double}",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    done = subprocess.run([*line, str(SOURCE), "-o", str(program), "-lm"], capture_output=True, text=True)
    if "sanitize" in done.stderr or "asan" in done.stderr:
        pytest.skip(f"{compiler} has no sanitizers here")
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("2268 shapes"), ran.stdout
    assert ran.stderr == ""


@pytest.mark.parametrize(("real", "is_double"), [("float", 0), ("double", 1)])
def test_on_arm64_sums_are_those_of_this_processor(real, is_double, tmp_path):
    cross, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64"
    for tool in ("gcc", cross, emulator):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    printed = []
    for compiler, before in (("gcc", []), (cross, [emulator])):
        program = tmp_path / compiler
        line = [compiler, "-O2", "-std=gnu11", "-Wno-unknown-pragmas", "-static"]
        line += ["-DVBYTES=32", f"-DREAL={real}", f"-DIS_DOUBLE={is_double}", str(SOURCE), "-o", str(program), "-lm"]
        subprocess.run(line, check=True, capture_output=True, timeout=300)
        ran = subprocess.run([*before, str(program)], check=True, capture_output=True, text=True, timeout=300)
        printed.append(ran.stdout)
    assert printed[0] == printed[1]
    assert printed[0].startswith("2268 shapes")
