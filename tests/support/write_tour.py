"""Runs the commands of a page and writes what they print back into it: `tour.py PAGE PLACE PICTURES`.

A block of code that begins with `$ ` is a command and its output. Commands run one after another in PLACE, which is
started again, so that a later one finds what an earlier one left.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from support.tensorboard_page import browser

BLOCK = re.compile(r"^```\n\$ (?P<command>.*?)\n(?P<output>.*?)```$", re.MULTILINE | re.DOTALL)
COLUMNS = "100"
#: What the walk leaves → the picture that the page shows of it.
FIGURES = {
    "gradflow/gradient.png": "gradient.png",
    "gradflow/trained/influence_by_distance.png": "influence_by_distance.png",
    "gradflow/trained/counterfactual_influence.png": "counterfactual_influence.png",
    "gradflow/trained/gates.png": "gates.png",
}
#: Parts of the report that are shown, with the width of the page: a narrow one has no empty half.
PARTS = {"way": 690, "learning": 1000, "gradient": 1000}


def commands(page: str) -> list[str]:
    """Every command of a page, as it is written."""
    return [found["command"] for found in BLOCK.finditer(page)]


def main(page: Path, place: Path, pictures: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    programs = Path(sys.executable).parent
    environment = {**os.environ, "COLUMNS": COLUMNS, "PATH": f"{programs}:{os.environ['PATH']}"}

    def run(found: re.Match[str]) -> str:
        began = time.monotonic()
        done = subprocess.run(
            found["command"], shell=True, cwd=place, env=environment, text=True, check=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        print(f"{time.monotonic() - began:5.1f} s  {found['command']}", flush=True)
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        output = "\n".join(lines).strip("\n")
        return f"```\n$ {found['command']}\n{output}\n```"

    page.write_text(BLOCK.sub(run, page.read_text(encoding="utf-8")), encoding="utf-8")
    pictures.mkdir(parents=True, exist_ok=True)
    for source, target in FIGURES.items():
        save(Image.open(place / source), pictures / target)
    with browser() as opened:
        shown = opened.new_page()
        shown.goto((place / "report.html").resolve().as_uri())
        for part, width in PARTS.items():
            shown.set_viewport_size({"width": width, "height": 900})
            picture = shown.locator(f"#{part}").screenshot()
            save(Image.open(io.BytesIO(picture)), pictures / f"report_{part}.png")


def save(picture: Image.Image, path: Path) -> None:
    """As a small file."""
    few = picture.convert("RGB").quantize(64, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
