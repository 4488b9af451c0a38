"""Screenshots of TensorBoard's tabs as small pictures: `tensorboard_screenshots.py RUNS FOLDER`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from support.tensorboard_page import browser, served, visit

#: Tab → size of the window, and the part of the page that is kept: left, top, right, bottom.
PICTURES = {
    "custom_scalars": ((1500, 1080), (0, 64, 1500, 1080)),
    "images": ((1500, 700), (360, 170, 1500, 565)),
    "hparams": ((1900, 620), (0, 64, 1900, 270)),
}


def main(runs: Path, folder: Path) -> None:
    with served(runs, len(list(runs.glob("*/*/*/events.out.tfevents*")))) as address, browser() as opened:
        for tab, ((width, height), part) in PICTURES.items():
            page = visit(opened, address, tab, width, height)
            if tab == "custom_scalars":  # its page begins with peaks cut off
                page.get_by_text("Ignore outliers in chart scaling").click()
                page.wait_for_timeout(2000)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").crop(part)
            picture = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
            path = folder / f"tensorboard_{tab}.png"
            picture.save(path, optimize=True)
            print(f"{path}: {path.stat().st_size:,} bytes")
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
