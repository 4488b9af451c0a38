"""Decoded samples as a table: the task's verdict on an answer, and no text taken for markup."""

from __future__ import annotations

import pytest

from rnnlstm.record.seed_view import samples_table
from rnnlstm.tasks import TASKS

from support.training import plan_for


def test_no_text_is_markup_and_the_verdict_is_the_records():
    table = samples_table([
        {"text": "<b>|*[x]_\n → y", "answer": "y", "right": True},
        {"text": "a → b", "answer": "c", "right": False},
        {"text": "no arrow", "answer": "z", "right": None},
    ])  # fmt: skip
    assert table.splitlines()[2:] == [
        "| ✓ | &lt;b>&#124;&#42;&#91;x]&#95;  | y | y |",
        "| ✗ | a | b | c |",
        "|  | no arrow |  | z |",
    ]


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_decodes_to_a_text_with_its_right_answer(task):
    made = plan_for(f"task={task}").task
    batch = made.sample(0, 0, "probe", 4)
    for b in range(4):
        (row,) = samples_table([{"text": made.decode(batch, b), "answer": "?", "right": None}]).splitlines()[2:]
        _, text, right, _ = row.split(" | ")
        assert text.strip()
        assert right.strip()
