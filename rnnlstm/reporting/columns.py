"""Columns of text as a table for a terminal, without those for which it has no room."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text


def leave_out(columns: dict[str, list[str]], spared: Sequence[str], width: int) -> list[str]:
    """Takes columns of `spared` away, the first first, until the rest fit into `width` characters; those taken."""
    left_out = []
    for header in filter(columns.__contains__, spared):
        if sum(3 + max(map(cell_len, (head, *cells))) for head, cells in columns.items()) <= width:
            break
        del columns[header]
        left_out.append(header)
    return left_out


def as_table(columns: dict[str, list[str]], numbers: Sequence[str] = (), title: str | None = None) -> Table:
    """The columns `numbers` stand to the right."""
    result = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
        title=Text(title) if title else None,
        title_justify="left",
    )
    for header in columns:
        result.add_column(Text(header), justify="right" if header in numbers else "left")
    for cells in zip(*columns.values(), strict=True):
        result.add_row(*map(Text, cells))  # as it is: nothing in it is markup
    return result
