"""The lists of tasks and cells in docs/, written from the registries: `scripts/readme` puts them there.

An entry's description is the first line of its YAML file; the rest comes from the class.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from rnnlstm.cells import CELLS, make_cell
from rnnlstm.config.errors import OptionError
from rnnlstm.config.untrusted import config_folder
from rnnlstm.models import Sizes, network_cost
from rnnlstm.recurrence import choose_backend
from rnnlstm.tasks import TASKS, make_task

H, E = 64, 32  # units and features of a token, for the count of parameters


def task_table() -> str:
    """A Markdown table with a row for each task, at its defaults."""
    rows = []
    for name in TASKS:
        task = make_task(name)
        plateaus = "".join(f"; {loss:.3g} with {what}" for what, loss in task.plateaus.items())
        variants = ", ".join(f"`{choice}`" for choice in _choices(TASKS[name], "variant"))
        baseline = f"{task.baseline:.4g}{plateaus}"
        rows.append((f"`{name}`", _first_line("task", name), variants, baseline, task.solved_when))
    return _table(("`task=`", "the network has to", "`task.variant=`", "loss without looking", "solved"), rows)


def cell_table() -> str:
    """A Markdown table with a row for each cell."""
    rows = []
    for name in CELLS:
        cell = make_cell(name)
        cost = network_cost(cell, Sizes(None, E, 1, H))
        parameters = cost.parameters - H - 1  # without the readout
        inits = ", ".join(f"`{choice}`" for choice in _choices(CELLS[name], "init"))
        row = (f"`{name}`", _first_line("model", name), f"{cost.state}", f"{parameters:,}", inits, _ways(name))
        rows.append(row)
    return _table(("`model=`", "what it is", "state", "parameters", "`model.init=`", "computed by"), rows)


def _ways(name: str) -> str:
    cell, backends = make_cell(name), ["reference"]
    for backend in ("fused", "torch"):
        try:
            backends.append(choose_backend(cell, backend))
        except OptionError:
            continue
    return ", ".join(backends).replace("fused", "fused (scan)" if cell.has_scan else "fused")


def _choices(cls: type, option: str) -> tuple[str, ...]:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return tuple(fields[option].metadata["choices"]) if option in fields else ()


def _first_line(group: str, name: str) -> str:
    text = (config_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")
    return text.splitlines()[0].removeprefix("# ")


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in line)} |" for line in lines)


TABLES = {"tasks": task_table, "cells": cell_table}


def written(page: str) -> str:
    """`page` with each list between its marks, `<!-- tasks: … -->` and `<!-- end -->`, rewritten.

    Raises: ValueError if it has no marks.
    """
    found = False
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name}:[^>]*-->\n\n).*?(\n\n<!-- end -->)", re.DOTALL)
        if parts := pattern.search(page):
            found = True
            page = f"{page[: parts.start()]}{parts[1]}{table()}{parts[2]}{page[parts.end() :]}"
    if not found:
        raise ValueError("the text has no place for a list: <!-- tasks: … --> or <!-- cells: … --> and <!-- end -->")
    return page


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
