"""TensorBoard's page in a real browser, over a real small sweep: runs, curves, bands, pictures, samples, hparams.

Skipped where Chromium or Python's `playwright` is missing. Screenshots stay in pytest's folder.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rnnlstm.jobs.job import compose_jobs
from rnnlstm.training.loop import train_run
from rnnlstm.training.plan import make_plan
from rnnlstm.training.progress import Progress

from support import tensorboard_page
from support.tensorboard_page import coloured
from support.training import SMALL, SMALL_NUMBERS

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.skipif(tensorboard_page.CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.filterwarnings("default"),  # the driver's own
]

SWEEP = [(task, model) for task in ("adding", "keyword") for model in ("lstm", "rnn")]
SEEDS = 2
#: three.js on a point that is infinite, such as a half-life: the page then breaks the line there, as it should.
NOT_OURS = "Computed radius is NaN"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    options = (
        "train.steps=8",
        "eval.every=2",
        "probe.every=2",
        "log.every=2",
        f"seeds={SEEDS}",
        "clip.threshold=0.3",
    )
    for task, model in SWEEP:
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
    with tensorboard_page.served(root, runs=len(SWEEP) * (SEEDS + 1)) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with tensorboard_page.browser() as opened:
        yield opened


@pytest.fixture
def visit(browser, address, tmp_path):
    """`visit(tab)` → the page. Every page is kept as a screenshot, and must not have complained."""
    pages = []

    def start(tab: str):
        page = tensorboard_page.visit(browser, address, tab)
        page.screenshot(path=str(tmp_path / f"{tab}.png"))
        pages.append(page)
        return page

    yield start
    for page in pages:
        assert [line for line in page.told if NOT_OURS not in line] == []
        page.close()


def test_time_series_shows_all_runs_and_pinned_curves_in_two_colours(visit):
    page = visit("timeseries")
    names = page.locator("runs-data-table tb-data-table-content-row").all_inner_texts()
    assert len(names) == len(SWEEP) * (SEEDS + 1)
    for task, model in SWEEP:
        assert len([name for name in names if f"{task}_T12/{model}_" in name]) == SEEDS + 1
    cards = page.locator("metrics-pinned-view scalar-card")
    titles = [re.sub(r"\s", "", text.partition("Alt")[0]) for text in cards.all_inner_texts()]
    expected = [tag for tag in tensorboard_page.PINNED if tag != "eval/recall_accuracy"]
    assert [title[: len(tag)] for title, tag in zip(titles, expected, strict=True)] == expected
    charts = page.locator("metrics-pinned-view line-chart")
    assert charts.count() == len(expected)
    for k in range(2):
        assert coloured(charts.nth(k)) > 100


def test_scalars_come_with_descriptions(visit):
    page = visit("scalars")
    for name in ("baseline", "clip"):
        assert page.locator("tf-category-paginated-view").get_by_text(name, exact=True).count() > 0
    words = "loss of the best predictor that knows the task and the position, but no input value [the task's loss]"
    assert page.get_by_text(words).count() > 0  # the page opens two categories by itself, and baseline is one of them
    assert page.locator("tf-scalar-card path.line").count() >= len(SWEEP) * SEEDS


def test_custom_scalars_have_rnn_and_lstm_in_one_chart_with_bands_and_each_task_its_own(visit):
    page = visit("custom_scalars")
    for title in (
        "adding_T12: median and band over seeds (one_operand_stored)",
        "keyword_T12: median and band over seeds",
        "clipping, seed by seed",
    ):
        assert page.get_by_text(title, exact=True).count() == 1
    page.get_by_text("eval/accuracy", exact=True).scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    cards = page.locator("tf-custom-scalar-margin-chart-card")
    titles = cards.evaluate_all("cards => cards.map(card => card.title)")
    assert sorted(title for title in titles if title.startswith("eval/")) == [
        "eval/accuracy", "eval/loss", "eval/loss", "eval/mse",
    ]  # fmt: skip
    assert len(titles) == 14
    assert page.get_by_text("Missing Tags").count() == 0
    for name in ("eval/accuracy", "eval/mse", "gradient norm before clipping"):
        card = cards.nth(titles.index(name))
        assert card.get_by_text("Matches (2)").count() == 1
        drawn = [len(d) > 20 for d in card.locator("path").evaluate_all("p => p.map(e => e.getAttribute('d') || '')")]
        assert sum(drawn) >= 4, "a line and a band each"
        assert coloured(card) > 100


def test_pictures_are_there_whole_and_have_a_slider(visit):
    page = visit("images")
    pictures = page.locator("tf-image-loader img")
    sizes = pictures.evaluate_all("found => found.map(p => [p.complete, p.naturalWidth, p.naturalHeight])")
    assert len(sizes) >= 6
    assert all(complete and width > 500 and height > 300 for complete, width, height in sizes)
    assert page.get_by_text("flow/cell").count() > 0
    assert page.locator("tf-image-loader paper-slider").count() >= 6
    assert coloured(pictures.first) > 500


def test_samples_are_a_table_with_verdicts(visit):
    page = visit("text")
    table = page.locator("tf-markdown-view table table").filter(has_text="which dish came first?").first
    assert table.locator("th").all_inner_texts() == ["", "text", "right answer", "model's answer"]
    for row in table.locator("tbody tr").all():
        mark, text, right, answer = row.locator("td").all_inner_texts()
        assert mark == ("✓" if right == answer else "✗")
        assert text.startswith("[")


def test_hparams_have_a_row_for_each_configuration_and_show_model_and_metrics(visit):
    page = visit("hparams")
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content")
    texts = [text.strip() for text in cells.all_inner_texts()]
    columns = ["model.hidden_size", "model.init", "model", "task.length", "task", "eval/loss", "clip/rate"]
    assert texts[: 2 + len(columns)] == ["Trial ID", "Show Metrics", *columns]
    rows = [k for k, text in enumerate(texts) if re.match(r"\w+_T12/", text)]
    shown = {(texts[k].partition("_")[0], texts[k + 4]) for k in rows}
    assert len(rows) == len(shown) == len(SWEEP), "its seeds averaged"
    assert shown == set(SWEEP)
    for k in rows:
        size, _, _, length, task, loss, clipped = texts[k + 2 : k + 9]
        assert (float(size), float(length)) == (8, 12)
        assert texts[k].startswith(f"{task}_T12/")
        assert float(loss) > 0
        assert 0 <= float(clipped) <= 1


def test_the_docs_link_to_what_is_tested_here():
    page = (Path(__file__).parents[2] / "docs" / "tensorboard.md").read_text()
    for tab in ("timeseries", "custom_scalars", "images"):
        assert f"(http://localhost:6006/{tensorboard_page.TABS[tab]})" in page
