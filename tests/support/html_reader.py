"""Reads a report's HTML for tests: elements with their attributes, in order, and whether every tag is closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link", "source"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    inside: list[str] = field(default_factory=list)  #: tags around it, from the outside in
    text: str = ""


class Reader(HTMLParser):
    """`elements` of a page, each with the text in it; `errors` where tags don't match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.errors: list[str] = []
        self._open: list[Element] = []
        self.feed(page)
        self.close()
        self.errors += [f"<{element.tag}> stays open" for element in self._open]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs}, [e.tag for e in self._open])
        if len(dict(attrs)) != len(attrs):
            self.errors.append(f"<{tag}> has an attribute twice")
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        if not self._open or self._open[-1].tag != tag:
            self.errors.append(f"</{tag}> closes {self._open[-1].tag if self._open else 'nothing'}")
        else:
            self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def tables(self) -> dict[str, list[list[str]]]:
        """By caption, the texts of the cells of each row of a table's body, heads of rows among them."""
        found: dict[str, list[list[str]]] = {}
        rows: list[list[str]] = []
        for element in self.elements:
            if element.tag == "caption":
                rows = found.setdefault(element.text, [])
            elif element.tag == "tr" and "tbody" in element.inside:
                rows.append([])
            elif element.tag in ("th", "td") and "tbody" in element.inside:
                rows[-1].append(element.text)
        return found

    def ids(self) -> list[str]:
        return [element.attributes["id"] for element in self.elements if "id" in element.attributes]
