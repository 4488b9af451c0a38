"""The lists of tasks and cells in docs/ say what the registries hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnnlstm.cells import CELLS
from rnnlstm.tasks import TASKS, make_task

from catalogue import TABLES, written

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "registry"), [("tasks", TASKS), ("cells", CELLS)])
def test_the_lists_are_those_of_the_registries(page, registry):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert written(text) == text, "run scripts/readme"
    for name in registry:
        assert f"\n| `{name}` |" in text


def test_a_list_is_written_again_between_its_marks():
    text = "a\n<!-- tasks: x -->\n\nold\n\n<!-- end -->\nb\n<!-- cells: x -->\n\n\n\n<!-- end -->\n"
    new = written(text)
    assert "old" not in new
    assert new.startswith("a\n<!-- tasks: x -->\n\n| `task=` |")
    assert new.count("<!-- end -->") == 2
    assert written(new) == new
    with pytest.raises(ValueError, match="no place for a list"):
        written("no marks")


def test_every_row_has_the_heads_number_of_columns():
    for table in TABLES.values():
        rows = table().splitlines()
        assert len({row.count("|") for row in rows}) == 1
    adding = next(row for row in TABLES["tasks"]().splitlines() if row.startswith("| `adding`"))
    assert "0.1667; 0.0833 with one operand stored" in adding
    assert make_task("adding").solved_when in adding
