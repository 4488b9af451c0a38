"""TensorBoard over a folder of runs, and its page in a real browser: for tests, and for scripts/figures.

Needs Chromium (Debian's `chromium`, or the path in CHROMIUM) and Python's `playwright` for the page alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from rnnlstm.cli import look
from rnnlstm.record.glossary import FIRST

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 90  # seconds, on a busy machine
#: Cards that the link pins for these tasks. Those that a task has no data for are left out by the page.
METRICS = ("accuracy", "mse", "recall_accuracy")
PINNED = (*(f"eval/{name}" for name in METRICS), *FIRST)
#: What comes after the address for each tab: curves unsmoothed and in a colour for each configuration, without what
#: would repeat itself for every seed.
TABS = {
    "timeseries": look.link(METRICS).removeprefix(look.PAGE),
    "scalars": "#scalars",
    "custom_scalars": "#custom_scalars&regexInput=aggregate&_smoothingWeight=0",
    "images": "#images&regexInput=seed_0",
    "text": "#text",
    "hparams": "#hparams",
}
#: What is there once a tab has something to show.
SHOWN = {
    "timeseries": "metrics-pinned-view line-chart",
    "scalars": "tf-scalar-card path.line",
    "custom_scalars": "tf-custom-scalar-margin-chart-card path.line",
    "images": "tf-image-loader img",
    "text": "tf-markdown-view table table",
    "hparams": "tf-hparams-table-view vaadin-grid-cell-content:has-text('_T')",
}


@contextlib.contextmanager
def served(folder: Path, runs: int):
    """The address of a TensorBoard on 127.0.0.1 over `folder`, once it has found that many runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1"]
    server = subprocess.Popen([*line, "--port", str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + PATIENCE
        while not _ready(address, runs):
            assert time.monotonic() < deadline, "TensorBoard did not come up"
            assert server.poll() is None
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


def _ready(address: str, runs: int) -> bool:
    """Whether all runs are there, with images in those that are of seeds (the others are aggregates)."""
    try:
        found, images = (
            json.load(urllib.request.urlopen(address + path, timeout=20))
            for path in ("data/runs", "data/plugin/images/tags")
        )
    except OSError:
        return False
    return len(found) == runs and set(images) == {run for run in found if "/seed_" in run}


@contextlib.contextmanager
def browser():
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def visit(browser, address: str, tab: str, width: int = 1500, height: int = 1000):
    """The page at a tab, once it has asked for all that it shows; its errors are in `page.told`."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE * 1000)
    page.told = []
    page.on("console", lambda message: page.told.extend([message.text] * (message.type == "error")))
    page.on("pageerror", lambda error: page.told.append(str(error)))
    page.on("response", lambda answer: page.told.extend([f"{answer.status} {answer.url}"] * (answer.status >= 400)))
    page.goto(address + TABS[tab], wait_until="networkidle")
    page.locator(SHOWN[tab]).first.wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2500)
    if tab == "timeseries":  # a worker draws its curves
        charts = page.locator("metrics-pinned-view line-chart")
        deadline = time.monotonic() + PATIENCE
        while not (charts.count() and coloured(charts.first)):
            assert time.monotonic() < deadline, "no curves"
            page.wait_for_timeout(300)
    return page


def coloured(element) -> int:
    """How many pixels of an element are neither grey nor nearly so: in a chart, those of curves."""
    with Image.open(io.BytesIO(element.screenshot())) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((pixels.max(-1) - pixels.min(-1) > 60).sum())
