"""The report in a real browser: every figure drawn, nothing wider than a phone, nothing loaded, readable by keyboard.

Needs Chromium (Debian's `chromium`, or the path in CHROMIUM) and Python's `playwright`; skipped where they aren't.
"""

from __future__ import annotations

import os
import shutil

import pytest

from rnnlstm.jobs.job import compose_jobs
from rnnlstm.reporting.html.page import write_page
from rnnlstm.reporting.selection import compare
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support.training import SMALL, SMALL_NUMBERS

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.filterwarnings("default"),  # the driver's own
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    options = ("train.steps=6", "eval.every=2", "probe.every=2", "log.every=1", "seeds=2", "clip.threshold=0.05")
    for task in ("keyword", "adding"):
        for model in ("rnn", "lstm"):
            (job,) = compose_jobs(
                [
                    *(SMALL if task == "keyword" else SMALL_NUMBERS),
                    *options,
                    f"task={task}",
                    f"model={model}",
                    f"runs_root={root}",
                ]
            )
            train_run(make_plan(job.config), job.folder, Progress())
    write_page(compare([str(root)]), str(root / "report.html"))
    return root / "report.html"


@pytest.fixture
def visit(browser, report):
    """`visit(width, scheme)` → the page, once all that it does has been done; what it complained of is in `told`."""
    pages = []

    def start(width: int, scheme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.told = []
        page.on("console", lambda message: page.told.append(message.text))
        page.on("pageerror", lambda error: page.told.append(str(error)))
        page.on(
            "request", lambda request: page.told.extend([request.url] * (request.url[:5] not in ("file:", "data:")))
        )
        page.goto(report.as_uri(), wait_until="networkidle")
        pages.append(page)
        return page

    yield start
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_screen(visit, tmp_path, width, scheme):
    page = visit(width, scheme)
    page.screenshot(path=str(tmp_path / f"{width}-{scheme}.png"), full_page=True)
    assert page.told == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate("[...document.querySelectorAll('svg[role=img]')].map(s => [s.clientWidth, s.clientHeight])")
    assert len(sizes) >= 20
    assert min(min(size) for size in sizes) > 40
    decoded = page.evaluate(
        "Promise.all([...document.querySelectorAll('image')].map(i => decode(i)));"
        "async function decode(i) { const p = new Image(); p.src = i.getAttribute('href');"
        " await p.decode(); return p.naturalWidth > 0 }"
    )
    assert decoded
    assert all(decoded)
    letters = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height).filter(h => h > 0)"
    )
    assert min(letters) > 8, "letters in the figures can be read"


def test_the_theme_follows_the_system(visit):
    paper = {
        scheme: visit(800, scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert paper == {"light": "rgb(252, 251, 248)", "dark": "rgb(20, 23, 27)"}


def test_the_keyboard_reaches_all_and_the_first_stop_skips_ahead(visit):
    page = visit(1280)
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.className") == "skip"
    assert page.evaluate(f"{focused}.getBoundingClientRect().left") >= 0, "it shows when it has the focus"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "content"
    stops = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        stops.add(page.evaluate(f"{focused}.tagName + ' ' + {focused}.className"))
    assert {"SUMMARY ", "DIV scroll", "PRE "} <= stops
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_screen_readers_find_names_and_landmarks(visit):
    page = visit(1280)
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("navigation", name="Contents").count() == 1
    assert page.get_by_role("region", name="How far back the gradient reaches").count() == 1
    assert page.get_by_role("img", name="Gradient in h through time and training: rnn").count() >= 1
    assert page.get_by_role("heading", level=1).count() == 1


def test_on_paper_it_is_dark_on_white_and_uncut(visit, tmp_path):
    page = visit(1280, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.set_viewport_size({"width": 690, "height": 1000})  # A4 between its margins
    page.screenshot(path=str(tmp_path / "print.png"), full_page=True)
    wide = page.evaluate(
        "[...document.querySelectorAll('figure, figure svg, table')]"
        ".filter(e => e.getBoundingClientRect().right > 692).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
