"""Every task in each of its variants, at lengths that suit a test."""

from __future__ import annotations

import dataclasses

import pytest

from rnnlstm.tasks import TASKS, make_task


def variants(name):
    """The options of each protocol of a task; just the defaults where it has one only."""
    fields = {field.name: field for field in dataclasses.fields(TASKS[name])}
    return [{"variant": v} for v in fields["variant"].metadata["choices"]] if "variant" in fields else [{}]


#: Lengths for tasks that 30 steps don't fit.
LENGTHS = {"digits": 70}


def small(name, **options):
    """The task at a length that suits a test."""
    return make_task(name, **{"length": LENGTHS.get(name, 30), **options})


#: Every task in every variant: a new one is tested by being there.
VARIANTS = [
    pytest.param(name, options, id="-".join([name, *options.values()]))
    for name in TASKS
    for options in variants(name)
]
