"""Commands and links that are printed in README and docs are still true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rnnlstm.jobs.job import compose_jobs
from rnnlstm.jobs.search import Search

from support.write_tour import commands

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/results").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def training_commands(page):
    """What stands after `python -m rnnlstm.train`, in blocks of code and within a line, as arguments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for words in re.findall(r"python -m rnnlstm\.train\b([^`\n]*)", text):
        yield shlex.split(words, comments=True)


def test_every_command_is_one_of_the_projects():
    found = {name for page in PAGES for name in re.findall(r"python -m rnnlstm\.(\w+)", page.read_text("utf-8"))}
    assert found == {"train", "compare", "gradflow", "benchmark", "events", "export", "reproduce"}


@pytest.mark.slow
@pytest.mark.usefixtures("shared_composer")
def test_training_commands_compose():
    found = [(page.name, words) for page in PAGES for words in training_commands(page)]
    assert len(found) >= 20
    for page, words in found:
        if any(word.startswith(("--", "plugins=")) or "hiden" in word or "…" in word for word in words):
            continue  # options, a mistake that README shows, modules that a reader writes, a gap to fill
        if "search=optuna" in words:
            pytest.importorskip("optuna")
            assert Search([word for word in words if word != "-m"]).space.dimensions
            continue
        multirun = "-m" in words
        overrides = [word for word in words if word != "-m"]
        jobs = compose_jobs(overrides, multirun, to_train=False)
        assert jobs, f"{page}: {' '.join(words)}"


def anchors(page):
    """Of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", re.sub(r"\]\([^)]*\)", "", head)).lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_every_picture_is_shown():
    shown = {(p.parent / found).resolve() for p in PAGES for found in re.findall(r"\]\(([^)\s#]+)\)", p.read_text())}
    assert set((ROOT / "docs" / "images").rglob("*.png")) <= shown


def test_the_tour_has_the_output_of_each_command():
    page = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    found = commands(page)
    assert len(found) == 7
    assert page.count("\n$ ") == len(found)
    for command in found:
        assert page.partition(command)[2].lstrip("\n").partition("```")[0].strip(), f"no output of {command}"
