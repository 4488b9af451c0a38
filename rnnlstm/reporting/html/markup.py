"""Markup that can't be broken by what is put into it: one way for text to get into the page, and it escapes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent


def text(value: object) -> Markup:
    """`value` as text in a page. Names, answers and the like come from files that anyone may have written: marks
    are escaped, and what can't be seen, or would turn the direction of writing, is shown as its escape."""
    if isinstance(value, Markup):
        return value
    return escape("".join(c if c.isprintable() or c in "\n\u00a0" else ascii(c)[1:-1] for c in str(value)))


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`<name attribute="…">children</name>`. Of an attribute's name, `_` is written `-`, and one at its end dropped;
    numbers are rounded to a tenth; None leaves it out."""
    parts = [Markup("<"), Markup(name)]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
            parts.append(Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), text(shown)))
    return Markup("").join([*parts, Markup(">"), *map(text, children), Markup(f"</{name}>")])


@functools.cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=text,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Markup:
    """A template of this package, filled in."""
    return Markup(_templates().get_template(template).render(**values))
