"""The gradient through time as a picture: time step across, training step down, on one fixed scale of colours.

The scale never adapts: adapted to its own range, an RNN's picture would look like an LSTM's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LOW, HIGH = -8.0, 4.0  # log10 of the ratio to lag 0; 0 is neutral
WEAK, NEUTRAL, STRONG = (8, 48, 107), (247, 247, 247), (103, 0, 13)
INVALID = (160, 160, 160)  # not a number


def colours(log_ratio: np.ndarray) -> np.ndarray:
    """uint8 (…, 3): white at 0, to dark blue at −8 and dark red at +4; beyond that the end colours."""
    below = np.clip(log_ratio / LOW, 0, 1)[..., None]
    above = np.clip(log_ratio / HIGH, 0, 1)[..., None]
    neutral = np.array(NEUTRAL, dtype=float)
    rgb = neutral + below * (np.array(WEAK) - neutral) + above * (np.array(STRONG) - neutral)
    return np.where(np.isnan(log_ratio)[..., None], INVALID, rgb).round().astype(np.uint8)


def log_ratio(norms: np.ndarray) -> np.ndarray:
    """log10 of each norm against the one at lag 0 (the last axis is lag); −∞ where nothing arrived."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(norms) - np.log10(norms[..., :1])


def plain_png(log_ratios: np.ndarray) -> bytes:
    """PNG of a pixel for each value of (rows, columns), coloured as above; whoever shows it scales it."""
    buffer = io.BytesIO()
    Image.fromarray(colours(log_ratios)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def flow_png(steps: Sequence[int], norms: np.ndarray) -> tuple[bytes, int, int]:
    """PNG, width and height. `norms` (rows, K) by lag, a row for each training step of `steps`."""
    pixels = colours(log_ratio(norms)[:, ::-1])  # lag 0, the last time step, at the right
    rows, columns = pixels.shape[:2]
    wide, high = max(1, 640 // columns), max(4, min(32, 320 // rows))
    body = Image.fromarray(np.repeat(np.repeat(pixels, high, 0), wide, 1))
    # TensorBoard shows pictures at about half their size: the letters are large.
    left, top, right, bottom, line = 90, 34, 24, 110, 30
    image = Image.new("RGB", (left + max(body.width, 560) + right, top + body.height + bottom), "white")
    image.paste(body, (left, top))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=24)

    def write(x: int, y: int, text: str, anchor: str = "la") -> None:
        draw.text((x, y), text, fill="black", font=font, anchor=anchor)

    write(left, 2, "time step")
    write(2, 2, "update")
    write(left - 6, top, f"{steps[0]}", "ra")
    if rows > 1:
        write(left - 6, top + body.height, f"{steps[-1]}", "rd")
    below = top + body.height + 4
    write(left, below, "1")
    write(left + body.width, below, f"{columns}", "ra")
    scale = np.linspace(LOW, HIGH, 480)[None].repeat(14, 0)
    image.paste(Image.fromarray(colours(scale)), (left, below + line + 4))
    below += line + 20
    write(left, below, "1e-8")
    write(left + 320, below, "1", "ma")
    write(left + 480, below, "1e4", "ra")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), image.width, image.height
