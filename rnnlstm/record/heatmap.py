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
LETTERS, LINE = 25, 32  # pixels


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
    """PNG of a pixel for each value of (rows, columns), coloured as above, to be scaled when shown."""
    buffer = io.BytesIO()
    Image.fromarray(colours(log_ratios)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def flow_png(steps: Sequence[int], norms: np.ndarray, state: str = "h") -> tuple[bytes, int, int]:
    """PNG, width and height. `norms` (rows, K) are the gradient for `state` by lag, a row for each of the `steps`."""
    pixels = colours(log_ratio(norms)[:, ::-1])  # lag 0, the last time step, at the right
    rows, columns = pixels.shape[:2]
    wide, high = max(1, 560 // columns), max(1, min(48, 320 // rows))
    body = Image.fromarray(np.repeat(np.repeat(pixels, high, 0), wide, 1))
    # TensorBoard shows pictures at about half their size: the letters are large.
    left, top, right, bottom = 104, 2 * LINE + 6, 28, 5 * LINE
    width = max(body.width, 560)
    image = Image.new("RGB", (left + width + right, top + body.height + bottom), "white")
    image.paste(body, (left, top))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=LETTERS)

    def write(x: float, y: float, text: str, anchor: str = "la") -> None:
        draw.text((x, y), text, fill="black", font=font, anchor=anchor)

    write(left, 2, f"gradient of the last answer, for {state}")
    write(left - 8, 2 + LINE, "update", "ra")
    write(left + body.width // 2, 2 + LINE, "time step", "ma")
    for row in sorted({0, rows // 2, rows - 1}) if rows > 4 else sorted({0, rows - 1}):
        write(left - 8, top + (row + 0.5) * high, f"{steps[row]}", "rm")
    below = top + body.height + 4
    write(left, below, "1: first input")
    write(left + body.width, below, f"{columns}: answer", "ra")
    below += 2 * LINE - 8
    write(left, below, "strength, against that at the answer")
    below += LINE + 2
    scale = np.linspace(LOW, HIGH, width)[None].repeat(LINE // 2, 0)
    image.paste(Image.fromarray(colours(scale)), (left, below))
    for power, name, anchor in ((LOW, "1e-8", "la"), (-4, "1e-4", "ma"), (0, "1", "ma"), (HIGH, "1e4", "ra")):
        write(left + (power - LOW) / (HIGH - LOW) * width, below + LINE // 2 + 4, name, anchor)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), image.width, image.height
