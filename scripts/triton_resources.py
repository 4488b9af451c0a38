#!/usr/bin/env python
"""Compiles Triton's kernels without a GPU, and prints what each needs of one: registers, stack and shared memory.

    python scripts/triton_resources.py [--arch 80,90] [--kind lstm,gru] [--units 64,128]
                                        [--asked training|instruments] [--json]

A stack is where registers that did not fit are spilled to. Needs triton, which brings NVIDIA's tools.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import triton
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rnnlstm.recurrence.fused import triton_kernels
from rnnlstm.recurrence.fused.kinds import KINDS, Kind

#: Arguments that are no float32 tensors: the norms' float64, the lengths' int64, sizes.
TYPES = {"h_rows": "*fp64", "c_rows": "*fp64", "lengths": "*i64", "T": "i32", "B": "i32"}
#: What is asked of the backward pass: by training, and by an instrument where sequences have lengths of their own.
ASKED = {
    "training": {"DENSE": True, "ENDS": False, "NORMS": False},
    "instruments": {"DENSE": True, "ENDS": True, "NORMS": True},
}
PRODUCTS = {"full": "float32", "tf32": "TF32", "bfloat16": "bfloat16"}  #: by precision
TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def resources(kind: Kind, H: int, way: str, arch: int, asked: str = "training") -> dict[str, Any]:
    """What one kernel needs on a GPU of compute capability arch/10."""
    kernel = getattr(triton_kernels, f"{way}_kernel")
    constants = triton_kernels.constants(kind, H, way, torch.float32)
    constants |= {name: value for name, value in ASKED[asked].items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in constants else TYPES.get(name, "*fp32") for name in kernel.arg_names}
    tile = triton_kernels.tiles(kind, H, way, ASKED[asked]["NORMS"])
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": tile.warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        line = [str(TOOL), "--dump-resource-usage", file.name]
        said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(found[1]) for name in ("REG", "STACK") if (found := re.search(rf"\b{name}:(\d+)", said)))
    return {
        "arch": arch, "kind": kind.name, "H": H, "products": PRODUCTS[kind.precision], "way": way,
        "asked": asked, "resident": tile.resident, "warps": tile.warps, "registers": registers, "stack": stack,
        "shared": compiled.metadata.shared,
    }  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", type=numbers, default=[80, 90])
    parser.add_argument("--kind", type=lambda text: text.split(","), default=[kind.name for kind in KINDS])
    parser.add_argument("--units", type=numbers, default=[64, 128, 256, 512])
    parser.add_argument("--asked", choices=ASKED, default="training", help="what the backward pass is to yield")
    parser.add_argument("--json", action="store_true", help="a list of dicts instead of a table")
    options = parser.parse_args(arguments)

    def found() -> Iterator[dict[str, Any]]:
        for arch in options.arch:
            for kind in (kind for kind in KINDS if kind.name in options.kind):
                for H in options.units:
                    for precision in PRODUCTS:
                        for way in ("forward", "backward") if options.asked == "training" else ("backward",):
                            yield resources(replace(kind, precision=precision), H, way, arch, options.asked)

    lines = list(found())
    if options.json:
        json.dump(lines, sys.stdout)
        return
    table = Table("sm", "kernel", "H", "products", "pass", "weights", "warps", "registers", "stack", "shared kB")
    for line in lines:
        weights = "resident" if line["resident"] else "in blocks"
        table.add_row(
            str(line["arch"]), line["kind"], str(line["H"]), line["products"], line["way"], weights,
            *(str(line[key]) for key in ("warps", "registers", "stack")), f"{line['shared'] / 1024:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
